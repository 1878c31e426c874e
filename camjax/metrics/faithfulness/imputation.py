"""Noisy linear imputation: removed pixels become weighted means of their neighbors (Rong et al. 2022).

Each missing pixel p has the equation `sum_n w_pn (x_n - x_p) = 0` over its up to eight neighbors inside of the image,
with weights of 1/6 for those above, below and beside it and 1/12 for diagonal ones (section 4 of the paper, and its
published code). It is a sparse linear system, symmetric and positive definite as long as any pixel is known.

It is solved by conjugate gradients, with a preconditioner that sees the hole at all scales at once: the residual is
summed over blocks of 1, 2, 4, ... pixels a side, divided by the system's energy in each block, and given back to its
pixels (additive multilevel preconditioning, Bramble, Pasciak and Xu 1990, with constant functions on blocks).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from camjax.attribution.decomposition import one_by_one
from camjax.errors import InputError

TOLERANCE = 1e-6
"""Where iterations stop: norm of the residual, as a share of that of the right-hand side."""

_MAX_ITERATIONS = 2000


@jax.jit
def linear_imputation(images: jax.Array, missing: jax.Array) -> jax.Array:
    """Fills missing pixels with weighted means of their neighbors (Rong et al. 2022, section 4), without noise.

    The values x of missing pixels p solve `sum_n w_pn (x_n - x_p) = 0` over their up to eight neighbors n, with w of
    1/6 above, below and beside, and 1/12 for diagonal ones: smooth continuations of the known pixels around. A jitted
    function, for use inside another jit too.

    Args:
      images: (B, H, W, C) of any range, as the network takes them; the values of missing pixels do not matter, but have
        to be finite.
      missing: (B, H, W) bool. At least one pixel of each image has to be known; otherwise all become 0.

    Returns:
      (B, H, W, C) float32: known pixels as they are.

    Raises:
      ValueError: shapes that do not fit each other.
    """
    images, missing = jnp.asarray(images), jnp.asarray(missing)
    if images.ndim != 4 or missing.shape != images.shape[:3]:
        raise InputError(
            f"images of shape {images.shape} and missing of shape {missing.shape}: expected (B, H, W, C) and (B, H, W)."
        )
    # On CPUs, rows in turn need half the time of a batch, which computes for all until the slowest has converged.
    filled = one_by_one(_fill, jnp.moveaxis(images.astype(jnp.float32), -1, 1), missing)
    return jnp.where(missing[..., None], jnp.moveaxis(filled, 1, -1), images.astype(jnp.float32))


def _fill(image: jax.Array, missing: jax.Array) -> jax.Array:
    """(C, H, W) image, (H, W) missing -> (C, H, W): the solution where missing, else 0."""
    levels = int(np.log2(max(missing.shape)))
    size = missing.shape
    missing = missing[None]
    hole = _padded(missing.astype(jnp.float32), levels)
    # Relative to the mean of the known pixels: rounding errors grow with the size of the values.
    known = 1 - missing.astype(jnp.float32)
    mean = (image * known).sum((1, 2), keepdims=True) / jnp.maximum(known.sum(), 1)
    right = _padded(_neighbors((image - mean) * known), levels) * hole
    degree = _padded(_neighbors(jnp.ones((1, *size), jnp.float32)), levels)

    def apply(x):
        return hole * (degree * x - _neighbors(x * hole))

    solution, _ = jax.scipy.sparse.linalg.cg(
        apply,
        right,
        tol=TOLERANCE,
        maxiter=_MAX_ITERATIONS,
        M=functools.partial(_precondition, hole, _inverse_energies(hole, degree, levels)),
    )
    return jnp.where(missing, solution[:, : size[0], : size[1]] + mean, 0)


def _neighbors(x: jax.Array) -> jax.Array:
    """(..., H, W) -> the weighted sum of each pixel's neighbors, those outside counting 0."""
    # The 3 x 3 kernel is [1, 2, 1] along either axis, over 12, without its center.
    summed = x
    for axis in (-2, -1):
        widths = [(0, 0)] * x.ndim
        widths[axis] = (1, 1)
        padded = jnp.pad(summed, widths)
        before, after = (jax.lax.slice_in_dim(padded, at, at + x.shape[axis], axis=axis) for at in (0, 2))
        summed = before + 2 * summed + after
    return (summed - 4 * x) / 12


def _padded(x: jax.Array, levels: int) -> jax.Array:
    """(..., H, W) -> sides that are multiples of the largest block's, with zeros."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, -side % 2**levels) for side in x.shape[-2:]])


def _inverse_energies(hole: jax.Array, degree: jax.Array, levels: int) -> list[jax.Array]:
    """For blocks of 1, 2, 4, ... pixels a side, (1, h, w) of 1 / (e A e), e the missing pixels; 0 where none are."""
    inverses = []
    for level in range(levels + 1):
        side = 2**level
        blocks = hole.reshape(hole.shape[1] // side, side, hole.shape[2] // side, side).swapaxes(1, 2)
        degrees = degree.reshape(blocks.shape[0], side, blocks.shape[1], side).swapaxes(1, 2)
        energy = (blocks * (degrees - _neighbors(blocks))).sum((2, 3))
        # 0, up to rounding errors, of a block without missing pixels or without neighbors outside: it is left out.
        inverses.append(jnp.where(energy > 1e-3, 1 / jnp.maximum(energy, 1e-3), 0)[None])
    return inverses


def _precondition(hole: jax.Array, inverses: list[jax.Array], residual: jax.Array) -> jax.Array:
    """(C, H, W) residual -> the sum over all block sizes of its means; symmetric and positive definite on the hole."""
    residuals = [residual * hole]
    for _ in inverses[1:]:
        height, width = residuals[-1].shape[1:]
        residuals.append(residuals[-1].reshape(-1, height // 2, 2, width // 2, 2).sum((2, 4)))
    total = residuals[-1] * inverses[-1]
    for of_level, inverse in zip(residuals[-2::-1], inverses[-2::-1], strict=True):
        total = of_level * inverse + jnp.repeat(jnp.repeat(total, 2, axis=1), 2, axis=2)
    return total * hole
