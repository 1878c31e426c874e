"""The images of ImageNet training: where they come from, and what training and evaluation see of them."""

from camjax.data import transforms
from camjax.data.fake import FakeImages
from camjax.data.images import center_view, resize_image
from camjax.data.sources import open_source
from camjax.models import model_spec
from camjax.training.published import IMAGENET_IMAGES
from experiments.common.image_lists import ImageSource
from experiments.imagenet.options import Options

PHOTOGRAPH = (375, 500)


class CenterViews:
    """The examples of a source with the middle of each image: 224 of 256 pixels along both axes.

    Args:
      source: images of any size.
      size: (h, w) of the views.
      squash: take the middle of the whole image, as Caffe's networks are tested. Otherwise take it from the largest
        centered part with the aspect of `size`: the crop of an image whose short side is resized to 256.
    """

    def __init__(self, source: ImageSource, size: tuple[int, int], *, squash: bool):
        self.source, self.size, self.squash = source, size, squash
        self.info = source.info

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict:
        example = self.source[index]
        image = example["image"]
        top, left, bottom, right = (0, 0, 1, 1) if self.squash else center_view(image.shape[:2], self.size)
        y, x = (bottom - top) / 16, (right - left) / 16
        box = (top + y, left + x, bottom - y, right - x)
        return {"image": resize_image(image, self.size, box=box), "label": example["label"]}


def open_data(options: Options, size: tuple[int, int]) -> tuple[ImageSource, ImageSource | None]:
    """The training images, and the views for evaluation (None for fake data), in the network's size."""
    if options.fake_data:
        jpeg = options.fake_data == "jpeg"
        classes = model_spec(options.network).num_classes
        shape = PHOTOGRAPH if jpeg else size
        return FakeImages(IMAGENET_IMAGES, num_classes=classes, image_size=shape, jpeg=jpeg), None
    train, validation = (
        open_source(options.dataset, split, data_dir=options.data_dir)
        for split in (options.train_split, options.eval_split)
    )
    if options.recipe == "wsol":
        return train, validation  # `fit` squashes them
    return train, CenterViews(validation, size, squash=options.recipe == "googlenet_cam")


def training_view(options: Options, size: tuple[int, int]) -> transforms.Transform | None:
    """What training sees of an image, in the network's size; None for the whole image."""
    if options.fake_data == "images":
        return None
    if options.recipe == "resnet50":
        crop = transforms.random_resized_crop(size)
    else:  # AlexNet's 227 pixels are cropped from 256 too
        height, width = (256 if side == 227 else round(side * 256 / 224) for side in size)
        crop = transforms.resize_then_random_crop((height, width), size)
    return transforms.compose(crop, transforms.random_horizontal_flip)
