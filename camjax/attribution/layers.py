"""Maps of several layers, put together as one."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from camjax.cam import normalize_map, resize_map


def combine_layers(maps: Sequence[jax.Array], mode: Literal["mean", "max"] = "mean") -> jax.Array:
    """The mean, or the maximum, of maps of several layers.

    Each is resized (bilinear, half-pixel centers) to the largest of them and divided by its own maximum, for layers
    differ in scale (Jiang et al. 2021, section III-D, scale early layers for the maximum).

    Args:
      maps: for each layer (B, N, h, w); sizes may differ. Negative values are set to zero.
      mode: "mean" or "max".

    Returns:
      (B, N, h', w') float32 in 0..1, at the largest height and width of all.

    Raises:
      ValueError: no maps, or another mode.
    """
    if not maps or mode not in ("mean", "max"):
        raise ValueError(f"{len(maps)} maps, and mode {mode!r}: expected at least one, and 'mean' or 'max'.")
    size = max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)
    scaled = jnp.stack([normalize_map(resize_map(jax.nn.relu(m), size), mode="max") for m in maps])
    return scaled.mean(0) if mode == "mean" else scaled.max(0)
