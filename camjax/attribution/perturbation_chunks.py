"""Scores of many perturbed copies of a batch, in compiled chunks of one shape.

A row is one copy: (image, channel, repeat). Methods define the copy of a row; this module splits rows into chunks and
computes the scores of all targets of each. No more than one chunk of copies exists at a time.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from camjax.errors import InputError

Progress = Callable[[int, int], None]
"""`progress(done, total)`: copies scored so far and in all, called when a chunk has been computed."""


def mean_scores(
    outputs_of: Callable[[jax.Array], jax.Array],
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
    padded with rows of no image, so that other values compile nothing.

    Args:
      outputs_of: rows (R, 3) int32 of image, channel and repeat -> outputs (R, ...) of the network; a pytree. Channel K
        is the reference. The image of padding rows is B: indexing takes the last image for it, and their outputs are
        dropped.
      target: outputs (B, ...) -> (B, N) float32; a pytree.
      changes: (B, K) bool, whether the copy with that channel perturbed differs from the reference.
      repeats: copies of each, at least 1.
      chunk_size: the largest R.
      progress: see `Progress`. Without it the host does not wait for the device.

    Returns:
      (B, K, N) float32 of the channels, and (B, 1, N) of the reference.

    Raises:
      ValueError: chunk_size below 1.
    """
    if chunk_size < 1:
        raise InputError(f"chunk_size={chunk_size}: expected the number of copies to score at a time, at least 1.")
    batch, channels = changes.shape
    scored = np.pad(np.asarray(changes), ((0, 0), (0, 1)), constant_values=True)
    rows = _rows(scored, repeats)
    total = len(rows)
    chunk_size = min(chunk_size, repeats * scored.size)
    rows = np.pad(rows, ((0, -total % chunk_size), (0, 0)), constant_values=batch)
    count = jax.eval_shape(_scores, outputs_of, target, rows[:chunk_size], batch).shape[1]
    sums = jnp.zeros((batch, channels + 1, count), jnp.float32)
    for start in range(0, total, chunk_size):
        # A chunk adds to the sums of the one before it and waits for them: no two chunks run at a time.
        sums = _add_scores(sums, outputs_of, target, rows[start : start + chunk_size])
        if progress:
            sums.block_until_ready()
            progress(min(start + chunk_size, total), total)
    return _means(sums, changes, repeats)


def _rows(scored: np.ndarray, repeats: int) -> np.ndarray:
    """(B, K + 1) bool -> (rows, 3) int32 of image, channel and repeat, repeat by repeat and image by image."""
    pairs = np.argwhere(scored)
    rows = np.column_stack([np.tile(pairs, (repeats, 1)), np.repeat(np.arange(repeats), len(pairs))])
    return rows.astype(np.int32)


@functools.partial(jax.jit, static_argnums=3)
def _scores(outputs_of, target, rows, batch):
    """(R, 3) rows -> (R, N): each output's scores by the targets of its own image."""
    outputs = outputs_of(rows)

    def of_row(output, image):
        # A target takes a whole batch, and may differ between images: the output is repeated for all of them.
        return target(jnp.broadcast_to(output, (batch, *output.shape)))[image]

    # As many rows at once as make one chunk of outputs.
    at_once = max(1, len(rows) // batch)
    return jax.lax.map(lambda row: of_row(*row), (outputs, rows[:, 0]), batch_size=at_once)


@functools.partial(jax.jit, donate_argnums=0)
def _add_scores(sums, outputs_of, target, rows):
    scores = _scores(outputs_of, target, rows, len(sums)).astype(sums.dtype)
    return sums.at[rows[:, 0], rows[:, 1]].add(scores, mode="drop")


@jax.jit
def _means(sums, changes, repeats):
    reference = sums[:, -1:]
    return jnp.where(changes[..., None], sums[:, :-1], reference) / repeats, reference / repeats
