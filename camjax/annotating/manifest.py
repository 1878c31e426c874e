"""The manifest, written last: what was annotated, how, where everything is, and which pictures can't be read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from camjax.annotating.finished import Finished
from camjax.annotating.json_lines import write_object
from camjax.json_files import read_json

NAME = "manifest.json"


class Unreadable(TypedDict):
    """A picture that can't be read."""

    file: str
    reason: str


class ClassCount(TypedDict):
    """How often a class was found."""

    class_id: int
    name: str
    pictures: int
    boxes: int


class Manifest(TypedDict):
    """The content of the file.

    Attributes:
      folder: of the pictures, an absolute path.
      settings: what the results depend on: network, weights, method, rule of boxes ...
      pictures: the number of all.
      annotated: pictures that could be read.
      without_boxes: those of them that have no box.
      boxes: the number of boxes.
      classes: of each class that has boxes, by falling number of boxes.
      files: what was written: name -> path, or a list of paths with the pictures that each covers.
      unreadable: the other pictures.
    """

    folder: str
    settings: dict[str, Any]
    pictures: int
    annotated: int
    without_boxes: int
    boxes: int
    classes: list[ClassCount]
    files: dict[str, Any]
    unreadable: list[Unreadable]


def write(out: Path, settings: dict[str, Any], finished: Finished, files: dict[str, Any]) -> None:
    """Writes it; arguments as in `Manifest`."""
    boxes, pictures = Counter[int](), Counter[int]()
    annotated = without = 0
    for picture in finished.pictures():
        annotated += not picture.unreadable
        without += not picture.unreadable and not picture.boxes
        counts = Counter(box.class_id for box in picture.boxes)
        boxes.update(counts)
        pictures.update(counts.keys())
    classes = [
        ClassCount(class_id=i, name=finished.names.shown[i], pictures=pictures[i], boxes=count)
        for i, count in sorted(boxes.items(), key=lambda item: (-item[1], item[0]))
    ]
    write_object(
        out / NAME,
        {
            "folder": settings["folder"],
            "settings": settings,
            "pictures": settings["pictures"],
            "annotated": annotated,
            "without_boxes": without,
            "boxes": boxes.total(),
            "classes": classes,
            "files": files,
            "unreadable": _unreadable(finished),
        },
    )


def _unreadable(finished: Finished) -> Iterator[Unreadable]:
    for picture in finished.pictures():
        if picture.unreadable:
            yield Unreadable(file=picture.name, reason=picture.unreadable)


def read(out: Path) -> Manifest:
    """Reads it; raises OSError or ValueError."""
    return read_json(out / NAME, Manifest, advice=f"Delete {out}, and annotate again.")
