"""Methods that look for the direction in which a feature map varies most: its first principal component.

Kernel PCA finds the direction among functions of the channels, instead of sums of them.

`method(head_fn, features, targets) -> maps`, as in `camjax.attribution.gradient_methods`. Maps are signed, each with a
mean of 0, and do not sum to the score.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from camjax.attribution.gradients import by_gradients, images_first
from camjax.attribution.targets import as_target

_EXACT = jax.lax.Precision.HIGHEST

_UNDECIDED = 1e-3
"""The sum of a unit vector's entries below which its sign may be due to rounding."""


def eigen_cam(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """Eigen-CAM (Muhammad and Yeasin 2020): `principal_component(f)`, the same map for every target.

    No gradient is taken; the head says how many targets there are.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.

    Returns:
      (B, N, h, w) float32, signed.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    return for_each_target(principal_component(features), number_of_targets(head_fn, features, targets))


def kpca_cam(head_fn: Callable, features: jax.Array, targets, *, gamma: float | None = None) -> jax.Array:
    """KPCA-CAM (Karmani et al. 2024): `kernel_component(f)`, the same map for every target.

    No gradient is taken; the head says how many targets there are. The kernel has a row for each cell: a map of
    thousands of cells takes long.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.
      gamma: of the kernel; 1 / K for None.

    Returns:
      (B, N, h, w) float32, signed.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    return for_each_target(kernel_component(features, gamma), number_of_targets(head_fn, features, targets))


def seg_eigen_cam(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """Seg-Eigen-CAM (Chung and Ying 2025, eqs. 10 to 13): the principal component of `|g_k| f_k`, with `g = dS / df`.

    Its sign is the paper's: the cell furthest from 0 is positive. Made for segmentation, with a target such as
    `camjax.attribution.targets.region`; it works with any.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.

    Returns:
      (B, N, h, w) float32, signed.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    return by_gradients(seg_eigen_cam_maps, head_fn, features, targets)


def eigen_grad_cam(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """Eigen-Grad-CAM (as pytorch-grad-cam has it): `principal_component(f_k g_k)`, with `g = dS / df`.

    The terms are HiResCAM's, whose map is their sum over the channels: this one agrees with it in sign.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.

    Returns:
      (B, N, h, w) float32, signed.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    return by_gradients(eigen_grad_cam_maps, head_fn, features, targets)


@functools.partial(jax.jit, static_argnames="by_furthest_cell")
def principal_component(terms: jax.Array, by_furthest_cell: bool = False) -> jax.Array:
    """Each cell's coordinate along the direction in channel space in which the cells vary most.

    `(t(y, x) - mean t) . v`, where v is the first right singular vector of the h * w rows `t - mean t`. Eigen-CAM's
    authors leave the mean in, so that v mostly points to it; pytorch-grad-cam takes it out, as is done here.

    A singular vector's sign is arbitrary. Here the map has a positive correlation with the sum of the terms over the
    channels, which is to say that the entries of v have a positive sum. Where the two are uncorrelated (|sum| <= 0.001,
    as after a layer normalization, where each cell's channels sum to 0), the cell furthest from 0 is positive.

    Args:
      terms: (..., h, w, K) t of any float dtype.
      by_furthest_cell: whether the cell furthest from 0 decides the sign always.

    Returns:
      (..., h, w) float32. Terms that are the same in all cells give zeros; those that hold NaN or infinity, NaN.
    """
    cells, finite, scale = _centered(terms)
    if cells.shape[-2] <= cells.shape[-1]:
        products = jnp.einsum("...pk,...qk->...pq", cells, cells, precision=_EXACT)
        component = _largest(products)
    else:
        products = jnp.einsum("...pk,...pl->...kl", cells, cells, precision=_EXACT)
        component = jnp.einsum("...pk,...k->...p", cells, _last_eigenvector(products)[1], precision=_EXACT)
    squares = (component**2).sum(-1, keepdims=True)
    agreement = (component * cells.sum(-1)).sum(-1, keepdims=True) / jnp.where(squares > 0, squares, 1)
    component = _signed(component, jnp.zeros_like(agreement) if by_furthest_cell else agreement) * scale[..., 0]
    return jnp.where(finite[..., None], component, jnp.nan).reshape(terms.shape[:-1])


@jax.jit
def kernel_component(terms: jax.Array, gamma: float | None = None) -> jax.Array:
    """Each cell's coordinate along the first component of a kernel PCA with a sigmoid kernel (Schoelkopf et al. 1998).

    With rows c of the h * w centered cells, the kernel is `tanh(gamma c_p . c_q + 1)`, centered; the map is its
    eigenvector of the largest eigenvalue, times the eigenvalue's square root. The sign follows the rule of
    `principal_component`, with the correlation itself for the sum of the entries.

    Args:
      terms: (..., h, w, K) of any float dtype.
      gamma: 1 / K for None, as in scikit-learn.

    Returns:
      (..., h, w) float32. Terms that are the same in all cells give zeros; those that hold NaN or infinity, NaN.
    """
    cells, finite, scale = _centered(terms)
    gamma = 1 / terms.shape[-1] if gamma is None else gamma
    products = jnp.einsum("...pk,...qk->...pq", cells, cells, precision=_EXACT) * scale**2 * gamma
    # tanh(a + 1) less tanh(1), which centering takes away: small a would be lost in it.
    tanh, one = jnp.tanh(products), math.tanh(1)
    kernel = tanh * (1 - one**2) / (1 + one * tanh)
    kernel = kernel - kernel.mean(-1, keepdims=True)
    component = _largest(kernel - kernel.mean(-2, keepdims=True))
    sums = cells.sum(-1)
    lengths = jnp.sqrt((component**2).sum(-1, keepdims=True) * (sums**2).sum(-1, keepdims=True))
    agreement = (component * sums).sum(-1, keepdims=True) / jnp.where(lengths > 0, lengths, 1)
    return jnp.where(finite[..., None], _signed(component, agreement), jnp.nan).reshape(terms.shape[:-1])


def _centered(terms):
    """(..., h, w, K) -> (..., h * w, K) less their mean, in -1..1; whether all are finite; what divided them."""
    *lead, height, width, channels = terms.shape
    cells = terms.reshape(*lead, height * width, channels).astype(jnp.float32)
    finite = jnp.isfinite(cells).all((-2, -1))
    cells = jnp.where(finite[..., None, None], cells, 0)
    # Differences first: those of equal cells are exactly 0, where subtracting a rounded mean may not be.
    cells = cells - cells[..., :1, :]
    cells = cells - cells.mean(-2, keepdims=True)
    # Squares of small or large terms would leave the range of float32.
    scale = jnp.abs(cells).max((-2, -1), keepdims=True)
    scale = jnp.where(scale > 0, scale, 1)
    return cells / scale, finite, scale


def _largest(products):
    """Symmetric (..., P, P) -> (..., P) the eigenvector of the largest eigenvalue, times its square root."""
    value, vector = _last_eigenvector(products)
    return jnp.sqrt(jnp.maximum(value, 0)) * vector


def _last_eigenvector(products):
    """Symmetric (..., P, P) -> the largest eigenvalue (..., 1) and its eigenvector (..., P)."""

    def of_one(matrix):
        values, vectors = jnp.linalg.eigh(matrix)
        return values[-1:], vectors[:, -1]

    side = products.shape[-1]
    value, vector = one_by_one(of_one, products.reshape(-1, side, side))
    return value.reshape(*products.shape[:-2], 1), vector.reshape(products.shape[:-1])


def one_by_one(function: Callable, *arrays: jax.Array) -> Any:
    """`jax.vmap(function)(*arrays)`, on CPUs one row after the other.

    Of a batch, jaxlib's LAPACK waits for threads of the pool that it runs on itself, and two of them in one program
    wait for each other forever on a machine of two cores (jaxlib 0.10.2).
    """

    def in_turn(*arrays):
        return jax.lax.map(lambda row: function(*row), arrays)

    return jax.lax.platform_dependent(*arrays, cpu=in_turn, default=jax.vmap(function))


def _signed(component, agreement):
    """(..., P), with the sign that makes the agreement (..., 1) positive, or without one the entry furthest from 0."""
    furthest = jnp.take_along_axis(component, jnp.abs(component).argmax(-1, keepdims=True), -1)
    decides = jnp.where(jnp.abs(agreement) > _UNDECIDED, agreement, furthest)
    return jnp.where(decides < 0, -component, component)


def eigen_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`eigen_cam`, with the number of maps from the gradients (B, N, h, w, K), which are not used otherwise."""
    return for_each_target(principal_component(features), gradients.shape[1])


def kpca_cam_maps(features: jax.Array, gradients: jax.Array, *, gamma: float | None = None) -> jax.Array:
    """`kpca_cam`, with the number of maps from the gradients (B, N, h, w, K), which are not used otherwise."""
    return for_each_target(kernel_component(features, gamma), gradients.shape[1])


def seg_eigen_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`seg_eigen_cam` from features (B, h, w, K) and gradients (B, N, h, w, K), both float32."""
    return principal_component(features[:, None] * jnp.abs(gradients), by_furthest_cell=True)


def eigen_grad_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`eigen_grad_cam` from features (B, h, w, K) and gradients (B, N, h, w, K), both float32."""
    return principal_component(features[:, None] * gradients)


def for_each_target(maps: jax.Array, count: int) -> jax.Array:
    """(B, h, w) maps that no target changes -> (B, count, h, w)."""
    return jnp.broadcast_to(maps[:, None], (maps.shape[0], count, *maps.shape[1:]))


def number_of_targets(head_fn: Callable, features: jax.Array, targets) -> int:
    """N of targets; ValueError for those that do not fit the outputs. The head is traced, and not run."""
    outputs = jax.eval_shape(head_fn, features)
    return jax.eval_shape(as_target(targets, outputs), outputs).shape[1]
