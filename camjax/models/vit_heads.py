"""Heads of vision transformers whose classes come from a token, or from a learned query."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.errors import InputError
from camjax.models.layers import exact_gelu
from camjax.models.vit_blocks import HIGHEST, AttentionWeights, Size, narrow, token_layernorm


class TokenHead(nnx.Module):
    """A dense layer on the class token, after the last LayerNorm.

    Args:
      num_features: K.
      num_classes: C.
      other_tokens: how many of the tokens, the first ones, are no patches.
      mean_too: whether it takes the class token followed by the mean of the patches' tokens, 2 K numbers.
      distilled: whether a second layer takes the distillation token, and the logits are the mean of both.
      rngs: random keys of the initial weights.

    Attributes:
      dense: `nnx.Linear` in float32.
      distilled: the same of the distillation token, or None.
      num_classes: as given.
      exact_cam: False.
    """

    exact_cam = False

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        other_tokens: int,
        mean_too: bool,
        distilled: bool,
        rngs: nnx.Rngs,
    ):
        self.other_tokens = other_tokens
        self.mean_too = mean_too
        self.dense = _dense(num_features * (1 + mean_too), num_classes, rngs)
        self.distilled = _dense(num_features, num_classes, rngs) if distilled else None
        self.num_classes = num_classes

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, T, K) tokens -> (B, C) float32 logits."""
        tokens = features.astype(jnp.float32)
        found = tokens[:, 0]
        if self.mean_too:
            found = jnp.concatenate([found, tokens[:, self.other_tokens :].mean(1)], axis=-1)
        logits = self.dense(found)
        return logits if self.distilled is None else (logits + self.distilled(tokens[:, 1])) / 2


class QueryHead(nnx.Module):
    """A learned query attends to all places of the features; two dense layers with a shortcut, and one to the classes.

    Args:
      size: of the transformer.
      num_classes: C.
      dtype: compute dtype.
      rngs: random keys of the initial weights.

    Attributes:
      dense: `nnx.Linear` in float32.
      num_classes: as given.
      exact_cam: False.
    """

    exact_cam = False

    def __init__(self, size: Size, num_classes: int, *, dtype, rngs: nnx.Rngs):
        linear = functools.partial(nnx.Linear, kernel_init=narrow, dtype=dtype, rngs=rngs)
        self.query = nnx.Param(narrow(rngs.params(), (1, 1, size.width)))
        self.to_queries = linear(size.width, size.width)
        self.to_keys_and_values = linear(size.width, 2 * size.width)
        self.weights = AttentionWeights()
        self.project = linear(size.width, size.width)
        self.norm = token_layernorm(size.width, 1e-6, rngs)
        self.expand = linear(size.width, size.hidden)
        self.reduce = linear(size.hidden, size.width)
        self.dense = _dense(size.width, num_classes, rngs)
        self.heads = size.heads
        self.dtype = dtype
        self.num_classes = num_classes

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, K) -> (B, C) float32 logits."""
        batch, *_, width = features.shape
        query = jnp.broadcast_to(self.to_queries(self.query[...].astype(self.dtype)), (batch, 1, width))
        both = self.to_keys_and_values(features.astype(self.dtype)).reshape(
            batch, -1, 2, self.heads, width // self.heads
        )
        keys, values = both.transpose(2, 0, 3, 1, 4)
        mixed = self.weights.mixed(query.reshape(batch, self.heads, 1, -1), keys, values)
        x = self.project(mixed.reshape(batch, width))
        x = x + self.reduce(exact_gelu(self.expand(self.norm(x).astype(self.dtype))))
        return self.dense(x.astype(jnp.float32))


def _dense(in_features: int, num_classes: int, rngs: nnx.Rngs) -> nnx.Linear:
    if num_classes < 1:
        raise InputError(f"num_classes={num_classes}: expected at least one class.")
    return nnx.Linear(in_features, num_classes, kernel_init=narrow, precision=HIGHEST, rngs=rngs)
