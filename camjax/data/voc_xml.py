"""Boxes in the XML files that PASCAL VOC introduced, ILSVRC uses and labeling tools write."""

import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camjax.data.annotation import boxes_of_last_pixels, check_corners, shares, stem_of
from camjax.data.xml_files import parse_xml

MAX_BYTES = 2**20
"""The largest file that is read: some 4,000 objects."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class VocAnnotation:
    """The objects of one image.

    Attributes:
      name: of the XML file, for messages.
      size: (H, W) of the image in pixels, as the file says.
      classes: the name of each object's class.
      corners: xmin, ymin, xmax, ymax of each object in pixels, as the file says.
    """

    name: str
    size: tuple[int, int]
    classes: tuple[str, ...]
    corners: tuple[tuple[float, float, float, float], ...]

    @property
    def boxes(self) -> np.ndarray:
        """(n, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1, half-open: the file's last pixel belongs to the box."""
        return boxes_of_last_pixels(self.corners, self.size)

    @property
    def wsol_boxes(self) -> np.ndarray:
        """(n, 4) float32, the file's numbers as y / height and x / width."""
        return shares(self.corners, self.size)


def read_voc_xml(path: str | os.PathLike) -> VocAnnotation:
    """Reads one XML file; see `parse_voc_xml`.

    Raises:
      OSError: the file can't be read.
      ValueError: it is no such file; the message names it.
    """
    path = Path(path)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    return parse_voc_xml(data, str(path))


def parse_voc_xml(data: bytes, name: str) -> VocAnnotation:
    """Reads the objects of one image: `<size>`, and of each `<object>` its `<name>` and `<bndbox>`.

    Pixels count from 0, and `<xmax>`, `<ymax>` name the last pixel of the box, as in ILSVRC's files. PASCAL VOC's own
    count from 1: read so, their boxes lie one pixel to the right and below, and are cut at the image's edge. Objects
    marked as difficult or truncated are taken like the others.

    Args:
      data: the file's bytes.
      name: the file's name. Its stem has to be that of `<filename>`, where the file has one.

    Raises:
      ValueError: not XML, a document type, a file beyond `MAX_BYTES`, an element that is missing or no number, an image
        without extent, a box that is turned inside out or leaves the image by more than a pixel. The message names
        the file.
    """
    root = parse_xml(data, name, MAX_BYTES)
    if root.tag != "annotation":
        raise ValueError(f"{name} holds <{root.tag}>: expected <annotation>, as PASCAL VOC writes it.")

    stem = stem_of(name)
    filename = (root.findtext("filename") or "").strip().replace("\\", "/")
    # ILSVRC leaves the suffix out.
    if filename and stem not in (filename, stem_of(filename)):
        raise ValueError(f"{name} has the <filename> {filename!r}: expected {stem!r}. Correct it, or rename the file.")
    size = root.find("size")
    height, width = (_number(size, side, f"{name}: <size>") for side in ("height", "width"))
    if not (height >= 1 and width >= 1 and height.is_integer() and width.is_integer()):
        raise ValueError(f"{name}: <size> is {width:g} x {height:g} pixels: expected the image's size.")
    height, width = int(height), int(width)

    classes, corners = [], []
    for number, item in enumerate(root.findall("object"), 1):
        where = f"{name}: object {number}"
        label = (item.findtext("name") or "").strip()
        if not label:
            raise ValueError(f"{where} has no <name>: expected its class.")
        box = tuple(_number(item.find("bndbox"), corner, f"{where}: <bndbox>") for corner in _CORNERS)
        check_corners(box, (height, width), where)
        classes.append(label)
        corners.append(box)
    return VocAnnotation(name, (height, width), tuple(classes), tuple(corners))


def _number(parent: ET.Element | None, tag: str, where: str) -> float:
    text = None if parent is None else parent.findtext(tag)
    try:
        return float(text)
    except (TypeError, ValueError):
        found = "nothing" if text is None else repr(text)
        raise ValueError(f"{where} has {found} for <{tag}>: expected a number of pixels.") from None
