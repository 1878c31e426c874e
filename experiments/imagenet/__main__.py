r"""Train a network on ImageNet from class labels: the networks of Zhou et al. 2016, and those compared with them.

    camjax prepare imagenet2012 --manual-dir DIR --data-dir DATA     # once
    python -m experiments.imagenet --recipe googlenet_cam --weights bvlc_googlenet.caffemodel --data-dir DATA
    python -m experiments.imagenet --recipe googlenet_cam --model vgg16_gap --weights vgg16-397923af.pth --data-dir DATA
    python -m experiments.imagenet --recipe resnet50 --data-dir DATA
    python -m experiments.imagenet --recipe wsol --model vgg16_wsol --weights vgg16-397923af.pth --data-dir DATA
    python -m experiments.imagenet --recipe googlenet_cam --model small_gap --weights random --dataset scenes \
        --epochs 5 --learning-rate 0.05

The last is a trial without ImageNet, of five minutes on two CPU cores that had other work too; its top-1 error was
30.2 %. `--dry-run` says what a run would be; docs/tpu_pods.md has the commands for GPUs, TPUs and pod slices. The same
command goes on where it was interrupted.

| recipe | starts from | images seen | in training | in evaluation |
|---|---|---|---|---|
| googlenet_cam | weights | 10.2 million (8 epochs) | squashed to 256, random crop of 224 | the middle 224 of 256 |
| resnet50 | random | 115.3 million (90 epochs) | random resized crop of 224 | short side to 256, middle 224 |
| wsol | weights | 12.8 million (10 epochs) | squashed to 256, random crop of 224 | squashed to 224 |

All flip at random; networks for other sizes than 224 keep the proportion. Learning rates, batches and weight decay, and
where they are from: `camjax.training.published`. googlenet_cam is the solver that was released with GoogLeNet-GAP. The
paper's other networks came without one, and train by it here; `--pool gmp` is GoogLeNet-GMP.

**Errors to expect**, in percent. Table 1 of Zhou et al., top-1 and top-5 on the validation images: VGGnet-GAP 33.4 and
12.2, GoogLeNet-GAP 35.0 and 13.2, AlexNet*-GAP 44.9 and 20.9, AlexNet-GAP 51.1 and 26.3, GoogLeNet-GMP 35.6 and 13.9.
ResNet-50: 23 to 24 top-1 (Goyal et al. 2017: 23.6 with 256 images a batch, 23.7 with 8,192; Flax's example, 100
epochs: 23.3 to 23.7). wsol is about boxes, MaxBoxAccV2 of CAM on ImageNet (Choe et al. 2020): VGG 60.0, Inception 63.4,
ResNet 63.7, the center box 52.5. `camjax evaluate` measures boxes and top-5 errors of a run.

**Hours to expect**: images seen / images a second / 3600. From the literature, for 100 epochs of ResNet-50 in Flax's
example: 4.3 hours on 8 V100 in mixed precision (8,300 images a second), 13.2 in float32, 4.4 on a TPU v3-8, 2.1 on a
v3-32. No hours are published for googlenet_cam and wsol. `--fake-data images --steps 200` shows the images a second of
your machine without its input, `--fake-data jpeg` with decoding and cropping of JPEGs of ImageNet's size.

Ours: ImageNet, published weights and accelerators were not at hand where this was written. No error and no hours of
ours on ImageNet stand here; what was run is the trial on scenes, on a CPU.
"""

import json
import os
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from flax import nnx
from rich.console import Console

import camjax
from camjax.cli.errors import run_command
from camjax.data import transforms
from camjax.data.fake import FakeImages
from camjax.data.images import center_view, resize_image
from camjax.data.loader import RandomAccessSource
from camjax.data.sources import SourceInfo, open_source
from camjax.loading import imagenet_class_names
from camjax.models import CamModel, model_spec
from camjax.models.shapes import model_shapes
from camjax.training import describe_plan, fit, initialize
from camjax.training.published import IMAGENET_IMAGES
from experiments.imagenet.options import IMAGENET, Options, recipe_of

PROGRAM = "python -m experiments.imagenet"
PHOTOGRAPH = (375, 500)


class CenterViews:
    """The examples of a source with the middle of each image: 224 of 256 pixels along both axes.

    Args:
      source: images of any size.
      size: (h, w) of the views.
      squash: whether of the whole image, as Caffe's networks are tested; or of its largest centered part that has the
        aspect of `size`, which is the crop from an image that is resized so that its short side has 256.
    """

    def __init__(self, source: RandomAccessSource, size: tuple[int, int], *, squash: bool):
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


def open_data(options: Options, size: tuple[int, int]) -> tuple[RandomAccessSource, RandomAccessSource | None]:
    """The training images, and those for evaluation as it sees them (None for fake data); `size` is the network's."""
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
    """What training sees of an image, in the network's size; None for the whole of it."""
    if options.fake_data == "images":
        return None
    if options.recipe == "resnet50":
        crop = transforms.random_resized_crop(size)
    else:  # AlexNet's 227 pixels are cut out of 256 too
        whole = tuple(256 if side == 227 else round(side * 256 / 224) for side in size)
        crop = transforms.resize_then_random_crop(whole, size)
    return transforms.compose(crop, transforms.random_horizontal_flip)


def starting_model(options: Options, info: SourceInfo) -> CamModel:
    """The network with the weights that training starts from."""
    how = {
        "num_classes": info.num_classes,
        "pool": options.pool,
        "dtype": jnp.dtype(options.dtype or ("bfloat16" if options.recipe == "resnet50" else "float32")),
        "rngs": nnx.Rngs(options.seed),
    }
    if options.from_scratch:
        model = camjax.create_model(options.network, **how)
    else:
        surgery = model_spec(options.network).new_layers != ("head",)
        new = surgery if options.head is None else options.head == "new"
        model = camjax.load_model(options.network, options.weights, backbone_only=new, **how)
    # tfds has the numbers of ImageNet's synsets, in the same order.
    model.class_names = imagenet_class_names() if info.name == IMAGENET else info.class_names
    return model


def intervals(options: Options, steps_per_epoch: int) -> tuple[int, int]:
    """Steps between two checkpoints, and between two evaluations, which is a multiple of it."""
    every = options.checkpoint_every or options.eval_every
    every = every or max(1, steps_per_epoch // max(1, steps_per_epoch // 1000))
    return every, options.eval_every or every * max(1, round(steps_per_epoch / every))


def main(options: Options) -> None:
    """Trains, or says what the run would be."""
    initialize(options.coordinator, options.num_processes, options.process_id)
    console = Console(highlight=False, markup=False, soft_wrap=True, quiet=jax.process_index() > 0)
    size = model_shapes(options.network).input_size
    train, validation = open_data(options, size)
    model = starting_model(options, train.info)
    recipe, augment = recipe_of(options, len(train)), training_view(options, size)
    checkpoint_every, eval_every = intervals(options, len(train) // recipe.batch_size)
    out = options.out or (None if options.fake_data else Path("runs", options.network))
    evaluations = "none" if validation is None else f"every {eval_every:,} steps on {options.eval_split}"
    console.print(
        f"{options.network} on {train.info.name} in {model.dtype.name}: {recipe.steps:,} steps of {recipe.batch_size} "
        f"images, devices: {jax.device_count()}\n"
        f"images      {augment or 'whole'}\n"
        f"evaluation  {evaluations}\n"
        f"written to  {'nowhere' if out is None else f'{out}, checkpoints every {checkpoint_every:,} steps'}"
    )
    if options.dry_run:
        console.print(str(describe_plan(model, recipe, train)))
        return
    fit(
        model,
        train,
        recipe,
        run_dir=out,
        augment=augment,
        eval_source=validation,
        eval_every=eval_every,
        checkpoint_every=checkpoint_every,
        num_workers=options.workers,
    )
    if validation is not None and jax.process_index() == 0:
        accuracy = json.loads((out / "run_card.json").read_text())["results"]["eval/accuracy"]
        words = ["camjax", "evaluate", "--dataset", options.dataset, "--split", options.eval_split]
        words += ["--data-dir", str(options.data_dir)] if options.data_dir else []
        console.print(
            f"Top-1 error on {options.eval_split}: {1 - accuracy:.1%}. Curves and settings: {out / 'run_card.md'}\n"
            f"Boxes and top-5 errors: {shlex.join([*words, '--model', os.path.join('.', out)])}"
        )


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, lambda: main(tyro.cli(Options, prog=PROGRAM))))
