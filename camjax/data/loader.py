"""Batches from a source by Grain: shuffled without end for training, each example exactly once for evaluation.

Both have random access to the batches themselves: a batch depends on its number alone, not on how many threads, worker
processes or steps came before. Batches are NumPy arrays with uint8 images, and travel to the device as such.

Worker processes (`num_workers` above 0) are spawned: a script that asks for them has to keep its own work under
`if __name__ == "__main__":`. Threads, the default, do not need that, and decode in parallel too. Workers ignore Ctrl-C
and SIGTERM, which a terminal and most schedulers send to every process of a run: they end with their iterator, or with
this process, however it ends.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Literal

import jax
import numpy as np

from camjax.data.images import Size, height_and_width
from camjax.data.rows import RandomAccessSource, eval_row, train_row, with_position
from camjax.data.transforms import Transform
from camjax.errors import InputError, require_extra

if TYPE_CHECKING:
    import grain

    from camjax.data._workers import BatchIterator

Batch = dict[str, np.ndarray]


def train_batches(
    source: RandomAccessSource,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    size: Size | None = None,
    augment: Transform | None = None,
    label_shape: tuple[int, ...] = (),
    unreadable: Literal["raise", "skip"] = "raise",
    num_workers: int = 0,
    num_threads: int = 4,
    shard_index: int | None = None,
    shard_count: int | None = None,
) -> BatchIterator:
    """Reads batches for training, without end: each epoch is a new shuffle, and batches run on across epochs.

    Batch k is the same for a run that starts at step k and for one that went through steps 0..k-1, with any number of
    workers and threads. The n processes together read the same batch k as one process, each a block of it.

    Args:
      source: the examples.
      batch_size: examples in a global batch; each process gets batch_size / shard_count of them.
      seed: a non-negative integer for the order and the augmentation; the same in every process.
      start_step: the global step of the first batch returned.
      size: (H, W) to resize images to, or an int for a square; None keeps them as they are, all of one size.
      augment: random change of an image before it is resized, see `camjax.data.transforms`. Its generator depends on
        `seed`, epoch and example alone.
      label_shape: () for one class an image; (C,) for several, whose label is C numbers in 0..1.
      unreadable: what to do about an example that cannot be read: "raise" a ValueError, or "skip" it: the next readable
        one in the shuffled order takes its place, besides its own, and the batch says so.
      num_workers: worker processes that read, or 0 to read in this one. The module's docstring says what scripts need.
      num_threads: reading threads, in each worker or in this process. Each holds one finished batch.
      shard_index: this process, default `jax.process_index()`.
      shard_count: the number of processes, default `jax.process_count()`.

    Returns:
      An iterator of dicts: image (b, H, W, 3) uint8, label (b,) int32, or (b, C) float32 with `label_shape`,
      and index (b,) int32, the position in the source.
      With "skip" also skipped (b,) int32: the position of the unreadable example that a row replaces, or -1. Each
      unreadable example is listed exactly once an epoch. The iterator's `close()` ends threads and workers.

    Raises:
      ValueError: an empty source, a batch size that the processes cannot share, a shard, seed or step out of range, or
        "skip" without `size`.
      ValueError: on iteration, an example that cannot be read (with "skip", 100 in a row), or images of different size
        without `size`.
      ChildProcessError: on iteration, a worker process has died.
    """
    if unreadable not in ("raise", "skip"):
        raise InputError(f'unreadable is {unreadable!r}; expected "raise" or "skip"')
    if unreadable == "skip" and size is None:
        raise InputError("unreadable is 'skip' without size; give size=(H, W)")
    shard, local_batch_size = _shard(batch_size, shard_index, shard_count)
    if seed < 0 or start_step < 0:
        raise InputError(f"seed is {seed} and start_step {start_step}; expected non-negative integers")
    image_shape = _shape_of_first_image(source, size)
    order = _shuffled(len(source), seed)
    read = functools.partial(
        train_row,
        source=source,
        order=order if unreadable == "skip" else None,
        augment=augment,
        resize=size is not None,
        image_shape=image_shape,
        label_shape=label_shape,
    )
    from camjax.data._workers import iterate  # here, as Grain is below

    rows = order.map_with_index(with_position).random_map(read).repeat()
    batches = rows.batch(local_batch_size, drop_remainder=True)[shard]
    return iterate(batches[start_step:], num_workers, num_threads)


def batch_indices(length: int, *, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Returns which examples of a source of `length` the batch of a step consists of, without reading them.

    These are (batch_size,) int64 indices into the source, in the order in which one process alone reads them with
    `train_batches`.
    """
    order = _shuffled(length, seed).repeat()
    return np.array([order[i] for i in range(step * batch_size, (step + 1) * batch_size)], np.int64)


def eval_batches(
    source: RandomAccessSource,
    *,
    batch_size: int,
    size: Size | None = None,
    crop: Literal["center"] | None = None,
    crop_share: float = 1.0,
    interpolation: str = "bilinear",
    label_shape: tuple[int, ...] = (),
    unreadable: Literal["raise", "mark"] = "raise",
    start_batch: int = 0,
    num_workers: int = 0,
    num_threads: int = 4,
    shard_index: int | None = None,
    shard_count: int | None = None,
) -> BatchIterator:
    """Reads batches for evaluation: over all processes, each example exactly once.

    Every process gets the same number of batches of the same shape, so that collectives meet; the last rows may be
    padding, zeros with mask False. Batch k of all processes together holds the examples from k * batch_size on, in
    the source's order: that of process 0 comes first.

    Args:
      source: the examples.
      batch_size: examples in a global batch; each process gets batch_size / shard_count of them.
      size: (H, W) to resize images to, or an int for a square; None keeps them as they are, all of one size.
      crop: None squashes the whole image to `size`; "center" cuts out the largest centered rectangle of the aspect of
        `size` first, as `camjax.load_images` does.
      crop_share: of center crops, as in `camjax.load_images`; nothing else depends on it.
      interpolation: as crop_share.
      label_shape: as in `train_batches`.
      unreadable: what to do about an example that cannot be read: "raise" a ValueError, or "mark" its row: zeros with
        mask False, but with its index.
      start_batch: the number of the first batch returned.
      num_workers: worker processes that read, or 0 to read in this one.
      num_threads: reading threads, in each worker or in this process. Each holds one finished batch.
      shard_index: this process, default `jax.process_index()`.
      shard_count: the number of processes, default `jax.process_count()`.

    Returns:
      An iterator of dicts: image (b, H, W, 3) uint8, label as in `train_batches`, bbox (b, 4) float32 if the source has
      it, mask (b,) bool that is False on padding, index (b,) int32, the position in the source, -1 on padding. With
      `size` also image_size (b, 2) int32, H and W of the stored image, and view (b, 4) float32, the part of it in the
      batch, `[ymin, xmin, ymax, xmax]` in 0..1.

    Raises:
      ValueError: an empty source, a batch size that the processes cannot share, a shard out of range, start_batch below
        0, `crop` or "mark" without `size`, or other words for these.
      ValueError: on iteration, an example that cannot be read, or images of different size without `size`.
      ChildProcessError: on iteration, a worker process has died.
    """
    shard, local_batch_size = _shard(batch_size, shard_index, shard_count)
    if unreadable not in ("raise", "mark"):
        raise InputError(f'unreadable is {unreadable!r}; expected "raise" or "mark"')
    if crop not in (None, "center"):
        raise InputError(f'crop is {crop!r}; expected None (squash to size) or "center"')
    if start_batch < 0:
        raise InputError(f"start_batch is {start_batch}; expected a non-negative integer")
    if size is None and (crop or unreadable == "mark"):
        raise InputError(f"crop is {crop!r} and unreadable {unreadable!r} without size; give size=(H, W)")
    require_extra("data", "Reading batches", "grain")
    import grain  # here, so that `camjax.training` starts without it

    from camjax.data._workers import iterate

    image_shape = _shape_of_first_image(source, size)
    padded_length = -(-len(source) // batch_size) * batch_size
    mark = _keys_of_first_readable(source) if unreadable == "mark" else None
    read = functools.partial(
        eval_row,
        source=source,
        crop=crop,
        crop_share=crop_share,
        interpolation=interpolation,
        mark=mark,
        resize=size is not None,
        image_shape=image_shape,
        label_shape=label_shape,
    )
    batches = grain.MapDataset.range(padded_length).map(read).batch(local_batch_size, drop_remainder=True)[shard]
    return iterate(batches[start_batch:], num_workers, num_threads)


def _shuffled(length: int, seed: int) -> grain.MapDataset:
    """The order of the examples for training; each repetition has another one."""
    require_extra("data", "Reading batches", "grain")
    import grain

    return grain.MapDataset.range(length).seed(seed).shuffle()


def _shape_of_first_image(source: RandomAccessSource, size: Size | None) -> tuple[int, int, int]:
    if len(source) == 0:
        raise InputError(f"{source!r} is empty; expected at least one example")
    return source[0]["image"].shape if size is None else (*height_and_width(size), 3)


def _keys_of_first_readable(source: RandomAccessSource) -> tuple[str, ...]:
    for index in range(len(source)):
        with contextlib.suppress(ValueError):
            return tuple(source[index])
    raise InputError(f"none of the {len(source)} examples of {source!r} can be read")


def _shard(batch_size: int, shard_index: int | None, shard_count: int | None) -> tuple[slice, int]:
    """Which blocks of rows this process reads, and how many rows a block has.

    Blocks, so that each device gets the images that it would get if one process had them all.
    """
    shard_index = jax.process_index() if shard_index is None else shard_index
    shard_count = jax.process_count() if shard_count is None else shard_count
    if not 0 <= shard_index < shard_count:
        raise InputError(f"shard_index is {shard_index} of shard_count {shard_count}; expected 0..shard_count-1")
    if batch_size < 1 or batch_size % shard_count:
        raise InputError(
            f"batch_size is {batch_size}, the global batch; expected a positive multiple of the {shard_count} "
            "processes that share it"
        )
    return slice(shard_index, None, shard_count), batch_size // shard_count
