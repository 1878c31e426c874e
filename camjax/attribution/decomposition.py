"""Methods that look for the direction in which a feature map varies most: its first principal component.

`method(head_fn, features, targets) -> maps`, as in `camjax.attribution.gradient_methods`. Maps are signed, each with a
mean of 0, and do not sum to the score.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from camjax.attribution.gradients import images_first, output_gradients
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
    outputs = jax.eval_shape(head_fn, features)
    count = jax.eval_shape(as_target(targets, outputs), outputs).shape[1]
    return _for_each_target(features, count)


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
    features = images_first(features, "features", "(B, h, w, K)")
    _, gradients = output_gradients(head_fn, features)
    return eigen_grad_cam_maps(features, gradients(targets))


@jax.jit
def principal_component(terms: jax.Array) -> jax.Array:
    """Each cell's coordinate along the direction in channel space in which the cells vary most.

    `(t(y, x) - mean t) . v`, where v is the first right singular vector of the h * w rows `t - mean t`. Eigen-CAM's
    authors leave the mean in, so that v mostly points to it; pytorch-grad-cam takes it out, as is done here.

    A singular vector's sign is arbitrary. Here the map has a positive correlation with the sum of the terms over the
    channels, which is to say that the entries of v have a positive sum. Where the two are uncorrelated (|sum| <= 0.001,
    as after a layer normalization, where each cell's channels sum to 0), the cell furthest from 0 is positive.

    Args:
      terms: (..., h, w, K) t of any float dtype.

    Returns:
      (..., h, w) float32. Terms that are the same in all cells give zeros; those that hold NaN or infinity, NaN.
    """
    *lead, height, width, channels = terms.shape
    cells = terms.reshape(*lead, height * width, channels).astype(jnp.float32)
    finite = jnp.isfinite(cells).all((-2, -1))
    cells = jnp.where(finite[..., None, None], cells, 0)
    # Differences first: those of equal cells are exactly 0, where subtracting a rounded mean may not be.
    cells = cells - cells[..., :1, :]
    cells = cells - cells.mean(-2, keepdims=True)
    # Squares of small or large terms would leave the range of float32.
    scale = jnp.abs(cells).max((-2, -1), keepdims=True)
    cells = cells / jnp.where(scale > 0, scale, 1)
    if height * width <= channels:
        products = jnp.einsum("...pk,...qk->...pq", cells, cells, precision=_EXACT)
        values, vectors = jnp.linalg.eigh(products)
        component = jnp.sqrt(jnp.maximum(values[..., -1:], 0)) * vectors[..., -1]
    else:
        products = jnp.einsum("...pk,...pl->...kl", cells, cells, precision=_EXACT)
        component = jnp.einsum("...pk,...k->...p", cells, jnp.linalg.eigh(products)[1][..., -1], precision=_EXACT)
    squares = (component**2).sum(-1, keepdims=True)
    agreement = (component * cells.sum(-1)).sum(-1, keepdims=True) / jnp.where(squares > 0, squares, 1)
    furthest = jnp.take_along_axis(component, jnp.abs(component).argmax(-1, keepdims=True), -1)
    decides = jnp.where(jnp.abs(agreement) > _UNDECIDED, agreement, furthest)
    component = jnp.where(decides < 0, -component, component) * scale[..., 0]
    return jnp.where(finite[..., None], component, jnp.nan).reshape(*lead, height, width)


def eigen_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`eigen_cam`, with the number of maps from the gradients (B, N, h, w, K), which are not used otherwise."""
    return _for_each_target(features, gradients.shape[1])


def eigen_grad_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`eigen_grad_cam` from features (B, h, w, K) and gradients (B, N, h, w, K), both float32."""
    return principal_component(features[:, None] * gradients)


def _for_each_target(features, count):
    maps = principal_component(features)
    return jnp.broadcast_to(maps[:, None], (maps.shape[0], count, *maps.shape[1:]))
