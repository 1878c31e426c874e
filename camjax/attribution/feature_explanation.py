"""FEM, the feature explanation method: channels count by how often they are unusually strong."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from camjax.attribution.decomposition import for_each_target, number_of_targets
from camjax.attribution.gradients import images_first


def fem(head_fn: Callable, features: jax.Array, targets: Any, *, deviations: float = 2.0) -> jax.Array:
    """FEM (Fuad et al. 2020, "Features Understanding in 3D CNNs"): the same map for every target.

    `a_k` is the share of cells where channel k is above its mean by more than `deviations` standard deviations of it;
    the map is `sum_k a_k f_k`. No gradient is taken; the head says how many targets there are.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.
      deviations: k of the paper's "k-sigma rule".

    Returns:
      (B, N, h, w) float32, of the features' sign.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    return for_each_target(_fem(features, deviations), number_of_targets(head_fn, features, targets))


def fem_maps(features: jax.Array, gradients: jax.Array, *, deviations: float = 2.0) -> jax.Array:
    """`fem`, with the number of maps from the gradients (B, N, h, w, K), which are not used otherwise."""
    return for_each_target(_fem(features, deviations), gradients.shape[1])


def _fem(features, deviations):
    # Differences first: those of equal cells are exactly 0, where subtracting a rounded mean may not be.
    centered = features - features[:, :1, :1]
    centered = centered - centered.mean((1, 2), keepdims=True)
    spread = jnp.sqrt((centered**2).mean((1, 2), keepdims=True))
    weights = (centered > deviations * spread).astype(jnp.float32).mean((1, 2))
    return jnp.einsum("bhwk,bk->bhw", features, weights, precision=jax.lax.Precision.HIGHEST)
