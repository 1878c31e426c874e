"""RISE: scores of images behind random masks, as weights of the masks."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from camjax.attribution.changed_images import broadcast_baseline, checked, noise_key
from camjax.attribution.perturbation_chunks import Progress, for_each, mean_scores
from camjax.cam import resize_map
from camjax.errors import InputError
from camjax.sharding import laid_out_like


def rise(
    network_fn: Callable[[jax.Array], jax.Array],
    images: ArrayLike,
    targets: Any,
    *,
    num_masks: int = 4000,
    cells: int = 7,
    probability: float = 0.5,
    baseline: ArrayLike = 0.0,
    key: jax.Array | None = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """RISE (Petsiuk et al. 2018, eq. 6): `sum_k S_k M_k / (num_masks probability)`.

    S_k is the score of the image behind mask M_k, which turns pixels x into `x_0 + M_k (x - x_0)` with the baseline
    x_0; see `rise_masks`. All images of all batches have the same masks. In the paper scores are probabilities: as a
    row of `camjax.attribution.METHODS` this function takes those of classes, and `camjax.attribution.targets` has them
    for your own calls. Other scores will do, with more noise the larger they are beside their differences. A loop on
    the host over compiled chunks, not to be called inside `jax.jit`.

    The authors' code masks normalized images: a baseline of the color that a network subtracts.

    Args:
      network_fn: as in `camjax.attribution.integrated_gradients`.
      images: (B, H, W, C) in the range that the network takes, uint8 or float.
      targets: class ids (B,) or (B, N), whose scores are the outputs, or a function of the outputs.
      num_masks: 4000 in the paper for VGG16, 8000 for ResNet-50.
      cells: of a mask, down and to the right, before it is enlarged.
      probability: that a cell is 1.
      baseline: x_0: a number, a color (C,), or images that broadcast to (B, H, W, C); black by default.
      key: of `jax.random`; None for `jax.random.key(0)`. The same key gives the same maps, whatever the chunk_size.
      chunk_size: masked images at a time, on a device.
      progress: `progress(done, total)` with numbers of masked images, after each chunk.

    Returns:
      (B, N, H, W) float32; not negative for scores that are not.

    Raises:
      ValueError: arguments that do not fit each other, numbers below 1, or a probability that is not above 0 and at
        most 1.
    """
    if num_masks < 1 or cells < 1 or not 0 < probability <= 1:
        raise InputError(
            f"num_masks={num_masks}, cells={cells}, probability={probability}: expected at least 1 mask and 1 cell, "
            "and a probability above 0, at most 1."
        )
    network, images, target = checked(network_fn, images, targets)
    unseen = broadcast_baseline(baseline, images)
    size = images.shape[1:3]
    grids, shifts = _drawn(noise_key(key), num_masks, cells, probability, size)
    scores, _ = mean_scores(
        Partial(_masked_outputs, network, *_with_reference(grids, shifts)),
        (images, unseen),
        target,
        for_each(images, np.ones(num_masks, bool)),
        chunk_size=chunk_size,
        progress=progress,
    )
    return _weighted_masks(scores, grids, shifts, size, chunk_size) / (num_masks * probability)


def rise_masks(key: jax.Array, num_masks: int, cells: int, probability: float, size: tuple[int, int]) -> jax.Array:
    """RISE's masks (Petsiuk et al. 2018, section 3.2).

    A grid of cells x cells is 1 with the probability, else 0. It is enlarged (bilinear, half-pixel centers) by one more
    cell than the image has in each direction, with cells of ceil(H / cells) x ceil(W / cells) pixels, and cut at a
    random place, the first cell's height and width at most from its corner.

    Args:
      key: of `jax.random`.
      num_masks: K.
      cells: of a grid, in each direction.
      probability: of a cell that is 1.
      size: (H, W) in pixels.

    Returns:
      (K, H, W) float32 in 0..1.
    """
    grids, shifts = _drawn(key, num_masks, cells, probability, size)
    return _masks(grids, shifts, size)


def _drawn(key, num_masks, cells, probability, size):
    """Grids (K, cells, cells) float32, and where masks begin in the enlarged grids, (K, 2) int32."""
    of_grids, of_shifts = jax.random.split(key)
    # Of one type: JAX draws others in double precision.
    grids = jax.random.uniform(of_grids, (num_masks, cells, cells), jnp.float32) < probability
    ends = jnp.asarray(_cell(size, cells), jnp.int32)[None]
    return grids.astype(jnp.float32), jax.random.randint(of_shifts, (num_masks, 2), 0, ends, jnp.int32)


def _cell(size, cells):
    return [-(-side // cells) for side in size]


def _with_reference(grids, shifts):
    """One more mask, of ones: the reference."""
    return jnp.pad(grids, ((0, 1), (0, 0), (0, 0)), constant_values=1), jnp.pad(shifts, ((0, 1), (0, 0)))


def _masks(grids, shifts, size):
    cells = grids.shape[-1]
    large = resize_map(grids, [(cells + 1) * side for side in _cell(size, cells)])
    return jax.vmap(lambda mask, shift: jax.lax.dynamic_slice(mask, shift, size))(large, shifts)


def _masked_outputs(network, grids, shifts, of_images, places, rows):
    images, unseen = (array[places].astype(jnp.float32) for array in of_images)
    masks = _masks(grids[rows[:, 1]], shifts[rows[:, 1]], images.shape[1:3])
    return network(unseen + masks[..., None] * (images - unseen))


@functools.partial(jax.jit, static_argnums=(3, 4))
@laid_out_like(0, trailing=2)
def _weighted_masks(scores, grids, shifts, size, at_once):
    """Scores (B, K, N) -> (B, N, H, W), sums of masks; no more than `at_once` masks exist at a time."""
    batch, masks, count = scores.shape
    at_once = min(at_once, masks)
    padded = [jnp.pad(array, ((0, -masks % at_once), *[(0, 0)] * (array.ndim - 1))) for array in (grids, shifts)]
    weights = jnp.pad(jnp.swapaxes(scores, 0, 1), ((0, -masks % at_once), (0, 0), (0, 0)))

    def add(sums, chunk):
        weights, grids, shifts = chunk
        masks = _masks(grids, shifts, size)
        return sums + jnp.einsum("kbn,khw->bnhw", weights, masks, precision=jax.lax.Precision.HIGHEST), None

    chunks = [array.reshape(-1, at_once, *array.shape[1:]) for array in (weights, *padded)]
    return jax.lax.scan(add, jnp.zeros((batch, count, *size), jnp.float32), tuple(chunks))[0]
