"""Finer-CAM: Grad-CAM of what tells a class from those that look like it."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from camjax.attribution.gradient_methods import grad_cam
from camjax.attribution.targets import finer


def finer_cam(
    head_fn: Callable,
    features: jax.Array,
    class_ids: Any,
    *,
    similar: Any = None,
    num_similar: int = 3,
    strength: float = 1.0,
    weights: Literal["probability", "mean"] = "probability",
) -> jax.Array:
    """Finer-CAM (Zhang et al. 2025): `grad_cam` of `camjax.attribution.targets.finer`, where its formula is.

    With that target every other method becomes a finer one as well: `layer_cam(head_fn, features, targets.finer(ids))`.

    Args:
      head_fn: features -> outputs (B, C), C at least 2.
      features: (B, h, w, K).
      class_ids: (B,) or (B, N).
      similar: the look-alikes; None for the classes of the closest outputs.
      num_similar: how many these are.
      strength: how much of the look-alikes' score is taken away.
      weights: "probability" or "mean".

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: features of another shape, or what `targets.finer` and its target raise.
    """
    options = {"similar": similar, "num_similar": num_similar, "strength": strength, "weights": weights}
    return grad_cam(head_fn, features, finer(class_ids, **options))
