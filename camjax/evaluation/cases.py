"""The images where a method's box of the true class is best, and those where it is worst."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from camjax.processes import gather

CASES = 6
"""How many of the best cases are kept, and as many of the worst."""


@dataclass(frozen=True)
class Case:
    """What a method found in one image.

    Attributes:
      index: the image's place in its source.
      label: its class in the network.
      iou: of the box of the true class with the best true box, rounded to four digits as in `images.csv`.
      prediction: the most probable class.
      map: (h, w) float32, the raw map of the true class.
      box: (4,) float32 `[ymin, xmin, ymax, xmax]` in 0..1 of the stored image; zeros if the map gave none.
      view: (4,) float32, the part of the stored image that the network saw, which the map covers.
    """

    index: int
    label: int
    iou: float
    prediction: int
    map: np.ndarray
    box: np.ndarray
    view: np.ndarray


@dataclass
class Cases:
    """Keeps the best and the worst of all cases added, at most `CASES` of each.

    Adding an image again changes nothing: a run that resumes may repeat a batch.

    Attributes:
      class_names: of the labels and predictions.
    """

    class_names: Sequence[str]
    _kept: list[Case] = field(default_factory=list)

    def add(self, cases: Iterable[Case]) -> None:
        """Adds cases, in any order."""
        by_index = {case.index: case for case in (*self._kept, *cases)}
        # Of equal ones the first in the source's order, so that the choice is always the same.
        ordered = sorted(by_index.values(), key=lambda case: (-case.iou, case.index))
        self._kept = ordered if len(ordered) <= 2 * CASES else ordered[:CASES] + ordered[-CASES:]

    def chosen(self) -> tuple[list[Case], list[Case]]:
        """The best cases, starting with the best, and as many of the worst, ending with the worst.

        No image is in both: a single image is among the best.
        """
        number = min(CASES, len(self._kept) // 2) or len(self._kept)
        return self._kept[:number], self._kept[number:][-number:]

    def merge_across_processes(self) -> None:
        """Adds the cases that the other processes keep; every process has to call it."""
        own = self.arrays()
        for kept in gather({name: array.tolist() for name, array in own.items()}):
            other = Cases(self.class_names)
            other.restore({name: np.array(kept[name], array.dtype) for name, array in own.items()})
            self.add(other._kept)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is kept, as arrays by name; `restore` takes it back."""
        types: dict[str, type] = {"map": np.float32, "box": np.float32, "view": np.float32}  # of no case, too
        return {
            column.name: np.array([getattr(case, column.name) for case in self._kept], types.get(column.name))
            for column in fields(Case)
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces what is kept by what `arrays()` returned.

        Raises:
          KeyError: an array is missing.
        """
        columns = [arrays[column.name] for column in fields(Case)]
        self._kept = [
            Case(int(index), int(label), float(iou), int(prediction), *rest)
            for index, label, iou, prediction, *rest in zip(*columns, strict=True)
        ]
