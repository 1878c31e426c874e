"""What vision transformers are made of: sizes, blocks of attention and dense layers, and positions of patches."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.layers import softmax_times


class Size(NamedTuple):
    """How large a transformer is.

    Attributes:
      width: K of the tokens.
      depth: number of blocks.
      heads: number of attention heads, each of width / heads numbers.
      hidden: numbers of the hidden layer of a block's two dense layers.
    """

    width: int
    depth: int
    heads: int
    hidden: int


# Tiny, small and base of Touvron et al. 2021, table 1; the others are timm's.
SIZES = {
    "tiny": Size(192, 12, 3, 768),
    "wee": Size(256, 14, 4, 1280),
    "little": Size(320, 14, 5, 1792),
    "small": Size(384, 12, 6, 1536),
    "medium": Size(512, 12, 8, 2048),
    "betwixt": Size(640, 12, 10, 2560),
    "base": Size(768, 12, 12, 3072),
}

HIGHEST = jax.lax.Precision.HIGHEST
narrow = nnx.initializers.truncated_normal(0.02)


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x sigmoid(1.702 x)`, in place of GELU in OpenAI's CLIP (Radford et al. 2021)."""
    return x * jax.nn.sigmoid(1.702 * x)


def token_layernorm(features: int, epsilon: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """A LayerNorm that computes in float32."""
    return nnx.LayerNorm(features, epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)


class AttentionWeights(nnx.Module):
    """How much each token attends to each other one: a layer of its own, so that methods find its output."""

    def __call__(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
        """(B, heads, T', d) queries and (B, heads, T, d) keys -> (B, heads, T', T), whose last axis has the sum 1."""
        return jax.nn.softmax(_scores(queries, keys), axis=-1).astype(queries.dtype)

    def mixed(
        self,
        queries: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        wanted: int | None = None,
        kept: list[jax.Array] | None = None,
    ) -> jax.Array:
        """The weights of the first `wanted` queries times (B, heads, T, d) values -> (B, heads, wanted, d).

        All weights are computed only where someone reads them: `kept`, if given, gets them; or a method has given this
        layer another `__call__`, which keeps them or puts others in their place.
        """
        if kept is None and type(self).__call__ is AttentionWeights.__call__:
            return softmax_times(_scores(queries[:, :, :wanted], keys), values)
        weights = self(queries, keys)
        if kept is not None:
            kept.append(weights)
        return jnp.matmul(weights[:, :, :wanted], values)


def _scores(queries: jax.Array, keys: jax.Array) -> jax.Array:
    products = jnp.matmul(queries * queries.shape[-1] ** -0.5, keys.swapaxes(-1, -2))
    return products.astype(jnp.float32)


class Attention(nnx.Module):
    """Self-attention of several heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, size: Size, *, dtype, rngs):
        self.qkv = nnx.Linear(size.width, 3 * size.width, kernel_init=narrow, dtype=dtype, rngs=rngs)
        self.weights = AttentionWeights()
        self.project = nnx.Linear(size.width, size.width, kernel_init=narrow, dtype=dtype, rngs=rngs)
        self.heads = size.heads

    def __call__(self, x: jax.Array, wanted: int | None = None, kept: list[jax.Array] | None = None) -> jax.Array:
        """(B, T, K) -> (B, T, K), or of the first `wanted` tokens; `kept`, if given, gets the weights."""
        batch, count, _ = x.shape
        # Heads in front of tokens: XLA on CPUs takes three times as long for products over other orders of axes.
        queries, keys, values = self.qkv(x).reshape(batch, count, 3, self.heads, -1).transpose(2, 0, 3, 1, 4)
        mixed = self.weights.mixed(queries, keys, values, wanted, kept).swapaxes(1, 2)
        return self.project(mixed.reshape(*mixed.shape[:2], -1))


class Block(nnx.Module):
    """LayerNorm, attention, a shortcut; LayerNorm, two dense layers, a shortcut (Dosovitskiy et al. 2021, eqs. 2, 3).

    Args:
      size: of the transformer.
      layer_scale: what both outputs are multiplied by at first, channel by channel (Touvron et al. 2021,
        arXiv:2103.17239); None for no such factors.
      activation: between the dense layers.
      epsilon: of the LayerNorms.
      dtype, rngs: as in `camjax.create_model`.
    """

    def __init__(self, size: Size, *, layer_scale: float | None, activation: Callable, epsilon: float, dtype, rngs):
        self.norm1 = token_layernorm(size.width, epsilon, rngs)
        self.attention = Attention(size, dtype=dtype, rngs=rngs)
        self.norm2 = token_layernorm(size.width, epsilon, rngs)
        self.expand = nnx.Linear(size.width, size.hidden, kernel_init=narrow, dtype=dtype, rngs=rngs)
        self.project = nnx.Linear(size.hidden, size.width, kernel_init=narrow, dtype=dtype, rngs=rngs)
        self.scale1, self.scale2 = (
            None if layer_scale is None else nnx.Param(jnp.full((size.width,), layer_scale)) for _ in range(2)
        )
        self.activation = activation
        self.dtype = dtype

    def __call__(
        self,
        x: jax.Array,
        normed: jax.Array | None = None,
        wanted: int | None = None,
        kept: list[jax.Array] | None = None,
    ) -> jax.Array:
        """(B, T, K) -> (B, T, K).

        Args:
          x: tokens.
          normed: what the first LayerNorm made of them, if it is known.
          wanted: of how many tokens, the first ones, the output is; None for all.
          kept: as in `Attention`.
        """
        normed = self.norm1(x) if normed is None else normed
        attended = self.attention(normed.astype(self.dtype), wanted, kept)
        x = x[:, :wanted] + self._scaled(attended, self.scale1)
        y = self.expand(self.norm2(x).astype(self.dtype))
        return x + self._scaled(self.project(self.activation(y)), self.scale2)

    def _scaled(self, x: jax.Array, scale: nnx.Param | None) -> jax.Array:
        return x if scale is None else x * scale[...].astype(self.dtype)[None, None]


def resampled_positions(positions: jax.Array, grid: tuple[int, int], others: int) -> jax.Array:
    """Learned positions for another grid of patches, as timm's `resample_abs_pos_embed` gives them.

    Args:
      positions: (1, others + n * n, K) float32, of a square grid.
      grid: (h, w) of the patches.
      others: how many of the positions, the first ones, are of no patch; they stay as they are.

    Returns:
      (1, others + h * w, K): bicubic, with antialiasing where the grid becomes smaller.
    """
    side = math.isqrt(positions.shape[1] - others)
    if grid == (side, side):
        return positions
    width = positions.shape[-1]
    of_patches = positions[0, others:].reshape(side, side, width)
    resized = jax.image.resize(of_patches, (*grid, width), "bicubic", antialias=True, precision=HIGHEST)
    return jnp.concatenate([positions[:, :others], resized.reshape(1, -1, width)], axis=1)
