"""Attention-based dropout layers (Choe and Shim 2019, arXiv:1908.10028): in training only."""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.errors import InputError
from camjax.models.wsol.method import SAME_ON_ALL_DEVICES, WsolMethod, stage_channels, stream


class AttentionDropout(WsolMethod):
    """In training, each place of the network multiplies its features by a drop mask or by an importance map.

    Inference is the plain network. One draw holds for the whole batch, on all devices; each place has its own.

    Args:
      model: that it becomes a part of; `wsol_places.adl` says where.
      threshold: share of the maximum of an image's attention above which its cells are dropped.
      drop_rate: probability of the drop mask.
      rngs: random keys.
    """

    def __init__(self, model, *, threshold: float, drop_rate: float, rngs: nnx.Rngs):
        self.threshold, self.drop_rate = threshold, drop_rate
        self.places = model.wsol_places.adl
        self.deterministic = False
        self.rngs = stream(rngs, SAME_ON_ALL_DEVICES)
        if missing := set(self.places) - {"features", *stage_channels(model)}:
            raise InputError(
                f"adl with {type(model).__name__}: its wsol_places.adl names {', '.join(sorted(missing))}. Expected "
                f'"features" or names of its stage_maps: {", ".join(stage_channels(model))}.'
            )

    def at(self, place: str, x: jax.Array) -> jax.Array:
        """The features of a place, (B, h, w, K)."""
        if self.deterministic or place not in self.places:
            return x
        dropped = jax.random.bernoulli(self.rngs(), jnp.float32(self.drop_rate))
        return attention_dropout(x, dropped, self.threshold)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Used by `nnx.view`: whether the layers do nothing, as in inference."""
        if deterministic is not None:
            self.deterministic = deterministic


def attention_dropout(x: jax.Array, dropped: jax.Array, threshold: float) -> jax.Array:
    """Multiplies features by a map of their attention, the mean over channels.

    Args:
      x: (B, h, w, K).
      dropped: () bool: by 1 where the attention is below `threshold` times its maximum in the image and 0 elsewhere;
        otherwise by the sigmoid of the attention.
      threshold: as above.

    Returns:
      (B, h, w, K) in the dtype of x.
    """
    attention = x.astype(jnp.float32).mean(-1, keepdims=True)
    mask = attention < threshold * attention.max((1, 2), keepdims=True)
    return x * jnp.where(dropped, mask.astype(jnp.float32), jax.nn.sigmoid(attention)).astype(x.dtype)
