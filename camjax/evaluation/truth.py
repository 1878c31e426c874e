"""What is known about the images of a split, batch by batch, and how each image is counted."""

import dataclasses
from typing import NamedTuple

import numpy as np

from camjax.data.annotation import OTHER_SIZE, AnnotatedSource, Annotation, no_boxes
from camjax.data.loader import Batch
from camjax.data.pixel_boxes import same_aspect
from camjax.errors import InputError
from camjax.metrics import Truth
from camjax.metrics.localization.score_maps import SIZE as SCORE_MAP_SIZE

STATUSES = ("scored", "without boxes", "unreadable")
"""How an image is counted; one that a list excludes is counted under the list's reason, such as "blacklisted"."""


class Known(NamedTuple):
    """What is known about the rows of a batch.

    Attributes:
      annotations: None on padding.
      statuses: how each row is counted; "" on padding.
      truth: the same as arrays, for metrics.
    """

    annotations: list[Annotation | None]
    statuses: list[str]
    truth: Truth


def read_truth(source: AnnotatedSource, batch: Batch, *, num_classes: int, with_masks: bool) -> Known:
    """Reads what is known about the images of a batch.

    Args:
      source: the images.
      batch: of `camjax.data.eval_batches`, unreadable images marked.
      num_classes: C of the network.
      with_masks: whether to read masks, which are resized to (224, 224) as wsolevaluation resizes them.

    Raises:
      ValueError: a label that the network has no class for, or an annotation or mask that can't be read.
    """
    annotations = [
        _annotation(source, int(i), tuple(size.tolist()) if readable else None) if i >= 0 else None
        for i, readable, size in zip(batch["index"], batch["mask"], batch["image_size"], strict=True)
    ]
    for annotation in annotations:
        if annotation is not None and not 0 <= annotation.label < num_classes:
            raise InputError(
                f"{annotation.filename} has the label {annotation.label}: the model has classes "
                f"0..{num_classes - 1}. Give a model that was trained on these classes."
            )
    counted = batch["mask"] & np.array([a is not None and not a.excluded for a in annotations])
    masks = None
    if with_masks:
        masks = [
            source.mask(int(i), SCORE_MAP_SIZE) if on else None for i, on in zip(batch["index"], counted, strict=True)
        ]
    truth = Truth(
        labels=np.array([0 if a is None else a.label for a in annotations], np.int32),
        boxes=[no_boxes() if a is None else a.boxes for a in annotations],
        wsol_boxes=[no_boxes() if a is None or a.wsol_boxes is None else a.wsol_boxes for a in annotations],
        image_sizes=batch["image_size"],
        counted=counted,
        filenames=["" if a is None else a.filename for a in annotations],
        masks=masks,
    )
    statuses = [
        "" if annotation is None else _status(annotation, readable)
        for annotation, readable in zip(annotations, batch["mask"], strict=True)
    ]
    return Known(annotations, statuses, truth)


def _annotation(source: AnnotatedSource, index: int, size: tuple[int, int] | None) -> Annotation:
    """The annotation of an image of `size` (H, W); None for one that can't be read."""
    try:
        annotation = source.annotation(index)
    except ValueError:
        if size:
            raise
        # The whole record is damaged, its image with it: it is counted as unreadable.
        return Annotation(f"example {index}", 0, no_boxes())
    if size and annotation.size and not annotation.excluded and not same_aspect(annotation.size, size):
        return dataclasses.replace(annotation, excluded=OTHER_SIZE)
    return annotation


def _status(annotation: Annotation, readable: bool) -> str:
    if annotation.excluded:
        return annotation.excluded
    if not readable:
        return "unreadable"
    return "scored" if len(annotation.boxes) else "without boxes"


class First(AnnotatedSource):
    """The first n images of an annotated source."""

    def __init__(self, source: AnnotatedSource, number: int):
        self._source = source
        self.info = dataclasses.replace(source.info, num_examples=number)
        self.has_boxes, self.has_masks = source.has_boxes, source.has_masks

    def __getitem__(self, index: int) -> dict:
        return self._source[index]

    def annotation(self, index: int) -> Annotation:
        """See `AnnotatedSource.annotation`."""
        return self._source.annotation(index)

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `AnnotatedSource.mask`."""
        return self._source.mask(index, size)
