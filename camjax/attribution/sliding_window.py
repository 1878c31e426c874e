"""Occlusion: what a score loses when a window over the image is covered."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from camjax.attribution.changed_images import broadcast_baseline, checked
from camjax.attribution.perturbation_chunks import Progress, for_each, mean_scores
from camjax.errors import InputError
from camjax.sharding import laid_out_like


def occlusion(
    network_fn: Callable[[jax.Array], jax.Array],
    images: ArrayLike,
    targets: Any,
    *,
    window: int | Sequence[int] | None = None,
    stride: int | Sequence[int] | None = None,
    baseline: ArrayLike = 0.0,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """Occlusion (Zeiler and Fergus 2014, section 4.2), with the averaging that captum does.

    A window slides over the image. Where it lies, the image is the baseline. A pixel has the mean of `S - S_k` over the
    windows k that cover it, with S the score of the whole image. The first window lies in the corner; the last ones in
    each direction end at the edge of the image and may be smaller. A loop on the host over compiled chunks, not to be
    called inside `jax.jit`. The paper draws S_k itself, at the center of each window, and covers with gray.

    Args:
      network_fn: as in `camjax.attribution.integrated_gradients`.
      images: (B, H, W, C) in the range that the network takes, uint8 or float.
      targets: class ids (B,) or (B, N), or a function of the outputs.
      window: height and width in pixels, or one number for both; None for an eighth of the image's sides, rounded.
      stride: steps of the window down and to the right; None for half a window, at least 1.
      baseline: what covers the image: a number, a color (C,), or images that broadcast to (B, H, W, C); black by
        default.
      chunk_size: covered images at a time, on a device.
      progress: `progress(done, total)` with numbers of covered images, after each chunk.

    Returns:
      (B, N, H, W) float32, signed: above 0 where covering lowers the score.

    Raises:
      ValueError: arguments that do not fit each other, a window larger than the image, a stride that leaves pixels
        uncovered, or numbers below 1.
    """
    network, images, target = checked(network_fn, images, targets)
    baseline = broadcast_baseline(baseline, images)
    size = images.shape[1:3]
    sides = _pair(window, [max(1, round(side / 8)) for side in size])
    steps = _pair(stride, [max(1, side // 2) for side in sides])
    if any(side > whole for side, whole in zip(sides, size, strict=True)):
        raise InputError(f"window={window} of images of {size[0]} x {size[1]} pixels: expected one that fits in.")
    if any(step > side != whole for step, side, whole in zip(steps, sides, size, strict=True)):
        raise InputError(f"stride={stride} of a window of {sides[0]} x {sides[1]}: expected steps no larger than it.")
    starts = [
        step * np.arange(math.ceil((whole - side) / step) + 1)
        for whole, side, step in zip(size, sides, steps, strict=True)
    ]
    corners = np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 2)
    # One more lies outside of the image: the reference.
    corners = np.concatenate([corners, [size]]).astype(np.int32)
    scores, reference = mean_scores(
        Partial(_covered_outputs, network, jnp.asarray(corners), jnp.asarray(sides, jnp.int32)),
        (images, baseline),
        target,
        for_each(images, np.ones(len(corners) - 1, bool)),
        chunk_size=chunk_size,
        progress=progress,
    )
    inside = [
        jnp.asarray((at >= start[:, None]) & (at < start[:, None] + side), jnp.float32)
        for at, start, side in zip(map(np.arange, size), starts, sides, strict=True)
    ]
    return _mean_drops(scores, reference, *inside)


def _pair(given: int | Sequence[int] | None, default: Sequence[int]) -> list[int]:
    """Two numbers of pixels."""
    pair = list(default) if given is None else np.broadcast_to(np.asarray(given), 2).tolist()
    if not all(isinstance(number, int) and number >= 1 for number in pair):
        raise InputError(f"window or stride {given}: expected pixels, at least 1: one number, or height and width.")
    return pair


def _covered_outputs(network, corners, sides, of_images, places, rows):
    images, unseen = (array[places].astype(jnp.float32) for array in of_images)
    corner = corners[rows[:, 1]]
    covered = [
        (at >= corner[:, axis, None]) & (at < corner[:, axis, None] + sides[axis])
        for axis, at in enumerate(jnp.arange(side, dtype=jnp.int32)[None] for side in images.shape[1:3])
    ]
    mask = covered[0][:, :, None, None] & covered[1][:, None, :, None]
    return network(jnp.where(mask, unseen, images))


@jax.jit
@laid_out_like(0, trailing=2)
def _mean_drops(scores, reference, rows, columns):
    """Scores (B, K, N) of windows row by row, and their pixels (Ky, H) and (Kx, W) -> (B, N, H, W)."""
    batch, _, count = scores.shape
    drops = (reference - scores).reshape(batch, len(rows), len(columns), count)
    sums = jnp.einsum("byxn,yh,xw->bnhw", drops, rows, columns, precision=jax.lax.Precision.HIGHEST)
    return sums / (rows.sum(0)[:, None] * columns.sum(0)[None])[None, None]
