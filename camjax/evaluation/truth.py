"""What is known about the images of a split, batch by batch, and how each image is counted."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camjax.data.annotation import AnnotatedSource, Annotation, no_boxes
from camjax.data.loader import Batch
from camjax.metrics.score_maps import SIZE as SCORE_MAP_SIZE

STATUSES = ("scored", "without boxes", "unreadable")
"""How an image is counted; one that a list excludes is counted under the list's reason, such as "blacklisted"."""


@dataclass(frozen=True)
class Truth:
    """What is known about the images of a batch.

    Attributes:
      labels: (B,) int.
      boxes: for each image (n, 4) true boxes, `[ymin, xmin, ymax, xmax]` in 0..1 of the stored image; n may be 0.
      wsol_boxes: the same as wsolevaluation's metrics take them, see `Annotation`.
      masks: for each image (224, 224) uint8, 1 object, 0 background, 255 ignore, as wsolevaluation resizes them; None
        where no metric asks for them.
      image_sizes: (B, 2) H and W of the stored image in pixels.
      view: (B, 4) the part of the stored image that the network saw.
      counted: (B,) bool; False on padding and on images that are left out.
      input_size: H and W of what the network saw, in pixels.
    """

    labels: np.ndarray
    boxes: Sequence[np.ndarray]
    wsol_boxes: Sequence[np.ndarray]
    masks: Sequence[np.ndarray] | None
    image_sizes: np.ndarray
    view: np.ndarray
    counted: np.ndarray
    input_size: tuple[int, int]


class TruthReader:
    """Reads what is known about the images of a batch."""

    def __init__(self, source: AnnotatedSource, classes: int, with_masks: bool, input_size: tuple[int, int]):
        self.source, self.classes, self.with_masks, self.input_size = source, classes, with_masks, input_size

    def __call__(self, batch: Batch) -> tuple[list[Annotation | None], Truth]:
        """The annotations of the rows (None on padding), and the same as arrays."""
        annotations = [
            self._annotation(int(i), bool(readable)) if i >= 0 else None
            for i, readable in zip(batch["index"], batch["mask"], strict=True)
        ]
        for annotation in annotations:
            if annotation is not None and not 0 <= annotation.label < self.classes:
                raise ValueError(
                    f"{annotation.filename} has the label {annotation.label}: the model has classes "
                    f"0..{self.classes - 1}. Give a model that was trained on these classes."
                )
        counted = batch["mask"] & np.array([a is not None and not a.excluded for a in annotations])
        masks = None
        if self.with_masks:
            masks = [
                self.source.mask(int(i), SCORE_MAP_SIZE) if on else None
                for i, on in zip(batch["index"], counted, strict=True)
            ]
        truth = Truth(
            labels=np.array([0 if a is None else a.label for a in annotations], np.int32),
            boxes=[no_boxes() if a is None else a.boxes for a in annotations],
            wsol_boxes=[no_boxes() if a is None else a.wsol_boxes for a in annotations],
            masks=masks,
            image_sizes=batch["image_size"],
            view=batch["view"],
            counted=counted,
            input_size=self.input_size,
        )
        return annotations, truth

    def _annotation(self, index: int, readable: bool) -> Annotation:
        try:
            return self.source.annotation(index)
        except ValueError:
            if readable:
                raise
            # A record that is damaged as a whole: its image could not be read either, and is counted as such.
            return Annotation(f"example {index}", 0, no_boxes())


class First:
    """The first n images of an annotated source."""

    def __init__(self, source: AnnotatedSource, number: int):
        self._source, self._number = source, number
        self.info = dataclasses.replace(source.info, num_examples=number)
        self.has_boxes, self.has_masks = source.has_boxes, source.has_masks
        self.annotation, self.mask = source.annotation, source.mask

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> dict:
        return self._source[index]


def statuses_of(batch: Batch, annotations: Sequence[Annotation | None]) -> list[str]:
    """How each row is counted; "" for padding."""
    statuses = []
    for annotation, readable in zip(annotations, batch["mask"], strict=True):
        if annotation is None:
            statuses.append("")
        elif annotation.excluded:
            statuses.append(annotation.excluded)
        elif not readable:
            statuses.append("unreadable")
        else:
            statuses.append("scored" if len(annotation.boxes) else "without boxes")
    return statuses
