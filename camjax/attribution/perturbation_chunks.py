"""Scores of many perturbed copies of a batch, in compiled chunks of one shape.

A row is one copy: (image, channel, repeat). Methods say what a copy of a row is; here is how rows become chunks, and
how the scores of all targets come from each. No more than one chunk of copies exists at a time.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Progress = Callable[[int, int], None]
"""`progress(done, total)`: copies scored so far and their number, called after each chunk once it is computed."""


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

    A channel whose perturbation changes nothing is not scored for itself. It gets the scores of the reference, the copy
    without any channel's perturbation, of which there is one for each image and repeat.

    The values of `changes` decide how many chunks there are, and are read once; chunks have one shape, the last one
    filled up with rows of no image, so that other values compile nothing.

    Args:
      outputs_of: rows (R, 3) int32 of image, channel and repeat -> outputs (R, ...) of the network; a pytree. Channel K
        is the reference. The image of rows that fill the last chunk is B: indexing takes the last image for it, and
        their outputs are dropped.
      target: outputs (B, ...) -> (B, N) float32; a pytree.
      changes: (B, K) bool, whether an image with that channel perturbed is another one than the reference.
      repeats: copies of each, at least 1.
      chunk_size: the largest R.
      progress: see `Progress`. Without it nothing waits for the device.

    Returns:
      (B, K, N) float32 of the channels, and (B, 1, N) of the reference.

    Raises:
      ValueError: chunk_size below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size}: expected the number of copies to score at a time, at least 1.")
    batch, channels = changes.shape
    scored = np.pad(np.asarray(changes), ((0, 0), (0, 1)), constant_values=True)
    rows = _rows(scored, repeats)
    total = len(rows)
    chunk_size = min(chunk_size, repeats * scored.size)
    rows = np.pad(rows, ((0, -total % chunk_size), (0, 0)), constant_values=batch)
    count = jax.eval_shape(_scores, outputs_of, target, rows[:chunk_size], batch).shape[1]
    sums = jnp.zeros((batch, channels + 1, count))
    for start in range(0, total, chunk_size):
        # One chunk waits for the one before it, whose sums it adds to: asynchronous dispatch starts no two of them.
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
        # A target takes a whole batch, and has other targets for each image: the output stands in for all of them.
        return target(jnp.broadcast_to(output, (batch, *output.shape)))[image]

    # As many rows at once as make one chunk of outputs.
    at_once = max(1, len(rows) // batch)
    return jax.lax.map(lambda row: of_row(*row), (outputs, rows[:, 0]), batch_size=at_once)


@functools.partial(jax.jit, donate_argnums=0)
def _add_scores(sums, outputs_of, target, rows):
    scores = _scores(outputs_of, target, rows, len(sums))
    return sums.at[rows[:, 0], rows[:, 1]].add(scores, mode="drop")


@jax.jit
def _means(sums, changes, repeats):
    reference = sums[:, -1:]
    return jnp.where(changes[..., None], sums[:, :-1], reference) / repeats, reference / repeats
