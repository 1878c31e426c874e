"""Batches that another library reads: a PyTorch `DataLoader`, a `tf.data.Dataset`, or any iterable of batches."""

import contextlib
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from camjax.data.rows import RandomAccessSource
from camjax.errors import InputError, printable

_Rows = dict[str, np.ndarray]


class Batches:
    """Batches from elsewhere, for `camjax.training.fit` and `evaluate`, which take such an iterable as it is, too.

    A batch is a dict with "image" and "label", or a pair of both, of NumPy arrays or what `np.asarray` takes, such as
    tensors of PyTorch and TensorFlow:

    - image: (b, H, W, 3), or (b, 3, H, W), RGB in 0..255, uint8 or float, of the model's `input_size`. The model
      normalizes by itself. uint8 is what travels to the devices fastest.
    - label: (b,) whole numbers or, for images of several classes, (b, C) numbers in 0..1; in the order of the model's
      classes.

    Batches may be of any size, the last of an epoch too: rows are put together to batches of the size that training
    asks for, across epochs, and none is left out. At its end, the iterable is iterated again. Each process gives its
    share of the rows.

    JAX has threads, and a process with threads should not be forked: give a `DataLoader` with workers
    `multiprocessing_context="spawn"`.

    A position cannot be restored. A run that is resumed passes over as many rows as it has seen ("skip"), which takes
    the time to read them; it then ends as an uninterrupted run does if the iterable gives the same rows in the same
    order in each process that starts, as a shuffle with a seed does. Or it begins with new ones ("restart").

    Args:
      batches: an iterable. An iterator or generator is passed through once only: of `tf.data`, give the data set, not
        its `as_numpy_iterator()`. A list of batches has to be given in this class, because a list is one of examples.
      resume: what a resumed run does: "skip" or "restart".
    """

    def __init__(self, batches: Iterable, *, resume: Literal["skip", "restart"] = "skip"):
        if not isinstance(batches, Iterable):
            raise InputError(f"batches is {type(batches).__name__}; expected an iterable, such as a DataLoader")
        if resume not in ("skip", "restart"):
            raise InputError(f'resume is {resume!r}; expected "skip" or "restart"')
        self._batches = batches
        self.resume = resume

    def __repr__(self) -> str:
        return f"batches of {type(self._batches).__name__}"

    def for_training(
        self, batch_size: int, *, start_step: int, size: tuple[int, int], label_shape: tuple[int, ...]
    ) -> "_Reader":
        """Batches without end; arguments as in `camjax.data.train_batches`.

        Raises:
          ValueError: on iteration, batches of another form, or no more of them.
        """
        share = batch_size // jax.process_count()
        passed = start_step * share if self.resume == "skip" else 0
        if start_step:
            what = f"the {passed} rows seen so far are read and passed over" if passed else "it begins with new ones"
            warnings.warn(
                f"{self!r}: the run goes on from step {start_step}; a position in these cannot be restored: {what}.",
                stacklevel=3,
            )
        return _Reader(lambda closed: _regrouped(self._without_end(size, label_shape, passed, closed), share))

    def for_evaluation(
        self, batch_size: int, *, size: tuple[int, int], label_shape: tuple[int, ...]
    ) -> Generator[_Rows, None, None]:
        """All batches once, with "mask" as in `camjax.data.eval_batches`; every process gets the same number.

        Raises:
          ValueError: on iteration, batches of another form, or none.
        """
        share, count = batch_size // jax.process_count(), 0
        last: _Rows = {
            "image": np.zeros((0, *size, 3), np.uint8),
            "label": np.zeros((0, *label_shape), np.float32 if label_shape else np.int32),
        }
        own = _regrouped((_rows(batch, size, label_shape, self) for batch in self._batches), share)
        while _in_any_process((rows := next(own, None)) is not None):
            last = {name: array[:0] for name, array in last.items()} if rows is None else rows
            number = len(last["label"])
            padded = {
                name: np.concatenate([array, np.zeros((share - number, *array.shape[1:]), array.dtype)])
                for name, array in last.items()
            }
            yield {**padded, "mask": np.arange(share) < number}
            count += 1
        if not count:
            raise InputError(
                f"{self!r} gave nothing to evaluate. An iterator can be passed through once only: give something that "
                "can be iterated again, such as a DataLoader, or a list in camjax.data.Batches"
            )

    def _without_end(
        self, size: tuple[int, int], label_shape: tuple[int, ...], passed: int, closed: threading.Event
    ) -> Iterator[_Rows]:
        """The rows of one pass after the other, without the first ones, until `closed`."""
        total = 0
        while True:
            before = total
            for batch in self._batches:
                if closed.is_set():
                    return
                length = len(_as_array(_pair(batch)[1], "label"))
                total += length
                if total > passed:
                    rows = _rows(batch, size, label_shape, self)
                    yield {name: array[max(0, passed - total + length) :] for name, array in rows.items()}
            if total == before:
                raise InputError(
                    f"{self!r} gave {total} rows, and none when iterated again. An iterator can be passed through "
                    "once only: give something that can be iterated again, such as a DataLoader, or take fewer steps"
                )


class _Reader(Iterator[_Rows]):
    """An iterator that `close()` ends from another thread, also while it passes over batches."""

    closes_while_read = True

    def __init__(self, read: Callable[[threading.Event], Generator[_Rows, None, None]]):
        self._closed = threading.Event()
        self._rows = read(self._closed)

    def __next__(self) -> _Rows:
        return next(self._rows)

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(ValueError):  # a thread is in it, and will see that it is closed
            self._rows.close()


def source_or_batches(source: Any, num_workers: int = 0) -> RandomAccessSource | Batches:
    """A source of examples, or an iterable without random access as `Batches`.

    Raises:
      ValueError: neither, or num_workers with batches.
    """
    if not isinstance(source, Batches) and hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return source
    if num_workers:
        raise InputError(f"num_workers={num_workers}: batches are read by what they come from. Leave num_workers out")
    return source if isinstance(source, Batches) else Batches(source)


def _regrouped(parts: Iterator[_Rows], size: int) -> Generator[_Rows, None, None]:
    """The same rows in batches of `size`; the last may be shorter."""
    waiting: list[_Rows] = []
    for part in parts:
        waiting.append(part)
        if (number := sum(len(rows["label"]) for rows in waiting)) < size:
            continue
        joined = {name: np.concatenate([rows[name] for rows in waiting]) for name in part} if waiting[1:] else part
        whole = number // size * size
        for start in range(0, whole, size):
            yield {name: array[start : start + size] for name, array in joined.items()}
        waiting = [{name: array[whole:] for name, array in joined.items()}] if whole < number else []
    if waiting:
        yield {name: np.concatenate([rows[name] for rows in waiting]) for name in waiting[0]}


def _in_any_process(here: bool) -> bool:
    return here if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.bool_(here)).any())


def _rows(batch: Any, size: tuple[int, int], label_shape: tuple[int, ...], source: Batches) -> _Rows:
    """A batch as image (b, H, W, 3) uint8 or float32 and label (b,) int32 or (b, C) float32."""
    try:
        image, label = (_as_array(value, name) for value, name in zip(_pair(batch), ("image", "label"), strict=True))
        rows = {"image": _checked_images(image, size), "label": _checked_labels(label, label_shape)}
        if len(rows["image"]) != len(rows["label"]):
            raise InputError(f"{len(rows['image'])} images and {len(rows['label'])} labels; expected as many")
    except InputError as error:
        raise InputError(f"{source!r}: {error}") from error.__cause__
    return rows


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Mapping) and {"image", "label"} <= batch.keys():
        return batch["image"], batch["label"]
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    given = f"a dict of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
    length = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
    raise InputError(f"a batch is {given}{length}; expected a dict with image and label, or a pair (images, labels)")


def _as_array(value: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # PyTorch's and TensorFlow's own
        raise InputError(
            f"the {name} is {type(value).__name__}, of which NumPy makes no array ({printable(error)}). Give it "
            "from the CPU, detached, as uint8 or float32"
        ) from error
    if array.dtype == object or array.ndim == 0:
        raise InputError(f"the {name} is {type(value).__name__}; expected an array of numbers for the whole batch")
    return array


def _checked_images(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    given = f"images are {images.shape} {images.dtype}"
    if images.ndim == 4 and images.shape[3] != 3 and images.shape[1] == 3:  # PyTorch's order
        images = images.transpose(0, 2, 3, 1)
    if images.shape[1:] != (*size, 3):
        raise InputError(
            f"{given}; expected (b, {size[0]}, {size[1]}, 3) or (b, 3, {size[0]}, {size[1]}), RGB of the model's "
            "input_size. Resize them where they are read"
        )
    if images.dtype == np.uint8:
        return images.copy(order="C")  # because the memory may be used again for the next batch
    if images.dtype.kind not in "iuf":
        raise InputError(f"{given}; expected RGB in 0..255, as uint8 or float")
    lowest, highest = (images.min(), images.max()) if images.size else (0, 255)
    if not (lowest >= 0 and highest <= 255):
        raise InputError(
            f"{given} from {lowest:.4g} to {highest:.4g}; expected RGB in 0..255. The model normalizes by itself: "
            "leave normalization out, as torchvision's PILToTensor does"
        )
    if 0 < highest <= 1:
        raise InputError(
            f"{given} from {lowest:.4g} to {highest:.4g}; expected RGB in 0..255. Multiply them by 255 or, better, "
            "give uint8: torchvision's PILToTensor in place of ToTensor"
        )
    return images.astype(np.float32 if images.dtype.kind == "f" else np.uint8, order="C")


def _checked_labels(labels: np.ndarray, label_shape: tuple[int, ...]) -> np.ndarray:
    if label_shape:
        if labels.ndim != 2 or labels.shape[1:] != label_shape or labels.dtype.kind not in "biuf":
            raise InputError(
                f"labels are {labels.shape} {labels.dtype}; expected (b, {label_shape[0]}) numbers in 0..1, one for "
                "each class of the model"
            )
        return labels.astype(np.float32)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels.astype(np.int32) != labels).any():
        raise InputError(
            f"labels are {labels.shape} {labels.dtype}; expected (b,) whole numbers, one class an image. For several "
            "give a loss for them, such as camjax.training.SigmoidBinaryCrossEntropy()"
        )
    return labels.astype(np.int32)
