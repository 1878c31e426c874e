"""Boxes as XML files as PASCAL VOC introduced them, one for each picture."""

from pathlib import Path
from xml.sax.saxutils import escape

from camjax.annotating.finished import Finished
from camjax.annotating.records import Picture
from camjax.files import filled_folder

_FILE = """\
<annotation>
  <folder>{folder}</folder>
  <filename>{filename}</filename>
  <size>
    <width>{width}</width>
    <height>{height}</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>
{objects}</annotation>
"""

_OBJECT = """\
  <object>
    <name>{name}</name>
    <pose>Unspecified</pose>
    <truncated>0</truncated>
    <difficult>0</difficult>
    <score>{score}</score>
    <threshold>{threshold}</threshold>
    <bndbox>
      <xmin>{xmin}</xmin>
      <ymin>{ymin}</ymin>
      <xmax>{xmax}</xmax>
      <ymax>{ymax}</ymax>
    </bndbox>
  </object>
"""


def write(folder: Path, finished: Finished) -> None:
    """Writes a file for each picture that can be read, under its own name, as `camjax.data.annotations.voc_xml` reads.

    Pixels count from 0 in the stored picture, and `<xmax>`, `<ymax>` are the last ones of the box.
    """
    with filled_folder(folder) as filled:
        made = {filled}
        for picture in finished.pictures():
            if not picture.unreadable:
                path = filled / f"{finished.places(picture.name)}.xml"
                if path.parent not in made:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    made.add(path.parent)
                path.write_bytes(_xml(picture, finished).encode())


def _xml(picture: Picture, finished: Finished) -> str:
    folder, _, filename = picture.name.rpartition("/")
    height, width = picture.size
    objects = ""
    for box in picture.boxes:
        xmin, ymin, xmax, ymax = box.corners
        objects += _OBJECT.format(
            name=escape(finished.names.read[box.class_id]),
            score=box.score,
            threshold=box.threshold,
            **{"xmin": xmin, "ymin": ymin, "xmax": xmax - 1, "ymax": ymax - 1},
        )
    return _FILE.format(folder=escape(folder), filename=escape(filename), width=width, height=height, objects=objects)
