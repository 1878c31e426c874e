"""LeGrad: which patches' attention would raise the score that each block's tokens already have."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from camjax.attribution.attention import Attention
from camjax.errors import InputError


def legrad(attention: Attention, gradients: Sequence[jax.Array], *, num_blocks: int | None = None) -> jax.Array:
    """LeGrad (Bousselham et al. 2024, arXiv:2404.03214): the positive gradients of the blocks' own scores.

    Block l's tokens, averaged over all of them, go through the network's last normalization and head: they have the
    score s_l. With the block's attention weights A_l the map is
    `mean_l mean_heads mean_queries relu(ds_l / dA_l)`, of the patches as keys. The weights themselves take no part. The
    gradient goes through block l alone: its attention's values and its MLP.

    Args:
      attention: of a transformer's blocks.
      gradients: of each block's own score with respect to its weights, (B, N, heads, T, T).
      num_blocks: how many of the last blocks count; None for all of them. torch-cam asks for the blocks; the authors'
        code takes the last two by default.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: weights that do not fit the grid of patches, or a number of blocks that the network does not have.
    """
    attention.reading()  # checks the shapes
    total = len(gradients)
    count = total if num_blocks is None else num_blocks
    if not 1 <= count <= total:
        raise InputError(f"num_blocks={num_blocks}: expected 1..{total}, the number of the network's blocks.")
    return attention.maps(jnp.stack([jax.nn.relu(of_block).mean((2, 3)) for of_block in gradients[-count:]]).mean(0))
