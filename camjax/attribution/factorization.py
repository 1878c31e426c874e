"""Deep feature factorization: a feature map as a sum of a few maps, each with a direction in channel space."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from camjax.attribution.decomposition import one_by_one
from camjax.attribution.gradients import by_gradients, images_first
from camjax.errors import InputError
from camjax.sharding import varying_alike

_EXACT = jax.lax.Precision.HIGHEST
_STEPS, _TOLERANCE = 200, 1e-4
"""When the factors are settled: scikit-learn's rule, and its numbers."""


class Factors(NamedTuple):
    """Features as `offset + sum_j maps_j directions_j`, but for a rest.

    Attributes:
      maps: (B, F, h, w) float32, not negative, in the features' unit.
      directions: (F, K) float32, not negative, of length 1; zeros of a factor that is not needed.
      offset: (K,) float32, the least value of each channel.
    """

    maps: jax.Array
    directions: jax.Array
    offset: jax.Array


@functools.partial(jax.jit, static_argnums=1)
def deep_feature_factorization(features: jax.Array, num_factors: int = 5) -> Factors:
    """Deep feature factorization (Collins et al. 2018): what a batch has in common, as maps of factors, of no class.

    Features less their offset are factored into two matrices that are not negative, of (F, K) and of (B * h * w, F),
    with the least sum of squared errors that coordinate descent finds (Cichocki and Phan 2009, as in scikit-learn) from
    a start by the singular vectors (Boutsidis and Gallopoulos 2008, "NNDSVD"), which draws nothing at random. A factor
    means the same in all images of the batch. Factors more than the features' rank are 0.

    Args:
      features: (B, h, w, K) of any float dtype.
      num_factors: F.

    Returns:
      `Factors`. Features that hold NaN or infinity give maps and directions of NaN.

    Raises:
      ValueError: features of another shape, or num_factors below 1.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    if num_factors < 1:
        raise InputError(f"num_factors={num_factors}: expected at least 1.")
    batch, height, width, channels = features.shape
    cells = features.reshape(-1, channels)
    finite = jnp.isfinite(cells).all()
    cells = jnp.where(finite, cells, 0)
    offset = cells.min(0)
    rows = (cells - offset[None]).T
    directions, maps = _settled(rows, *_start(rows, num_factors))
    lengths = jnp.sqrt((directions**2).sum(0))
    maps = (maps * lengths[None]).reshape(batch, height, width, num_factors)
    directions = (directions / jnp.where(lengths > 0, lengths, 1)[None]).T
    maps, directions = (jnp.where(finite, array, jnp.nan) for array in (jnp.moveaxis(maps, -1, 1), directions))
    return Factors(maps, directions, offset)


def dff(head_fn: Callable, features: jax.Array, targets: Any, *, num_factors: int = 5) -> jax.Array:
    """For each target the map of one of the factors of its image; `deep_feature_factorization` has the maps of all.

    The factor j with the largest share in the score, to first order: `sum_{y,x} map_j (g . direction_j)`, with
    `g = dS / df`; zeros where no share is above 0. Each image is factored on its own.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.
      num_factors: of each image.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: features of another shape, targets that do not fit the outputs, or num_factors below 1.
    """
    return by_gradients(functools.partial(dff_maps, num_factors=num_factors), head_fn, features, targets)


def dff_maps(features: jax.Array, gradients: jax.Array, *, num_factors: int = 5) -> jax.Array:
    """`dff` from features (B, h, w, K) and gradients (B, N, h, w, K), both float32."""
    factors = one_by_one(lambda image: deep_feature_factorization(image[None], num_factors), features)
    maps = factors.maps[:, 0]
    along = jnp.einsum("bnhwk,bjk->bnjhw", gradients, factors.directions, precision=_EXACT)
    shares = jnp.einsum("bjhw,bnjhw->bnj", maps, along, precision=_EXACT)
    found = jnp.take_along_axis(maps, shares.argmax(-1)[..., None, None], axis=1)
    found = jnp.where((shares > 0).any(-1)[..., None, None], found, 0)
    return jnp.where(jnp.isnan(shares).any(-1)[..., None, None], jnp.nan, found)


def _start(rows, count):
    """(K, P) -> (K, count) and (P, count): a factor for each pair of singular vectors, of its entries of one sign."""
    left, values, right = jnp.linalg.svd(rows, full_matrices=False)
    missing = max(0, count - len(values))
    values = jnp.pad(values, (0, missing))[:count]
    left = jnp.pad(left, ((0, 0), (0, missing)))[:, :count]
    right = jnp.pad(right, ((0, missing), (0, 0)))[:count].T
    # Of the first pair, whose entries are of one sign each, all count.
    first = (jnp.arange(count) == 0)[None]
    ours = [jnp.where(first, jnp.abs(side), jnp.maximum(side, 0)) for side in (left, right)]
    opposite = [jnp.where(first, 0, jnp.maximum(-side, 0)) for side in (left, right)]
    lengths, opposite_lengths = ([jnp.sqrt((side**2).sum(0)) for side in sides] for sides in (ours, opposite))
    share, opposite_share = lengths[0] * lengths[1], opposite_lengths[0] * opposite_lengths[1]
    larger = share > opposite_share
    scale = jnp.sqrt(values * jnp.where(larger, share, opposite_share))
    sides = []
    for one, other, length, other_length in zip(ours, opposite, lengths, opposite_lengths, strict=True):
        side = jnp.where(larger[None], one, other)
        length = jnp.where(larger, length, other_length)
        side = side / jnp.where(length > 0, length, 1)[None] * scale[None]
        sides.append(jnp.where(side < 1e-6, 0, side))
    return sides[0], sides[1]


def _settled(rows, left, right):
    """Factors of (K, P) rows by turns of coordinate descent, until a turn changes little, or after 200."""

    def turn(state):
        left, right, first, _, step = state
        left, moved = _descended(rows, left, right)
        right, moved_too = _descended(rows.T, right, left)
        moved = moved + moved_too
        return left, right, jnp.where(step == 0, moved, first), moved, step + 1

    def goes_on(state):
        *_, first, moved, step = state
        return (step < _STEPS) & ((step == 0) | (moved > _TOLERANCE * first))

    zero, *_ = varying_alike(jnp.zeros((), rows.dtype), rows)
    left, right, *_ = jax.lax.while_loop(goes_on, turn, (left, right, zero, zero, jnp.zeros((), jnp.int32)))
    return left, right


def _descended(rows, left, right):
    """The left factors with the least error, one after the other; and the size of the gradient that was left."""
    squares = jnp.einsum("pi,pj->ij", right, right, precision=_EXACT)
    products = jnp.einsum("kp,pj->kj", rows, right, precision=_EXACT)
    moved = jnp.zeros((), rows.dtype)
    for j in range(left.shape[1]):
        slope = jnp.einsum("ki,i->k", left, squares[:, j], precision=_EXACT) - products[:, j]
        moved = moved + jnp.abs(jnp.where(left[:, j] == 0, jnp.minimum(slope, 0), slope)).sum()
        curve = squares[j, j]
        lower = jnp.maximum(left[:, j] - slope / jnp.where(curve > 0, curve, 1), 0)
        left = left.at[:, j].set(jnp.where(curve > 0, lower, left[:, j]))
    return left, moved
