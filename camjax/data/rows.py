"""Rows of batches: examples that are read, changed at random for training, and resized to the batch's size."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from camjax.data.images import center_view, resize_image
from camjax.data.transforms import Transform
from camjax.errors import InputError

if TYPE_CHECKING:
    import grain

_MOST_SKIPPED = 100


class RandomAccessSource(Protocol):
    """What the loader reads: `camjax.data.Source`, or anything (a list, too) with these two methods.

    An example is a dict with image (H, W, 3) uint8, label int (where an image may have several classes, (C,) numbers in
    0..1) and, if there is one box per image, bbox (4,) float32. Other keys are ignored. An example that cannot be read
    raises a ValueError that names it. The source is pickled for worker processes.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


def label_of(source: Any, index: int) -> Any:
    """The label of an example, without its image where the source can tell it without decoding that."""
    if hasattr(source, "without_image"):
        return source.without_image(index)["label"]
    return source.annotation(index).label if hasattr(source, "annotation") else source[index]["label"]


def with_position(position: int, index: int) -> tuple[int, int]:
    """The `place` of `train_row`."""
    return position, int(index)


def train_row(
    place: tuple[int, int],
    rng: np.random.Generator,
    *,
    source: RandomAccessSource,
    order: grain.MapDataset | None,
    augment: Transform | None,
    resize: bool,
    image_shape: tuple[int, int, int],
    label_shape: tuple[int, ...],
) -> dict:
    """Reads a row of `train_batches`.

    Args:
      place: the position in the shuffled order, which runs on across epochs, and the index in the source found there.
      rng: for `augment`.
      source: the examples.
      order: the shuffled order, to find another example in place of one that cannot be read; None raises ValueError.
      augment: random change of the image.
      resize: resize the image; otherwise one of another shape raises ValueError.
      image_shape: (H, W, 3) of the row's image.
      label_shape: () for one class, (C,) for several.
    """
    position, index = place
    if order is None:
        example, skipped = _example(source, index), {}
    else:
        own, (index, example) = index, _next_readable(source, order, position)
        skipped = {"skipped": np.int32(-1 if index == own else own)}
    image = example["image"] if augment is None else augment(example["image"], rng)
    return {
        "image": _fit(image, index, image_shape, resize),
        "label": _label(example, index, label_shape),
        "index": np.int32(index),
        **skipped,
    }


def _next_readable(source: RandomAccessSource, order: grain.MapDataset, position: int) -> tuple[int, dict]:
    """The first readable example from a position in the order on, as (index in the source, example)."""
    for tried in range(_MOST_SKIPPED):
        index = int(order[position + tried])
        try:
            return index, source[index]
        except ValueError as error:
            last = error
    raise InputError(
        f"{_MOST_SKIPPED} examples in a row cannot be read: more than single damaged records. Check that the data "
        "set's files are complete"
    ) from last


def eval_row(
    index: int,
    *,
    source: RandomAccessSource,
    crop: str | None,
    crop_share: float = 1.0,
    interpolation: str = "bilinear",
    mark: tuple[str, ...] | None,
    resize: bool,
    image_shape: tuple[int, int, int],
    label_shape: tuple[int, ...],
) -> dict:
    """Reads a row of `eval_batches`.

    Args:
      index: in the source; from its length on, the row is padding.
      source: the examples.
      crop: as in `eval_batches`; needs `resize`.
      crop_share: as in `eval_batches`.
      interpolation: as in `eval_batches`.
      mark: the keys of an example, to mark the row of one that cannot be read; None raises ValueError.
      resize: as in `train_row`.
      image_shape: as in `train_row`.
      label_shape: as in `train_row`.
    """
    inside = seen = index < len(source)
    try:
        example = _example(source, int(index) if inside else 0)
    except ValueError:
        if mark is None:
            raise
        # Of the same keys and shapes as the others of its batch; all of it becomes zeros below.
        blank = {
            "image": np.zeros(image_shape, np.uint8),
            "label": np.zeros(label_shape, np.int32),
            "bbox": np.zeros(4),
        }
        example, seen = {key: value for key, value in blank.items() if key in mark}, False
    image = example["image"]
    view = center_view(image.shape[:2], image_shape[:2], crop_share) if crop else None
    row: dict[str, np.ndarray | np.generic] = {
        "label": _label(example, index, label_shape),
        "mask": np.bool_(seen),
        "index": np.int32(index if inside else -1),
        "image": _fit(image, index, image_shape, resize, view, interpolation if crop else "bilinear"),
    }
    if resize:
        row["image_size"] = np.array(image.shape[:2], np.int32)
        row["view"] = np.array(view or (0, 0, 1, 1), np.float32)
    if "bbox" in example:
        row["bbox"] = np.asarray(example["bbox"], np.float32)
    if seen:
        return row
    # Zeros, not a copy of an example: padding that is counted by mistake should stand out.
    return {key: value if key == "index" else np.zeros_like(value) for key, value in row.items()}


def _example(source: RandomAccessSource, index: int) -> dict:
    example = source[index]
    if not isinstance(example, Mapping):
        raise InputError(
            f"example {index} is {type(example).__name__}; expected a dict with image and label. Of a PyTorch Dataset "
            "give a DataLoader; a list of batches is given as camjax.data.Batches(list)"
        )
    return example


def _label(example: dict, index: int, label_shape: tuple[int, ...]) -> np.int32 | np.ndarray:
    label = example["label"]
    if label_shape:
        numbers = np.asarray(label)
        if numbers.shape != label_shape or numbers.dtype.kind not in "biuf":
            raise InputError(
                f"the label of example {index} is {label!r}; expected {label_shape[0]} numbers in 0..1, one for each "
                "class of the model"
            )
        return numbers.astype(np.float32)
    try:
        return np.int32(operator.index(label))
    except (TypeError, OverflowError):
        raise InputError(
            f"the label of example {index} is {label!r}; expected one class, as a whole number. For several classes an "
            "image give a loss for them, such as camjax.training.SigmoidBinaryCrossEntropy()"
        ) from None


def _fit(
    image: np.ndarray,
    index: int,
    image_shape: tuple[int, int, int],
    resize: bool,
    view: tuple[float, float, float, float] | None = None,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """The image, or the view of it, in the batch's shape: resized if asked for, otherwise checked."""
    if image.ndim != 3:
        raise InputError(
            f"the image of example {index} is {image.shape}; expected (H, W, 3). A list of batches is given as "
            "camjax.data.Batches(list)"
        )
    if image.dtype != np.uint8:
        raise InputError(f"the image of example {index} is {image.dtype}; expected uint8 in 0..255")
    if view is not None or (resize and image.shape != image_shape):
        image = resize_image(image, image_shape[:2], box=view, interpolation=interpolation)
    if image.shape != image_shape:
        raise InputError(
            f"the image of example {index} is {image.shape}, that of example 0 {image_shape}; a batch has one size: "
            "give size=(H, W)"
        )
    return image
