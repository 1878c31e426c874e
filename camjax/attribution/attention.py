"""What the blocks of a transformer attended to: what methods of attention weights are computed from."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from camjax.errors import InputError


class Attention(NamedTuple):
    """The attention weights of a transformer's blocks, and where its tokens are in the image.

    Attributes:
      weights: of each block, in order, (B, heads, T, T): how much each token (row) takes of each (column), after the
        softmax; rows sum to 1.
      height: patches from top to bottom.
      width: patches from left to right.
      skip: number of tokens before those of the patches: 1 for a class token, 5 with four registers, 0 for none.
      read: (T,), or (B, T): the share of each token in what the head reads. None for the first token alone, the class
        token.
    """

    weights: Sequence[jax.Array]
    height: int
    width: int
    skip: int = 1
    read: jax.Array | None = None

    def reading(self) -> jax.Array:
        """`read` as (B, T) float32.

        Raises:
          ValueError: no block, weights of other shapes, or a number of tokens that is not that of the grid.
        """
        tokens = self.skip + self.height * self.width
        shapes = [array.shape for array in self.weights]
        if not shapes or any(len(shape) != 4 or shape[2:] != (tokens, tokens) for shape in shapes):
            raise InputError(
                f"attention weights of shapes {shapes}: expected for each block (B, heads, {tokens}, {tokens}), with "
                f"{self.skip} tokens before {self.height} x {self.width} patches."
            )
        read = jnp.arange(tokens) == 0 if self.read is None else self.read
        return jnp.broadcast_to(read.astype(jnp.float32), (shapes[0][0], tokens))

    def maps(self, relevance: jax.Array) -> jax.Array:
        """What each token counts for, (B, N, T) -> maps (B, N, height, width)."""
        return relevance[..., self.skip :].reshape(*relevance.shape[:2], self.height, self.width)
