"""Miniatures of CUB-200-2011 and ImageNet: archives in the layouts of the real ones, of pieces of real photographs.

The photographs are those that scikit-image and scikit-learn ship. Files and classes are named as in the real ones;
that says nothing of what the images show.
"""

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

VOTES = (0, 51, 102, 153, 204, 255)
"""The gray levels of CUB's masks: how many of five people drew the outline around a pixel, times 51."""


@dataclass(frozen=True)
class Bird:
    """One image of the miniature of CUB-200-2011.

    Attributes:
      number: the image's id, from 1.
      name: "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg".
      label: 0..199.
      train: which split it is in.
      box: x, y, width, height in pixels, as CUB writes them.
      pixels: (H, W, 3) uint8, or (H, W) for one of the few gray images.
      votes: (H, W) uint8 of the levels `VOTES`.
    """

    number: int
    name: str
    label: int
    train: bool
    box: tuple[float, float, float, float]
    pixels: np.ndarray
    votes: np.ndarray


@dataclass(frozen=True)
class Photo:
    """One image of the miniature of ImageNet.

    Attributes:
      name: "n01440764_10026.JPEG", "ILSVRC2012_val_00000001.JPEG".
      synset: of its class.
      mode: Pillow's mode of the file: "RGB", "L", "CMYK".
      format: "JPEG", or "PNG" as one file of the training set that is named .JPEG all the same.
      pixels: (H, W, 3) uint8.
      boxes: (n, 4) xmin, ymin, xmax, ymax in pixels, counted from 1 as in Pascal VOC.
    """

    name: str
    synset: str
    mode: str
    format: str
    pixels: np.ndarray
    boxes: tuple[tuple[int, int, int, int], ...]


def birds() -> list[Bird]:
    """Nine images of three classes; CUB's splits do not follow the order of its images, and neither do these."""
    pieces = _pieces()
    gray = 4  # CUB has a few gray images
    images = []
    for i, (name, train) in enumerate(
        [
            ("001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg", False),
            ("001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg", True),
            ("001.Black_footed_Albatross/Black_Footed_Albatross_0002_55.jpg", False),
            ("002.Laysan_Albatross/Laysan_Albatross_0044_784.jpg", True),
            ("002.Laysan_Albatross/Laysan_Albatross_0104_630.jpg", True),
            ("002.Laysan_Albatross/Laysan_Albatross_0082_524.jpg", False),
            ("200.Common_Yellowthroat/Common_Yellowthroat_0090_190503.jpg", True),
            ("200.Common_Yellowthroat/Common_Yellowthroat_0038_190902.jpg", False),
            ("200.Common_Yellowthroat/Common_Yellowthroat_0126_190407.jpg", True),
        ]
    ):
        pixels = pieces[i]
        height, width = pixels.shape[:2]
        # The last box goes to the edges of its image, as many do.
        box = (0.0, 0.0, float(width), float(height)) if i == 8 else (10.0 + 3 * i, 6.0 + i, 70.0 + 2 * i, 60.0 - i)
        images.append(
            Bird(
                number=i + 1,
                name=name,
                label=int(name[:3]) - 1,
                train=train,
                box=box,
                pixels=np.asarray(Image.fromarray(pixels).convert("L")) if i == gray else pixels,
                votes=_votes((height, width), box),
            )
        )
    return images


def write_birds(folder: Path, images: Sequence[Bird]) -> None:
    """Writes CUB_200_2011.tgz and segmentations.tgz."""
    lists = {"images": [], "image_class_labels": [], "train_test_split": [], "bounding_boxes": []}
    files, masks = {}, {}
    for bird in images:
        x, y, width, height = bird.box
        lists["images"].append(f"{bird.number} {bird.name}")
        lists["image_class_labels"].append(f"{bird.number} {bird.label + 1}")
        lists["train_test_split"].append(f"{bird.number} {int(bird.train)}")
        lists["bounding_boxes"].append(f"{bird.number} {x:.1f} {y:.1f} {width:.1f} {height:.1f}")
        files[f"CUB_200_2011/images/{bird.name}"] = encoded(bird.pixels)
        masks[f"segmentations/{Path(bird.name).with_suffix('.png')}"] = encoded(bird.votes, format="PNG")
    classes = dict.fromkeys(f"{bird.label + 1} {bird.name.split('/')[0]}" for bird in images)
    lists["classes"] = list(classes)
    texts = {f"CUB_200_2011/{name}.txt": "".join(f"{line}\n" for line in lines) for name, lines in lists.items()}
    texts |= {"attributes.txt": "1 has_bill_shape::curved_(up_or_down)\n", "CUB_200_2011/README": "A miniature.\n"}
    texts |= {"CUB_200_2011/parts/parts.txt": "1 back\n"}
    with tarfile.open(folder / "CUB_200_2011.tgz", "w:gz") as tar:
        _add(tar, {name: text.encode() for name, text in texts.items()} | files)
    with tarfile.open(folder / "segmentations.tgz", "w:gz") as tar:
        _add(tar, masks)


def photos() -> dict[str, list[Photo]]:
    """Training and validation images, {"train": ..., "validation": ...}.

    The training set has, under their real names, one of ImageNet's CMYK files and its one PNG file, which tfds
    converts, and a gray one, which it does not. The labels of the validation images are the real ones.
    """
    pieces = iter(_pieces())
    train = [
        ("n01440764_10026.JPEG", "RGB", "JPEG"),
        ("n01440764_10027.JPEG", "L", "JPEG"),
        ("n01739381_1309.JPEG", "CMYK", "JPEG"),
        ("n02105855_2933.JPEG", "RGB", "PNG"),
        ("n02105855_10.JPEG", "RGB", "JPEG"),
    ]
    synsets = ["n01751748", "n09193705", "n02105855", "n04263257"]  # of the first images of the validation set
    boxes = [((1, 1, 80, 60),), ((20, 10, 100, 90), (60, 40, 110, 90)), ((5, 7, 64, 72),), ((30, 30, 50, 60),)]
    return {
        "train": [Photo(name, name[:9], mode, format, next(pieces), ()) for name, mode, format in train],
        "validation": [
            Photo(f"ILSVRC2012_val_{i + 1:08}.JPEG", synsets[i], "RGB", "JPEG", next(pieces), boxes[i])
            for i in range(len(synsets))
        ],
    }


def write_photos(folder: Path, images: dict[str, list[Photo]]) -> None:
    """Writes ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_bbox_val_v3.tgz."""
    synsets = {}
    for photo in images["train"]:
        synsets.setdefault(photo.synset, {})[photo.name] = encoded(photo.pixels, photo.mode, photo.format)
    inner = {}
    for synset, files in synsets.items():
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            _add(tar, files)
        inner[f"{synset}.tar"] = stream.getvalue()
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as tar:
        _add(tar, inner)
    # The real archive is not in alphabetical order either.
    shuffled = images["validation"][1::2] + images["validation"][::2]
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        _add(tar, {photo.name: encoded(photo.pixels, photo.mode, photo.format) for photo in shuffled})
    with tarfile.open(folder / "ILSVRC2012_bbox_val_v3.tgz", "w:gz") as tar:
        _add(tar, {f"val/{Path(photo.name).stem}.xml": _voc_xml(photo).encode() for photo in images["validation"]})


def encoded(pixels: np.ndarray, mode: str | None = None, format: str = "JPEG") -> bytes:
    """The bytes of an image file, by default a JPEG of high quality."""
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if format == "JPEG" else {}
    (image.convert(mode) if mode else image).save(stream, format=format, **options)
    return stream.getvalue()


def _pieces() -> list[np.ndarray]:
    """Nine pieces of photographs, (H, W, 3) uint8 of different heights and widths, wide and tall."""
    china, flower = load_sample_images().images
    astronaut, cat, coffee, rocket = data.astronaut(), data.chelsea(), data.coffee(), data.rocket()
    return [
        astronaut[:120, 160:310],
        cat[40:200, 80:280],
        coffee[60:260, 140:280],
        china[100:260, 180:400],
        flower[120:280, 200:380],
        rocket[100:300, 260:400],
        cat[20:150, 200:370],
        flower[60:220, 240:360],
        astronaut[250:400, 60:240],
    ]


def _votes(size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    """Five ellipses, each a little smaller, in a box: where all five people agree, fewer further out."""
    x, y, width, height = box
    rows, columns = np.ogrid[: size[0], : size[1]]
    distance = np.hypot((rows + 0.5 - y - height / 2) / (height / 2), (columns + 0.5 - x - width / 2) / (width / 2))
    return sum((distance <= 1 - 0.1 * i).astype(np.uint8) * 51 for i in range(5)).astype(np.uint8)


def _voc_xml(photo: Photo) -> str:
    """The boxes of an image as ILSVRC's annotations have them."""
    height, width = photo.pixels.shape[:2]
    objects = "".join(
        f"\t<object>\n\t\t<name>{photo.synset}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{xmin}</xmin>\n\t\t\t<ymin>{ymin}</ymin>\n"
        f"\t\t\t<xmax>{xmax}</xmax>\n\t\t\t<ymax>{ymax}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for xmin, ymin, xmax, ymax in photo.boxes
    )
    return (
        f"<annotation>\n\t<folder>val</folder>\n\t<filename>{Path(photo.name).stem}</filename>\n"
        "\t<source>\n\t\t<database>ILSVRC_2012</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _add(tar: tarfile.TarFile, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
