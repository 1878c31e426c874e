"""Boxes as XML files as PASCAL VOC introduced them, one for each picture."""

import xml.etree.ElementTree as ET
from pathlib import Path

from camjax.annotating.finished import Finished
from camjax.annotating.records import Picture


def write(folder: Path, finished: Finished) -> None:
    """Writes a file for each picture that can be read, under its own name, as `camjax.data.annotations.voc_xml` reads.

    Pixels count from 0 in the stored picture, and `<xmax>`, `<ymax>` are the last ones of the box.
    """
    folder.mkdir(exist_ok=True)
    for picture in finished.pictures():
        if not picture.unreadable:
            path = folder / f"{finished.places(picture.name)}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_xml(picture, finished))


def _xml(picture: Picture, finished: Finished) -> bytes:
    root = ET.Element("annotation")
    place, _, filename = picture.name.rpartition("/")
    height, width = picture.size
    _add(root, folder=place, filename=filename)
    _add(ET.SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=0)
    for box in picture.boxes:
        xmin, ymin, xmax, ymax = box.corners
        item = ET.SubElement(root, "object")
        _add(item, name=finished.names.read[box.class_id], pose="Unspecified", truncated=0, difficult=0)
        _add(item, score=box.score, threshold=box.threshold)
        _add(ET.SubElement(item, "bndbox"), xmin=xmin, ymin=ymin, xmax=xmax - 1, ymax=ymax - 1)
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8") + b"\n"


def _add(parent: ET.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ET.SubElement(parent, tag).text = str(text)
