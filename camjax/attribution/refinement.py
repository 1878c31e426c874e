"""RefineCAM: the maps of several layers multiplied, so that deep ones say what and shallow ones say where."""

from collections.abc import Callable
from typing import Any

import jax

from camjax.attribution.engine import combine_layers
from camjax.attribution.gradient_methods import grad_cam_plus_plus_maps
from camjax.attribution.gradients import images_first, output_gradients


def refine_cam(head_fn: Callable, features: Any, targets: Any) -> jax.Array:
    """RefineCAM (Domeniconi et al. 2026): the product of several layers' Grad-CAM++ maps, each scaled to 0..1.

    `combine_layers(maps, "product")`: 0 wherever one of the layers sees nothing.

    Args:
      head_fn: features -> outputs.
      features: of several layers, a tuple of (B, h, w, K), or of one.
      targets: class ids (B,) or (B, N), or a function of the outputs.

    Returns:
      (B, N, h, w) float32 in 0..1, at the size of the largest layer.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    features = jax.tree.map(lambda array: images_first(array, "features", "(B, h, w, K)"), features)
    _, gradients = output_gradients(head_fn, features)
    maps = jax.tree.map(grad_cam_plus_plus_maps, features, gradients(targets))
    return combine_layers(jax.tree.leaves(maps), "product")
