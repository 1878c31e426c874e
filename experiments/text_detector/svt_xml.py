"""Words in the XML files of the Street View Text data set (Wang and Belongie, ECCV 2010)."""

import math
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camjax.data.pixel_boxes import shares
from camjax.data.regular_files import check_regular
from camjax.data.xml_files import parse_xml, pixels
from camjax.errors import InputError

MAX_BYTES = 2**24
"""The largest file that is read; the data set has a few hundred images, some kilobytes each, in two files."""


@dataclass(frozen=True, slots=True)
class SvtImage:
    """An image and the words that are tagged in it.

    Attributes:
      name: of the image file, relative to the XML file, as "img/14_03.jpg".
      size: (H, W) of the image in pixels, as the file says.
      words: n of them.
      boxes: (n, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1, half-open, cut at the image's edges.
    """

    name: str
    size: tuple[int, int]
    words: tuple[str, ...]
    boxes: np.ndarray


def read_svt_xml(path: str | os.PathLike) -> list[SvtImage]:
    """Reads `train.xml` or `test.xml`; see `parse_svt_xml`.

    Raises:
      OSError: the file can't be read.
      ValueError: as `parse_svt_xml`; the message names the file.
    """
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    return parse_svt_xml(data, str(Path(path)))


def parse_svt_xml(data: bytes, name: str) -> list[SvtImage]:
    """Reads a list of images: `<imageName>`, `<Resolution x y>`, and the `<taggedRectangles>` around words.

    A rectangle has its upper left corner at (x, y), in pixels from 0, and is `width` wide and `height` high. Annotators
    tagged only the words of businesses nearby, so an image may show text outside of all boxes.

    Args:
      data: the file's bytes.
      name: the file's name, for messages.

    Returns:
      The images in the order of the file. One may have no words.

    Raises:
      ValueError: not XML, a document type, a file beyond `MAX_BYTES`, no images, or an image twice; an element is
        missing or not a number, an image has no extent, a rectangle has no extent or lies outside of its image. The
        message names the file and the image.
    """
    root = parse_xml(data, name, MAX_BYTES)
    if root.tag != "tagset":
        raise InputError(f"{name} holds <{root.tag}>: expected <tagset>, as in the Street View Text data set.")
    images = [_image(item, f"{name}: image {number}") for number, item in enumerate(root.findall("image"), 1)]
    if not images:
        raise InputError(f"{name} has no images: expected <image> in its <tagset>.")
    seen = set()
    for image in images:
        if image.name in seen:
            raise InputError(f"{name} has {image.name!r} twice: keep one of them.")
        seen.add(image.name)
    return images


def _image(item: ET.Element, where: str) -> SvtImage:
    image_name = (item.findtext("imageName") or "").strip().replace("\\", "/")
    if not image_name:
        raise InputError(f"{where} has no <imageName>: expected that of its file.")
    where = f"{where} ({image_name})"
    resolution = item.find("Resolution")
    if resolution is None:
        raise InputError(f"{where} has no <Resolution>: expected its size in pixels.")
    width, height = (pixels(resolution.get(side), f"{where}: {side} of <Resolution>") for side in ("x", "y"))
    if not (width >= 1 and height >= 1 and width.is_integer() and height.is_integer()):
        raise InputError(f"{where} has {width:g} x {height:g} pixels: expected the image's size.")
    words, corners = [], []
    for number, rectangle in enumerate(item.findall("taggedRectangles/taggedRectangle"), 1):
        what = f"{where}, rectangle {number}"
        x, y, across, down = (pixels(rectangle.get(side), f"{what}: {side}") for side in ("x", "y", "width", "height"))
        if not (all(map(math.isfinite, (x, y, across, down))) and across > 0 and down > 0):
            raise InputError(f"{what} is {across:g} x {down:g} pixels at ({x:g}, {y:g}): expected one with an extent.")
        if x >= width or y >= height or x + across <= 0 or y + down <= 0:
            raise InputError(
                f"{what}, {across:g} x {down:g} pixels at ({x:g}, {y:g}), lies outside of the image of {width:g} x "
                f"{height:g}. Correct the file."
            )
        words.append((rectangle.findtext("tag") or "").strip())
        corners.append((x, y, x + across, y + down))
    size = int(height), int(width)
    return SvtImage(image_name, size, tuple(words), shares(corners, size))
