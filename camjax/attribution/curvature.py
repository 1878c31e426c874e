"""Shapley-CAM: weights of channels from gradients and from how the gradients themselves change."""

from collections.abc import Callable
from typing import Any

import jax

from camjax.attribution.gradient_methods import weighted_sum
from camjax.attribution.gradients import hessian_products, images_first


def shapley_cam(head_fn: Callable, features: jax.Array, targets: Any) -> jax.Array:
    """Shapley-CAM (Cai 2025, "CAMs as Shapley Value-based Explainers").

    `a_k = mean_{y,x} (g - H f / 2)_k(y, x)`, with the gradient `g = dS / df` and the Hessian `H = d2S / df2`; the
    map is `relu(sum_k a_k f_k)`, as in pytorch-grad-cam. The weights estimate the Shapley values of the channels by the
    second order of the score. Where H is 0, as behind a pooled linear head, this is Grad-CAM: the paper explains
    `camjax.attribution.targets.residual_softmax`, which is curved, in place of the score.

    Args:
      head_fn: features -> outputs, twice differentiable.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    return shapley_cam_maps(features, *hessian_products(head_fn, features, targets))


def shapley_cam_maps(features: jax.Array, gradients: jax.Array, products: jax.Array) -> jax.Array:
    """`shapley_cam` from gradients and products of the Hessian with the features, both (B, N, h, w, K)."""
    return jax.nn.relu(weighted_sum(features, (gradients - products / 2).mean((2, 3))))
