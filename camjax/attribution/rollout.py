"""Attention rollout: how much of each patch arrives at the head, if attention is all that moves it."""

import jax
import jax.numpy as jnp

from camjax.attribution.attention import Attention


def attention_rollout(attention: Attention) -> jax.Array:
    """Attention rollout (Abnar and Zuidema 2020, section 3.1): the same map for all classes.

    With the mean over heads `A_l` of block l, `R = (A_L + I) / 2 ... (A_1 + I) / 2`: the identity stands for the
    shortcut around the attention. The map is the class token's row of R, of the patches' columns; where tokens are
    averaged the mean of the patches' rows. A whole row sums to 1.

    Args:
      attention: of a transformer's blocks.

    Returns:
      (B, 1, h, w) float32, not negative.

    Raises:
      ValueError: weights that do not fit the grid of patches.
    """
    row = attention.reading()
    for weights in reversed(attention.weights):
        row = (row + jnp.einsum("bt,bts->bs", row, weights.astype(jnp.float32).mean(1), precision="highest")) / 2
    return attention.maps(row[:, None])


def attention_rollout_maps(attention: Attention, gradients) -> jax.Array:
    """`attention_rollout`, which needs no gradients."""
    return attention_rollout(attention)
