"""What the functions of images return."""

from typing import NamedTuple

import jax


class CamOutput(NamedTuple):
    """What `cam_fn` returns, for B images, C classes in all and N asked for.

    Attributes:
      logits: (B, C) float32.
      class_ids: (B, N) int32.
      maps: (B, N, h, w) float32: raw maps, as the method defines them: neither clipped nor normalized.
    """

    logits: jax.Array
    class_ids: jax.Array
    maps: jax.Array


class Localization(NamedTuple):
    """What a `localize_fn` returns, for B images, C classes in all and N asked for.

    Attributes:
      logits: (B, C) float32.
      class_ids: (B, N) int32.
      maps: (B, N, h, w) float32: raw maps.
      boxes: (B, N, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1; zeros where not valid.
      valid: (B, N) bool: whether the map has a region, which it has if its maximum is positive and it holds no NaN.
    """

    logits: jax.Array
    class_ids: jax.Array
    maps: jax.Array
    boxes: jax.Array
    valid: jax.Array
