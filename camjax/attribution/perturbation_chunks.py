"""Scores, and gradients, of many perturbed copies of a batch, in compiled chunks of one shape.

A row is one copy: (image, channel, repeat). Methods define the copy of a row; this module splits rows into chunks and
computes the scores of all targets of each, or their gradients. No more than one chunk of copies exists at a time.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from camjax.attribution.gradients import output_gradients
from camjax.errors import InputError
from camjax.sharding import split_of

Progress = Callable[[int, int], None]
"""`progress(done, total)`: copies scored so far and in all, called when a chunk has been computed."""


def mean_scores(
    outputs_of: Callable[[Any, jax.Array, jax.Array], jax.Array],
    of_images: Any,
    target: Callable[[jax.Array], jax.Array],
    changes: jax.Array,
    *,
    repeats: int = 1,
    chunk_size: int,
    progress: Progress | None,
) -> jax.Array:
    """Scores of each image with each of its channels perturbed in turn, as a mean over repeats.

    A channel whose perturbation changes nothing is not scored. It gets the scores of the reference, the copy without
    any channel's perturbation, one for each image and repeat.

    The values of `changes` determine the number of chunks, and are read once. All chunks have one shape, the last one
    padded with rows of no image, so that other values compile nothing. Where `changes` are split over devices by
    images, each device scores the copies of its own images, a chunk of them at a time.

    Args:
      outputs_of: (of_images, places (R,), rows (R, 3) int32 of image, channel and repeat) -> outputs (R, ...) of the
        network; a pytree. Places are those of the rows' images in `of_images`, which on several devices holds the
        device's own. Channel K is the reference. The image of padding rows is B: indexing takes the last image for it,
        and their outputs are dropped.
      of_images: a tree of arrays (B, ...).
      target: outputs (B, ...) -> (B, N) float32; a pytree.
      changes: (B, K) bool, whether the copy with that channel perturbed differs from the reference.
      repeats: copies of each, at least 1.
      chunk_size: the largest R on a device.
      progress: see `Progress`. Without it the host does not wait for the device.

    Returns:
      (B, K, N) float32 of the channels, and (B, 1, N) of the reference.

    Raises:
      ValueError: chunk_size below 1.
    """
    sums = _sums(_scores, outputs_of, of_images, target, changes, repeats, chunk_size, progress)
    return _means(sums, changes, repeats)


def mean_gradients(
    network: Callable[[jax.Array], jax.Array],
    copies_of: Callable[[Any, jax.Array, jax.Array], jax.Array],
    of_images: Any,
    target: Callable[[jax.Array], jax.Array],
    *,
    weights: jax.Array,
    chunk_size: int,
    progress: Progress | None,
) -> jax.Array:
    """Gradients of scores with respect to copies of each image, as a weighted mean over the copies.

    Args:
      network: images -> outputs; a pytree.
      copies_of: (of_images, places (R,), rows (R, 3) int32 of image, 0 and copy) -> float32 images (R, H, W, C); a
        pytree. Places and padding are as in `mean_scores`.
      of_images: a tree of arrays (B, ...), all on the same devices.
      target: outputs (B, ...) -> (B, N) float32; a pytree.
      weights: (n,) float32, of each image's n copies: the mean is the sum of weighted gradients, divided by n.
      chunk_size: the largest R on a device. A chunk has a backward pass for each of the N targets.
      progress: see `Progress`.

    Returns:
      (B, N, H, W, C) float32.

    Raises:
      ValueError: chunk_size below 1.
    """
    nothing = for_each(jax.tree.leaves(of_images)[0], np.zeros(0, bool))
    parts, copies = (network, copies_of, weights), len(weights)
    sums = _sums(_gradients, parts, of_images, target, nothing, copies, chunk_size, progress)
    return _means(sums, nothing, copies)[1][:, 0]


def for_each(images: jax.Array, values: np.ndarray) -> jax.Array:
    """(B, ...) images, (K,) values -> (B, K), the values for each image, split over devices as the images are."""
    repeated = np.broadcast_to(values, (len(images), *values.shape))
    split = split_of(images)
    return jnp.asarray(repeated) if split is None else jax.device_put(repeated, split)


def _sums(values_of, parts, of_images, target, changes, repeats, chunk_size, progress):
    """(B, K + 1, ...) float32: over repeats, of what `_scores` or `_gradients` finds for each channel."""
    if chunk_size < 1:
        raise InputError(f"chunk_size={chunk_size}: expected the number of copies to score at a time, at least 1.")
    batch, channels = changes.shape
    scored = np.pad(np.asarray(changes), ((0, 0), (0, 1)), constant_values=True)
    split = split_of(changes)
    devices = 1 if split is None else batch // split.shard_shape(changes.shape)[0]
    rows = [_rows(scored, repeats, images) for images in np.split(np.arange(batch), devices)]
    chunk_size = min(chunk_size, repeats * scored.size // devices)
    length = -(-max(map(len, rows)) // chunk_size) * chunk_size
    padded = np.stack([np.pad(of, ((0, length - len(of)), (0, 0)), constant_values=batch) for of in rows])
    shapes = jax.tree.map(_shape, (parts, of_images, target))
    shape = jax.eval_shape(functools.partial(values_of, batch=batch), *shapes, padded[0, :chunk_size], 0).shape[1:]
    sums = jnp.zeros((batch, channels + 1, *shape), jnp.float32)
    if split is not None:
        everywhere = NamedSharding(split.mesh, PartitionSpec())
        parts, target = jax.tree.map(functools.partial(_put, everywhere), (parts, target))
        sums, of_images = jax.device_put((sums, of_images), split)
    for start in range(0, length, chunk_size):
        # A chunk adds to the sums of the one before it and waits for them: no two chunks run at a time.
        chunk = padded[:, start : start + chunk_size].reshape(-1, 3)
        chunk = chunk if split is None else jax.device_put(chunk, split)
        sums = _add_values(sums, parts, of_images, target, chunk, split, values_of)
        if progress:
            sums.block_until_ready()
            progress(sum(min(start + chunk_size, len(of)) for of in rows), sum(map(len, rows)))
    return sums


def _rows(scored: np.ndarray, repeats: int, images: np.ndarray) -> np.ndarray:
    """(B, K + 1) bool -> (rows, 3) int32 of image, channel and repeat, repeat by repeat and image by image."""
    pairs = np.argwhere(scored[images]) + np.array((images[0], 0))
    rows = np.column_stack([np.tile(pairs, (repeats, 1)), np.repeat(np.arange(repeats), len(pairs))])
    return rows.astype(np.int32)


def _shape(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jax.Array) else leaf


def _put(sharding: NamedSharding, leaf: Any) -> Any:
    """Numbers stay numbers, which take any array's type."""
    return jax.device_put(leaf, sharding) if isinstance(leaf, jax.Array) else leaf


def _scores(outputs_of, of_images, target, rows, first, *, batch):
    """(R, 3) rows of images from `first` on -> (R, N): each output's scores by the targets of its own image."""
    return _scores_of(target, outputs_of(of_images, rows[:, 0] - first, rows), rows, batch)


def _gradients(parts, of_images, target, rows, first, *, batch):
    """The same for the gradients of the scores with respect to copies of the images: (R, N, H, W, C)."""
    network, copies_of, weights = parts
    _, gradients = output_gradients(network, copies_of(of_images, rows[:, 0] - first, rows))
    found = gradients(lambda outputs: _scores_of(target, outputs, rows, batch))
    return weights[rows[:, 2]][:, None, None, None, None] * found


def _scores_of(target, outputs, rows, batch):
    def of_row(output, image):
        # A target takes a whole batch, and may differ between images: the output is repeated for all of them.
        return target(jnp.broadcast_to(output, (batch, *output.shape)))[image]

    # As many rows at once as make one chunk of outputs.
    at_once = max(1, len(rows) // batch)
    return jax.lax.map(lambda row: of_row(*row), (outputs, rows[:, 0]), batch_size=at_once)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=(5, 6))
def _add_values(sums, parts, of_images, target, rows, split, values_of):
    batch = len(sums)

    def add(sums, parts, of_images, target, rows):
        first = 0 if split is None else jax.lax.axis_index(split.spec[0]) * len(sums)
        values = values_of(parts, of_images, target, rows, first, batch=batch).astype(sums.dtype)
        return sums.at[rows[:, 0] - first, rows[:, 1]].add(values, mode="drop")

    if split is not None:
        here, everywhere = split.spec, PartitionSpec()
        specs = here, everywhere, here, everywhere, here
        add = jax.shard_map(add, mesh=split.mesh, in_specs=specs, out_specs=here)
    return add(sums, parts, of_images, target, rows)


@jax.jit
def _means(sums, changes, repeats):
    reference = sums[:, -1:]
    changes = changes.reshape(*changes.shape, *[1] * (sums.ndim - 2))
    return jnp.where(changes, sums[:, :-1], reference) / repeats, reference / repeats
