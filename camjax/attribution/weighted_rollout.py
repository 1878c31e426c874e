"""Gradient rollout: attention weights that raise a score, followed through the blocks."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from camjax.attribution.attention import Attention


def gradient_rollout(attention: Attention, gradients: Sequence[jax.Array]) -> jax.Array:
    """Attention times its gradient, rolled through the blocks (Chefer et al. 2021, arXiv:2103.15679, eqs. 5 and 6).

    With the weights A_l of block l and the gradients G_l of the score with respect to them,
    `C_l = mean_heads relu(G_l A_l)` and `R = (I + C_L) ... (I + C_1)`. The map is the class token's row of R, of the
    patches' columns; where tokens are averaged the mean of the patches' rows.

    Args:
      attention: of a transformer's blocks.
      gradients: of each block, (B, N, heads, T, T).

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: weights that do not fit the grid of patches.
    """
    row = jnp.broadcast_to(attention.reading()[:, None], (*gradients[0].shape[:2], gradients[0].shape[-1]))
    for weights, of_block in zip(reversed(attention.weights), reversed(gradients), strict=True):
        raising = jax.nn.relu(of_block * weights[:, None].astype(jnp.float32)).mean(2)
        row = row + jnp.einsum("bnt,bnts->bns", row, raising, precision="highest")
    return attention.maps(row)
