"""Pictures with boxes that a command left in a directory, by pages: the worst first, or in another order."""

import abc
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from camjax.app.cache import Cache
from camjax.app.pictures import jpeg
from camjax.data.images import shrink_image
from camjax.errors import InputError

PAGE = 24
"""Pictures on a page."""
_THUMBNAIL_SIDE = 480
_KEPT_BYTES = 64 << 20
ORDERS = ("worst", "best", "listed")


class Results(abc.ABC):
    """Pictures with boxes, in an order and by pages, whatever command wrote them.

    Attributes:
      title: the directory.
      kind: of command.
      measures: name -> (n,) float, how good each picture's box is; NaN where that is not known.
      names: (n,) of the files.
      rows_of_class: class id -> the pictures that have it.
      class_names: of the classes.
    """

    kind: Literal["evaluation", "annotation"]
    measures: Mapping[str, np.ndarray]
    names: Sequence[str]
    rows_of_class: Mapping[int, np.ndarray]
    class_names: Sequence[str] | None

    def __init__(self, directory: Path):
        self.title = str(directory)
        self._thumbnails: Cache[bytes] = Cache(_KEPT_BYTES)

    def page(
        self, *, measure: str = "", order: str = "worst", class_id: int | None = None, only: str = "", page: int = 0
    ) -> dict[str, Any]:
        """The pictures of a page, in JSON's types.

        Args:
          measure: of `measures`; "" for the first.
          order: of `ORDERS`: by the measure, or as the files list the pictures.
          class_id: only pictures of this class; None for all.
          only: one of `self.choices()`; "" for all.
          page: from 0; one past the last is the last.
        """
        measure = measure or next(iter(self.measures))
        if measure not in self.measures or order not in ORDERS:
            raise InputError(f"measure {measure!r}, order {order!r}: expected one that the page offers.")
        rows = np.arange(len(self.names)) if class_id is None else self.rows_of_class.get(class_id, np.zeros(0, int))
        if only:
            if only not in self.choices():
                raise InputError(f"only {only!r}: expected one of {', '.join(self.choices())}.")
            rows = rows[self.chosen(only)[rows]]
        if order != "listed":
            keys = self.badness(measure)[rows]
            best = np.where(keys < 0, 10 - keys, keys)  # what has no measure comes last in both orders
            rows = rows[np.argsort(best if order == "best" else -keys, kind="stable")]
        pages = max(1, math.ceil(len(rows) / PAGE))
        page = min(page, pages - 1)
        return {
            "kind": self.kind,
            "title": self.title,
            "facts": self.facts(),
            "measures": list(self.measures),
            "choices": self.choices(),
            "classes": [
                {"id": i, "name": self.name_of(i), "pictures": len(of)} for i, of in sorted(self.rows_of_class.items())
            ],
            "total": len(rows),
            "page": page,
            "pages": pages,
            "first": page * PAGE,
            "rows": [self.row(int(i), measure) for i in rows[page * PAGE : (page + 1) * PAGE]],
        }

    def thumbnail(self, row: int) -> bytes:
        """A picture as a page shows it, a JPEG file; raises InputError or OSError if it can't be read."""
        if (kept := self._thumbnails.get(row)) is None:
            kept = jpeg(shrink_image(self.pixels(self._checked(row)), _THUMBNAIL_SIDE))
            self._thumbnails.put(row, kept, len(kept))
        return kept

    def file(self, row: int) -> tuple[str, bytes]:
        """The name of a picture and its stored pixels as a PNG file, to look at its maps."""
        pixels = self.pixels(self._checked(row))
        return self.names[row], cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()

    def name_of(self, class_id: int) -> str:
        """The name of a class."""
        return f"class {class_id}" if self.class_names is None else self.class_names[class_id]

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self.names):
            raise InputError(f"picture {row}: {self.title} has {len(self.names)} pictures.")
        return row

    @abc.abstractmethod
    def facts(self) -> str:
        """What the whole is, in a sentence or two."""

    @abc.abstractmethod
    def choices(self) -> dict[str, str]:
        """Value -> words of what the pictures can be narrowed to."""

    @abc.abstractmethod
    def chosen(self, only: str) -> np.ndarray:
        """(n,) bool: the pictures of a choice."""

    @abc.abstractmethod
    def badness(self, measure: str) -> np.ndarray:
        """(n,) float: the larger, the worse; negative for pictures that the measure says nothing about."""

    @abc.abstractmethod
    def row(self, row: int, measure: str) -> dict[str, Any]:
        """A picture in JSON's types: row, name, title, note, wrong, predicted and true boxes with their words."""

    @abc.abstractmethod
    def pixels(self, row: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the stored pixels, not turned by an EXIF tag, as boxes refer to them."""


def grouped(values: np.ndarray) -> dict[int, np.ndarray]:
    """Value -> where it is."""
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True)) if len(values) else {}
