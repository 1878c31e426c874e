"""A folder of images with boxes in XML files as PASCAL VOC introduced them, ILSVRC uses and labeling tools write."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from camjax.data.annotation import stem_of
from camjax.data.annotations._format import Format
from camjax.data.annotations.class_folders import open_folder
from camjax.data.image_files import find_files, spelling
from camjax.data.pixel_boxes import Corners, ListedImage, check_corners
from camjax.data.regular_files import check_regular
from camjax.data.xml_files import parse_xml, pixels
from camjax.errors import InputError

MAX_BYTES = 2**20
"""The largest file that is read: some 4,000 objects."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc_xml(path: str | os.PathLike[str]) -> ListedImage:
    """Reads one XML file; see `parse_voc_xml`. Raises OSError if the file cannot be read."""
    check_regular(path)
    with open(path, "rb") as file:
        return parse_voc_xml(file.read(MAX_BYTES + 1), str(path))


def parse_voc_xml(data: bytes, name: str) -> ListedImage:
    """Reads the objects of one image: `<size>`, and of each `<object>` its `<name>` and `<bndbox>`.

    Pixels count from 0, and `<xmax>`, `<ymax>` name the last pixel of the box, as in ILSVRC's files. PASCAL VOC's own
    count from 1: read so, their boxes lie one pixel to the right and below, and are cut at the image's edge. Objects
    marked as difficult or truncated count as the others do.

    Args:
      data: the file's bytes.
      name: the file's name. Its stem has to be that of `<filename>`, where the file has one.

    Raises:
      ValueError: not XML, a document type, a file beyond `MAX_BYTES`, a missing element, an invalid number, an image
        without extent, a box whose minimum is above its maximum or that leaves the image by more than a pixel. The
        message names the file.
    """
    root = parse_xml(data, name, MAX_BYTES)
    if root.tag != "annotation":
        raise InputError(f"{name} holds <{root.tag}>: expected <annotation>, as PASCAL VOC writes it.")

    stem = spelling(stem_of(name))
    filename = spelling((root.findtext("filename") or "").strip() or name)
    # ILSVRC leaves the suffix out.
    if filename and stem not in (filename, stem_of(filename)):
        raise InputError(f"{name} has the <filename> {filename!r}: expected {stem!r}. Correct it, or rename the file.")
    width, height = _numbers(root.find("size"), ("width", "height"), f"{name}: <size>")
    if not (height >= 1 and width >= 1 and height.is_integer() and width.is_integer()):
        raise InputError(f"{name}: <size> is {width:g} x {height:g} pixels: expected the image's size.")
    size = int(height), int(width)

    classes: list[str] = []
    boxes: list[Corners] = []
    for number, item in enumerate(root.findall("object"), 1):
        where = f"{name}: object {number}"
        label = (item.findtext("name") or "").strip()
        if not label:
            raise InputError(f"{where} has no <name>: expected its class.")
        xmin, ymin, xmax, ymax = _numbers(item.find("bndbox"), _CORNERS, where)
        check_corners((xmin, ymin, xmax, ymax), size, where)
        classes.append(label)
        boxes.append((xmin, ymin, xmax, ymax))
    return ListedImage(name, tuple(classes), boxes, size=size)


def _numbers(parent: ET.Element | None, tags: Sequence[str], where: str) -> list[float]:
    return [pixels(None if parent is None else parent.findtext(tag), f"{where}: <{tag}>") for tag in tags]


def find_xml(folder: Path) -> list[Path]:
    """The XML files of a folder and all below it, sorted; without those that begin with a dot, as macOS adds."""
    return [folder / name for name in find_files(folder) if name.lower().endswith(".xml")]


def read_boxes(folder: Path, root: Path, names: Sequence[str]) -> Mapping[str, ListedImage]:
    """Reads the boxes of the images of a folder, see `camjax.data.annotations.class_folders.open_folder`.

    An XML file belongs to the image of its own path within the folder, or else to that of its own name. The path is
    that of the image with or without its suffix: "a.jpg.xml" beside "a.png.xml" tells two images apart.
    """
    whole = {spelling(name): [name] for name in names}
    by_path: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_path.setdefault(spelling(name.rpartition(".")[0]), []).append(name)
        by_stem.setdefault(spelling(stem_of(name)), []).append(name)
    found: dict[str, ListedImage] = {}
    for path in find_xml(folder):
        place = path.relative_to(folder).with_suffix("").as_posix()
        matches = whole.get(spelling(place)) or by_path.get(spelling(place)) or by_stem.get(spelling(path.stem), [])
        if not matches:
            raise FileNotFoundError(f"{path}: image {place!r} not found in {root}. Rename one of them.")
        if len(matches) > 1:
            raise InputError(f"{path} may be about {' or '.join(matches)}: put it where its image is, or rename them.")
        (name,) = matches
        if name in found:
            raise InputError(f"{path} and {found[name].where} are both about {name}: keep one of them.")
        found[name] = read_voc_xml(path)
    if not found:
        raise InputError(f"{folder} has no XML files: expected one for each image with boxes, or a CSV file.")
    return found


FORMAT = Format(
    title="a folder of images with boxes in XML files",
    options=("boxes", "class_names"),
    recognizes=lambda request: request.is_folder and request.boxes is not None and request.boxes.is_dir(),
    open=lambda request: open_folder(request, read_boxes),
)
