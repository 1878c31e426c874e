"""One row of a batch: an example that is read, changed at random for training, and brought to the batch's size."""

from collections.abc import Callable
from typing import Protocol

import grain
import numpy as np

from camjax.data.images import center_view, resize_image

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_MOST_SKIPPED = 100


class RandomAccessSource(Protocol):
    """What the loader reads: `camjax.data.sources.Source`, or anything (a list, too) with these two methods.

    An example is a dict with image (H, W, 3) uint8, label int and, if there is one box per image, bbox (4,) float32.
    Further keys are left out of the batches. An example that can't be read is a ValueError that says which. The source
    is pickled where there are worker processes.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


def with_position(position: int, index: int) -> tuple[int, int]:
    """What `train_row` takes, from a position in the shuffled order and the index in the source that stands there."""
    return position, int(index)


def train_row(
    place: tuple[int, int],
    rng: np.random.Generator,
    *,
    source: RandomAccessSource,
    order: grain.MapDataset | None,
    size: int | tuple[int, int] | None,
    augment: Augment | None,
    image_shape: tuple[int, ...],
) -> dict:
    """A row for training.

    Args:
      place: (position in the shuffled order, which runs on across epochs; index in the source that stands there).
      rng: for `augment`.
      source: the examples.
      order: the shuffled order, to look for another example where one can't be read; None raises.
      size: as in `train_batches`.
      augment: as in `train_batches`.
      image_shape: (H, W, 3) of the row's image.

    Returns:
      The row of `train_batches`.

    Raises:
      ValueError: an example that can't be read, or whose image does not fit.
    """
    position, index = place
    if order is None:
        example, skipped = source[index], {}
    else:
        own, (index, example) = index, _next_readable(source, order, position)
        skipped = {"skipped": np.int32(-1 if index == own else own)}
    image = example["image"] if augment is None else augment(example["image"], rng)
    return {
        "image": _fit(image, size, image_shape, index),
        "label": np.int32(example["label"]),
        "index": np.int32(index),
        **skipped,
    }


def _next_readable(source: RandomAccessSource, order: grain.MapDataset, position: int) -> tuple[int, dict]:
    """The first example that can be read from a position in the order on, as (index in the source, example)."""
    for tried in range(_MOST_SKIPPED):
        index = int(order[position + tried])
        try:
            return index, source[index]
        except ValueError as error:
            last = error
    raise ValueError(
        f"{_MOST_SKIPPED} examples in a row cannot be read: more than single damaged records. See whether the data "
        "set's files are there and whole"
    ) from last


def eval_row(
    index: int,
    *,
    source: RandomAccessSource,
    size: int | tuple[int, int] | None,
    crop: str | None,
    mark: tuple[str, ...] | None,
    image_shape: tuple[int, ...],
) -> dict:
    """A row for evaluation.

    Args:
      index: in the source; from its length on, the row is padding.
      source: the examples.
      size: as in `eval_batches`.
      crop: as in `eval_batches`.
      mark: the keys of an example, to mark the row of one that can't be read; None raises.
      image_shape: (H, W, 3) of the row's image.

    Returns:
      The row of `eval_batches`.

    Raises:
      ValueError: an example that can't be read, or whose image does not fit.
    """
    inside = index < len(source)
    try:
        example = source[int(index) if inside else 0]
    except ValueError:
        if mark is None:
            raise
        # Of the same keys and shapes as the others of its batch; all of it becomes zeros below.
        blank = {"image": np.zeros(image_shape, np.uint8), "label": 0, "bbox": np.zeros(4)}
        example, seen = {key: value for key, value in blank.items() if key in mark}, False
    else:
        seen = inside
    image = example["image"]
    row = {"label": np.int32(example["label"]), "mask": np.bool_(seen), "index": np.int32(index if inside else -1)}
    if size is not None:
        view = (0, 0, 1, 1) if crop is None else center_view(image.shape[:2], image_shape[:2])
        row |= {"image_size": np.array(image.shape[:2], np.int32), "view": np.array(view, np.float32)}
    row["image"] = _fit(image, size, image_shape, index, view if crop else None)
    if "bbox" in example:
        row["bbox"] = np.asarray(example["bbox"], np.float32)
    if seen:
        return row
    # Zeros, not a copy of an example: padding that is counted by mistake should stand out.
    return {key: value if key == "index" else np.zeros_like(value) for key, value in row.items()}


def _fit(
    image: np.ndarray,
    size: int | tuple[int, int] | None,
    image_shape: tuple[int, ...],
    index: int,
    view: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """The image, or the view of it, at the batch's size: resized where `size` is given, checked where it is not."""
    if image.dtype != np.uint8:
        raise ValueError(f"the image of example {index} is {image.dtype}; expected uint8 in 0..255")
    if view is not None or (size is not None and image.shape != image_shape):
        image = resize_image(image, size, box=view)
    if image.shape != image_shape:
        raise ValueError(
            f"the image of example {index} is {image.shape}, that of example 0 {image_shape}; a batch has one size: "
            "give size=(H, W)"
        )
    return image
