"""Images with text and without: Street View Text and folders of outdoor scenes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camjax.data.annotation import no_boxes
from camjax.data.decoding import ImageError
from camjax.data.image_files import check_files, find_images, read_stored_size
from camjax.data.sources import SourceInfo
from camjax.errors import InputError
from experiments.common.image_lists import ImageSource, ListedImages, list_lines
from experiments.common.layouts import check_layout, missing_layout
from experiments.text_detector.svt_xml import SvtImage, read_svt_xml

CLASS_NAMES = ("without text", "with text")
LEAST_IMAGES = 3
"""Of each kind in training: each part of the cross-validation gets one."""

SVT_TREE = """
    img/
      00_00.jpg
    train.xml
    test.xml
"""
SUN_TREE = """
    a/
      abbey/             any folders of images, one category each, however deep
        sun_aaalbzqrimafwbiv.jpg
"""


@dataclass(frozen=True)
class TextImages:
    """The training or the test images.

    Attributes:
      source: n images, with the labels of `CLASS_NAMES`.
      labels: (n,) int.
      boxes: for each image the boxes around its text, (m, 4) `[ymin, xmin, ymax, xmax]` in 0..1.
    """

    source: ImageSource
    labels: np.ndarray
    boxes: Sequence[np.ndarray]


def open_text_images(
    svt: Path, outdoor: Path, categories: Path | None, negatives: int, seed: int = 0
) -> tuple[TextImages, TextImages]:
    """The training and the test images of Street View Text, each with `negatives` random images of outdoor scenes.

    Args:
      svt: the folder svt1 of Street View Text, see `SVT_TREE`.
      outdoor: a folder of outdoor scenes, see `SUN_TREE`.
      categories: a text file with the folders of `outdoor` to take, one a line, as /a/abbey; None for all.
      negatives: images of `outdoor` in each of the two parts.
      seed: of their choice.

    Raises:
      FileNotFoundError: a folder has another layout, or lacks an image.
      ValueError: a damaged list, an image whose size differs from its list, or too few images.
    """
    where = "Unpack http://www.iapr-tc11.org/dataset/SVT/svt.zip, and give its folder svt1 as --svt."
    check_layout(svt, ["img", "train.xml", "test.xml"], SVT_TREE, where)
    listed = [read_svt_xml(svt / name) for name in ("train.xml", "test.xml")]
    for name, images in zip(("train.xml", "test.xml"), listed, strict=True):
        check_files(svt, [(image.name, str(svt / name)) for image in images])
        _check_sizes(svt, images)
    if len(listed[0]) < LEAST_IMAGES:
        raise InputError(f"{svt / 'train.xml'} has {len(listed[0])} images: expected at least {LEAST_IMAGES}.")
    outdoors = _outdoor_images(outdoor, categories)
    if negatives < LEAST_IMAGES or len(outdoors) < 2 * negatives:
        raise InputError(
            f"--num-negatives {negatives}, for training and again for testing, of {len(outdoors)} images in {outdoor}: "
            f"expected at least {LEAST_IMAGES}, and twice as many images. Give another number, or more categories."
        )
    drawn = [outdoors[index] for index in np.random.default_rng(seed).permutation(len(outdoors))]
    parts = drawn[:negatives], drawn[negatives : 2 * negatives]
    train, test = (
        _part(split, svt, images, outdoor, sorted(names))
        for split, images, names in zip(("train", "test"), listed, parts, strict=True)
    )
    return train, test


def _part(split: str, svt: Path, images: Sequence[SvtImage], outdoor: Path, names: Sequence[str]) -> TextImages:
    files = [str((svt / image.name).absolute()) for image in images]
    files += [str((outdoor / name).absolute()) for name in names]
    labels = np.repeat([1, 0], [len(images), len(names)])
    # Other categories give other images of the same number: their results must not pass for these.
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
    dataset, keys = f"{svt.name} and {outdoor.name}", ("image", "label", "filename")
    info = SourceInfo(dataset, f"{split}, scenes {digest}", CLASS_NAMES, len(labels), keys)
    boxes = [image.boxes for image in images] + [no_boxes()] * len(names)
    return TextImages(ListedImages(Path("/"), files, labels, info), labels, boxes)


def _check_sizes(svt: Path, images: Sequence[SvtImage]) -> None:
    for image in images:
        try:
            size = read_stored_size(svt / image.name)
        except ImageError:
            continue  # the extraction of features reports it
        if size != image.size:
            raise InputError(
                f"{svt / image.name} has {size[1]} x {size[0]} pixels, and the list says {image.size[1]} x "
                f"{image.size[0]}: its boxes belong to another copy."
            )


def _outdoor_images(folder: Path, categories: Path | None) -> list[str]:
    where = (
        "SUN397 is at https://vision.princeton.edu/projects/2010/SUN/ (37 GB). Give its folder, or any of outdoor "
        "scenes, as --outdoor."
    )
    names = find_images(folder) if folder.is_dir() else []
    if not names:
        raise missing_layout(folder, SUN_TREE, where)
    if categories is None:
        return names
    chosen = set()
    for line in list_lines(categories):
        of_category = [name for name in names if name.startswith(line.strip("/") + "/")]
        if not of_category:
            raise InputError(f"{categories}: {folder} has no images of {line!r}; expected a folder in it, as /a/abbey.")
        chosen.update(of_category)
    return sorted(chosen)
