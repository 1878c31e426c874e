"""A source whose labels are a model's classes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from camjax.class_names import match_class_names
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.rows import label_of
from camjax.errors import InputError


def class_names_of(source: object) -> tuple[str, ...]:
    """The names of a source's classes; none where it has no `info` that says them."""
    return getattr(getattr(source, "info", None), "class_names", ())


def with_classes_of(source: Any, class_names: Sequence[str] | None, num_classes: int):
    """The source with the labels of a model: a class of the same name has the same label.

    Args:
      source: the examples. One without `info.class_names` is returned as it is.
      class_names: of the model's C classes, or None.
      num_classes: C.

    Returns:
      The source, or one with the same examples in the same order and other labels.

    Raises:
      ValueError: the classes of the source and of the model do not match, see `camjax.class_names.match_class_names`.
    """
    of_source = class_names_of(source)
    if not of_source:
        return source
    labels = match_class_names(of_source, class_names, num_classes, data=repr(source))
    if np.array_equal(labels, np.arange(num_classes)):
        return source
    names = class_names or [str(label) for label in range(num_classes)]
    return _Relabeled(source, labels, names)


class _Relabeled(AnnotatedSource):
    """A source, annotated or not, with other labels."""

    def __init__(self, source, labels: np.ndarray, class_names: Sequence[str]):
        self._source, self._labels = source, labels
        self.info = dataclasses.replace(source.info, class_names=tuple(class_names))
        self.has_boxes, self.has_masks = getattr(source, "has_boxes", False), getattr(source, "has_masks", False)

    def __getitem__(self, index: int) -> dict:
        example = self._source[index]
        return {**example, "label": self._label(example["label"])}

    def without_image(self, index: int) -> dict:
        """The example without its image, as `camjax.data.Source.without_image` reads it."""
        return {"label": self._label(label_of(self._source, index))}

    def annotation(self, index: int) -> Annotation:
        """See `AnnotatedSource.annotation`."""
        annotation = self._source.annotation(index)
        return dataclasses.replace(annotation, label=self._label(annotation.label))

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `AnnotatedSource.mask`."""
        return self._source.mask(index, size)

    def __repr__(self) -> str:
        return repr(self._source)

    def _label(self, label):
        if np.ndim(label) == 1:
            return self._several(np.asarray(label))
        if not 0 <= label < len(self._labels):
            raise InputError(f"{self!r} has the label {label}: expected 0..{len(self._labels) - 1}.")
        return int(self._labels[label])

    def _several(self, label: np.ndarray) -> np.ndarray:
        """A label (C,) in the order of the model's classes."""
        if not len(label) == len(self._labels) == self.info.num_classes:
            raise InputError(
                f"{self!r} has a label of {len(label)} numbers, for {len(self._labels)} classes; the model has "
                f"{self.info.num_classes}. Where an image may have several, the data need all classes of the model: "
                "one that is left out would count as absent."
            )
        found = np.zeros_like(label)
        found[self._labels] = label
        return found
