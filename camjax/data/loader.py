"""Batches from a source by Grain: shuffled without end for training, each example exactly once for evaluation.

Both work on random access to the batches themselves, so that a batch depends on its number alone and not on how many
threads, worker processes or steps came before. Batches are NumPy arrays, images uint8: that is what travels to the
device.

Worker processes (`num_workers` above 0) are spawned, as Grain does it: a script that asks for them has to keep its
own work under `if __name__ == "__main__":`. Threads, the default, need nothing of the kind and OpenCV decodes in
parallel there.
"""

import atexit
import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

import grain
import jax
import numpy as np
from absl import flags

from camjax.data.images import resize_image

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Batch = dict[str, np.ndarray]

_RUNNING: weakref.WeakSet = weakref.WeakSet()


class RandomAccessSource(Protocol):
    """What the loader reads: `camjax.data.sources.Source`, or anything (a list, too) with these two methods.

    An example is a dict with image (H, W, 3) uint8, label int and, if there is one box per image, bbox (4,) float32.
    Further keys are left out of the batches. It is pickled where there are worker processes.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


def train_batches(
    source: RandomAccessSource,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    size: int | tuple[int, int] | None = None,
    augment: Augment | None = None,
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
      num_workers: worker processes that read, or 0 to read in this one. See the module about scripts.
      num_threads: reading threads, in each worker or in this process. Each holds one finished batch.
      shard_index: this process, default `jax.process_index()`.
      shard_count: the number of processes, default `jax.process_count()`.

    Returns:
      An iterator of dicts: image (b, H, W, 3) uint8 and label (b,) int32. Its `close()` ends threads and workers.

    Raises:
      ValueError: an empty source, a batch size that the processes can't share, a shard, seed or step out of range.
      ValueError: on iteration, an example that can't be read, or images of different size without `size`.
    """
    shard_index, shard_count = _shard(shard_index, shard_count)
    local_batch_size = _local_batch_size(batch_size, shard_count)
    if seed < 0 or start_step < 0:
        raise ValueError(f"seed is {seed} and start_step {start_step}; expected non-negative integers")
    image_shape = _shape_of_first_image(source, size)
    read = functools.partial(_train_row, source=source, size=size, augment=augment, image_shape=image_shape)
    rows = grain.MapDataset.range(len(source)).seed(seed).shuffle().random_map(read).repeat()
    batches = rows[shard_index::shard_count].batch(local_batch_size, drop_remainder=True)
    return _iterate(batches[start_step:], num_workers, num_threads)


def eval_batches(
    source: RandomAccessSource,
    *,
    batch_size: int,
    size: int | tuple[int, int] | None = None,
    num_workers: int = 0,
    num_threads: int = 4,
    shard_index: int | None = None,
    shard_count: int | None = None,
) -> Iterator[Batch]:
    """Batches for evaluation: over all processes, each example exactly once.

    Every process gets the same number of batches of the same shape, so that collectives meet; the rows that are
    missing at the end are padding, zeros with mask False. Batch k of all processes together holds the examples
    k * batch_size and onward, in the source's order.

    Args:
      source: the examples.
      batch_size: examples in a global batch; each process gets batch_size / shard_count of them.
      size: (H, W) to resize images to, or an int for a square; None keeps them as they are, all of one size.
      num_workers: worker processes that read, or 0 to read in this one. See the module about scripts.
      num_threads: reading threads, in each worker or in this process. Each holds one finished batch.
      shard_index: this process, default `jax.process_index()`.
      shard_count: the number of processes, default `jax.process_count()`.

    Returns:
      An iterator of dicts: image (b, H, W, 3) uint8, label (b,) int32, bbox (b, 4) float32 if the source has it,
      mask (b,) bool that is False on padding, index (b,) int32, the position in the source, -1 on padding.

    Raises:
      ValueError: an empty source, a batch size that the processes can't share, a shard out of range.
      ValueError: on iteration, an example that can't be read, or images of different size without `size`.
    """
    shard_index, shard_count = _shard(shard_index, shard_count)
    local_batch_size = _local_batch_size(batch_size, shard_count)
    image_shape = _shape_of_first_image(source, size)
    padded_length = -(-len(source) // batch_size) * batch_size
    read = functools.partial(_eval_row, source=source, size=size, image_shape=image_shape)
    rows = grain.MapDataset.range(padded_length)[shard_index::shard_count].map(read)
    return _iterate(rows.batch(local_batch_size, drop_remainder=True), num_workers, num_threads)


def _iterate(batches: grain.MapDataset, num_workers: int, num_threads: int) -> Iterator[Batch]:
    # Batched before to_iter_dataset: batching behind it would deal examples instead of batches to the workers.
    read_options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    dataset = batches.to_iter_dataset(read_options)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            # Grain's workers read their options from absl's flags, which only programs started by absl have parsed.
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    iterator = iter(dataset)
    generator = _copied(iterator, from_shared_memory=num_workers > 0)
    _RUNNING.add(generator)
    return generator


@atexit.register
def _close_running() -> None:
    """Close what nobody closed: workers that end together with the interpreter leak their shared memory."""
    for generator in list(_RUNNING):
        with contextlib.suppress(ValueError):  # another thread is inside of it
            generator.close()


def _copied(iterator: grain.DatasetIterator, from_shared_memory: bool) -> Iterator[Batch]:
    with contextlib.closing(iterator):
        for batch in iterator:
            # Shared memory lives as long as the array and leaks when a run is killed: hand out a copy.
            yield {key: np.array(value) for key, value in batch.items()} if from_shared_memory else batch


def _train_row(
    index: int,
    rng: np.random.Generator,
    *,
    source: RandomAccessSource,
    size: int | tuple[int, int] | None,
    augment: Augment | None,
    image_shape: tuple[int, ...],
) -> dict:
    example = source[int(index)]
    image = example["image"] if augment is None else augment(example["image"], rng)
    return {"image": _fit(image, size, image_shape, index), "label": np.int32(example["label"])}


def _eval_row(
    index: int,
    *,
    source: RandomAccessSource,
    size: int | tuple[int, int] | None,
    image_shape: tuple[int, ...],
) -> dict:
    inside = index < len(source)
    example = source[int(index) if inside else 0]
    row = {
        "image": _fit(example["image"], size, image_shape, index),
        "label": np.int32(example["label"]),
        "mask": np.bool_(inside),
        "index": np.int32(index if inside else -1),
    }
    if "bbox" in example:
        row["bbox"] = np.asarray(example["bbox"], np.float32)
    if inside:
        return row
    # Zeros, not a copy of an example: padding that is counted by mistake should stand out.
    return {key: value if key == "index" else np.zeros_like(value) for key, value in row.items()}


def _fit(image: np.ndarray, size: int | tuple[int, int] | None, image_shape: tuple[int, ...], index: int) -> np.ndarray:
    """The image at the batch's size: resized where `size` is given, checked where it is not."""
    if image.dtype != np.uint8:
        raise ValueError(f"the image of example {index} is {image.dtype}; expected uint8 in 0..255")
    if size is not None:
        image = resize_image(image, size)
    if image.shape != image_shape:
        raise ValueError(
            f"the image of example {index} is {image.shape}, that of example 0 {image_shape}; a batch has one size: "
            "give size=(H, W)"
        )
    return image


def _shape_of_first_image(source: RandomAccessSource, size: int | tuple[int, int] | None) -> tuple[int, ...]:
    if len(source) == 0:
        raise ValueError(f"{source!r} is empty; expected at least one example")
    image = source[0]["image"]
    return image.shape if size is None else resize_image(image, size).shape


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
