"""Batches from a source by Grain: shuffled without end for training, each example exactly once for evaluation.

Both work on random access to the batches themselves, so that a batch depends on its number alone and not on how many
threads, worker processes or steps came before. Batches are NumPy arrays, images uint8: that is what travels to the
device.

Worker processes (`num_workers` above 0) are spawned, as Grain does it: a script that asks for them has to keep its
own work under `if __name__ == "__main__":`. Threads, the default, need nothing of the kind and OpenCV decodes in
parallel there. Ctrl-C and SIGTERM, which a terminal and most schedulers send to a run's every process, are for this one
to act on: workers end with their iterator, or with this process, however it ends.
"""

import atexit
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Literal

import grain
import jax
import numpy as np
from absl import flags
from grain.multiprocessing import SharedMemoryArray

from camjax.data.rows import Augment, RandomAccessSource, eval_row, train_row, with_position

Batch = dict[str, np.ndarray]

_RUNNING: weakref.WeakSet = weakref.WeakSet()

_FREED_WITHIN = 10.0
"""Seconds to wait for shared memory to be freed, which takes milliseconds."""


def train_batches(
    source: RandomAccessSource,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    size: int | tuple[int, int] | None = None,
    augment: Augment | None = None,
    unreadable: Literal["raise", "skip"] = "raise",
    num_workers: int = 0,
    num_threads: int = 4,
    shard_index: int | None = None,
    shard_count: int | None = None,
) -> Iterator[Batch]:
    """Batches for training, without end: each epoch is a new shuffle, and batches run on across epochs.

    Batch k is the same for a run that starts at step k and for one that went through steps 0..k-1, for any number of
    workers and threads. Batch k of the n processes together is batch k of one process, in another order.

    Args:
      source: the examples.
      batch_size: examples in a global batch; each process gets batch_size / shard_count of them.
      seed: a non-negative integer for the order and the augmentation; the same in every process.
      start_step: the global step of the first batch that comes out.
      size: (H, W) to resize images to, or an int for a square; None keeps them as they are, all of one size.
      augment: random change of an image before it is resized, see `camjax.data.transforms`. Its generator depends on
        `seed`, epoch and example alone.
      unreadable: what an example that can't be read does: "raise" a ValueError, or "skip" it: the next one in the
        shuffled order that can be read takes its place as well as its own, and the batch says so.
      num_workers: worker processes that read, or 0 to read in this one. See the module about scripts.
      num_threads: reading threads, in each worker or in this process. Each holds one finished batch.
      shard_index: this process, default `jax.process_index()`.
      shard_count: the number of processes, default `jax.process_count()`.

    Returns:
      An iterator of dicts: image (b, H, W, 3) uint8, label (b,) int32 and index (b,) int32, the position in the source.
      With "skip" also skipped (b,) int32: the position of the unreadable example in whose place a row stands, -1 where
      a row stands in its own. In an epoch each unreadable example is in there exactly once. The iterator's `close()`
      ends threads and workers.

    Raises:
      ValueError: an empty source, a batch size that the processes can't share, a shard, seed or step out of range, or
        "skip" without `size`.
      ValueError: on iteration, an example that can't be read (with "skip", 100 in a row), or images of different size
        without `size`.
    """
    if unreadable not in ("raise", "skip"):
        raise ValueError(f'unreadable is {unreadable!r}; expected "raise" or "skip"')
    if unreadable == "skip" and size is None:
        raise ValueError("unreadable is 'skip' without size; give size=(H, W)")
    shard_index, shard_count = _shard(shard_index, shard_count)
    local_batch_size = _local_batch_size(batch_size, shard_count)
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed is {seed} and start_step {start_step}; expected non-negative integers")
    image_shape = _shape_of_first_image(source, size)
    order = grain.MapDataset.range(len(source)).seed(seed).shuffle()
    read = functools.partial(
        train_row,
        source=source,
        order=order if unreadable == "skip" else None,
        size=size,
        augment=augment,
        image_shape=image_shape,
    )
    rows = order.map_with_index(with_position).random_map(read).repeat()
    batches = rows[shard_index::shard_count].batch(local_batch_size, drop_remainder=True)
    return _iterate(batches[start_step:], num_workers, num_threads)


def eval_batches(
    source: RandomAccessSource,
    *,
    batch_size: int,
    size: int | tuple[int, int] | None = None,
    crop: Literal["center"] | None = None,
    unreadable: Literal["raise", "mark"] = "raise",
    start_batch: int = 0,
    num_workers: int = 0,
    num_threads: int = 4,
    shard_index: int | None = None,
    shard_count: int | None = None,
) -> Generator[Batch, None, None]:
    """Batches for evaluation: over all processes, each example exactly once.

    Every process gets the same number of batches of the same shape, so that collectives meet; the rows that are
    missing at the end are padding, zeros with mask False. Batch k of all processes together holds the examples
    k * batch_size and onward, in the source's order.

    Args:
      source: the examples.
      batch_size: examples in a global batch; each process gets batch_size / shard_count of them.
      size: (H, W) to resize images to, or an int for a square; None keeps them as they are, all of one size.
      crop: None squashes the whole image to `size`; "center" cuts out the largest centered rectangle of the aspect of
        `size` first, as `camjax.load_images` does.
      unreadable: what an example that can't be read does: "raise" a ValueError, or "mark" its row: zeros with mask
        False, but its index.
      start_batch: the number of the first batch that comes out.
      num_workers: worker processes that read, or 0 to read in this one. See the module about scripts.
      num_threads: reading threads, in each worker or in this process. Each holds one finished batch.
      shard_index: this process, default `jax.process_index()`.
      shard_count: the number of processes, default `jax.process_count()`.

    Returns:
      An iterator of dicts: image (b, H, W, 3) uint8, label (b,) int32, bbox (b, 4) float32 if the source has it,
      mask (b,) bool that is False on padding, index (b,) int32, the position in the source, -1 on padding. With `size`
      also image_size (b, 2) int32, H and W of the stored image, and view (b, 4) float32, the part of it that is seen,
      [ymin, xmin, ymax, xmax] in 0..1.

    Raises:
      ValueError: an empty source, a batch size that the processes can't share, a shard out of range, or `crop` or
        "mark" without `size`.
      ValueError: on iteration, an example that can't be read, or images of different size without `size`.
    """
    shard_index, shard_count = _shard(shard_index, shard_count)
    local_batch_size = _local_batch_size(batch_size, shard_count)
    if unreadable not in ("raise", "mark"):
        raise ValueError(f'unreadable is {unreadable!r}; expected "raise" or "mark"')
    if crop not in (None, "center"):
        raise ValueError(f'crop is {crop!r}; expected None (squash to size) or "center"')
    if start_batch < 0:
        raise ValueError(f"start_batch is {start_batch}; expected a non-negative integer")
    if size is None and (crop or unreadable == "mark"):
        raise ValueError(f"crop is {crop!r} and unreadable {unreadable!r} without size; give size=(H, W)")
    image_shape = _shape_of_first_image(source, size)
    padded_length = -(-len(source) // batch_size) * batch_size
    mark = _keys_of_first_readable(source) if unreadable == "mark" else None
    read = functools.partial(eval_row, source=source, size=size, crop=crop, mark=mark, image_shape=image_shape)
    rows = grain.MapDataset.range(padded_length)[shard_index::shard_count].map(read)
    batches = rows.batch(local_batch_size, drop_remainder=True)
    return _iterate(batches[start_batch:], num_workers, num_threads)


def _iterate(batches: grain.MapDataset, num_workers: int, num_threads: int) -> Generator[Batch, None, None]:
    # Batched before to_iter_dataset: batching behind it would deal examples instead of batches to the workers.
    read_options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    dataset = batches.to_iter_dataset(read_options)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            # Grain's workers read their options from absl's flags, which only programs started by absl have parsed.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=num_workers)
        dataset = dataset.mp_prefetch(options, worker_init_fn=_end_with_parent)
    generator = (_from_workers if num_workers else _from_threads)(iter(dataset))
    _RUNNING.add(generator)
    return generator


@atexit.register
def _close_running() -> None:
    """Close what nobody closed: workers that end together with the interpreter leak their shared memory."""
    for generator in list(_RUNNING):
        with contextlib.suppress(ValueError):  # another thread is inside of it
            generator.close()


def _from_threads(iterator: grain.DatasetIterator) -> Generator[Batch, None, None]:
    with contextlib.closing(iterator):
        yield from iterator


def _from_workers(iterator: grain.DatasetIterator) -> Generator[Batch, None, None]:
    with contextlib.ExitStack() as stack:
        stack.callback(_wait_for_shared_memory)
        stack.enter_context(contextlib.closing(iterator))
        batch = _first_of_workers(iterator)
        while batch is not None:
            # Shared memory lives as long as the array and leaks when a run is killed: hand out a copy, hold no other.
            batch = {key: np.array(value) for key, value in batch.items()}
            yield batch
            batch = next(iterator, None)


def _first_of_workers(iterator: grain.DatasetIterator) -> Batch | None:
    """The first batch, or None where there is none; workers start with it."""
    # A process starts with those signals blocked that are blocked in the thread that starts it. A worker that blocked
    # them itself would do so after its imports, and one that dies in them can leave this process waiting forever.
    # A thread of its own, because the first batch takes seconds, in which the caller should hear Ctrl-C.
    block = functools.partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    resource_tracker.ensure_running()  # started in that thread it would unblock them
    with ThreadPoolExecutor(1, thread_name_prefix="start-workers", initializer=block) as starter:
        return starter.submit(next, iterator, None).result()


def _end_with_parent(worker_index: int, worker_count: int) -> None:
    """Called by a worker: a worker whose parent was killed would wait for it forever."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _wait_for_shared_memory() -> None:
    """Waits until the shared memory of all batches that were let go is freed, which the interpreter's end cuts off."""
    # Private, because Grain frees it in a thread that it has no public way to wait for; google/grain#398 is open. It is
    # one thread: a task put in now comes after all others. To be removed once Grain's `close()` waits for it.
    thread = getattr(SharedMemoryArray, "_del_thread_pool", None)
    if thread is not None:
        thread.apply_async(int).wait(_FREED_WITHIN)


def _shape_of_first_image(source: RandomAccessSource, size: int | tuple[int, int] | None) -> tuple[int, ...]:
    if len(source) == 0:
        raise ValueError(f"{source!r} is empty; expected at least one example")
    if size is None:
        return source[0]["image"].shape
    return (size, size, 3) if isinstance(size, int) else (*size, 3)


def _keys_of_first_readable(source: RandomAccessSource) -> tuple[str, ...]:
    for index in range(len(source)):
        with contextlib.suppress(ValueError):
            return tuple(source[index])
    raise ValueError(f"none of the {len(source)} examples of {source!r} can be read")


def _shard(shard_index: int | None, shard_count: int | None) -> tuple[int, int]:
    shard_index = jax.process_index() if shard_index is None else shard_index
    shard_count = jax.process_count() if shard_count is None else shard_count
    if not 0 <= shard_index < shard_count:
        raise ValueError(f"shard_index is {shard_index} of shard_count {shard_count}; expected 0..shard_count-1")
    return shard_index, shard_count


def _local_batch_size(batch_size: int, shard_count: int) -> int:
    if batch_size < 1 or batch_size % shard_count:
        raise ValueError(
            f"batch_size is {batch_size}, the global batch; expected a positive multiple of the {shard_count} "
            "processes that share it"
        )
    return batch_size // shard_count
