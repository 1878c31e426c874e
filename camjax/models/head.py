"""The pooled heads: global average (GAP) or max (GMP) pooling, and one dense layer where the features need one."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

Pool = Literal["gap", "gmp"]


class PooledHead(nnx.Module):
    """Global pooling and one dense layer: the head whose weights turn features into class activation maps.

    GAP: `logit_c = sum_k w[k, c] mean_{y,x} f_k(y, x) + b_c` (Zhou et al. 2016, eq. 1, with the mean for the
    sum); GMP: the maximum over space in place of the mean (section 3.2).

    Args:
      num_features: K.
      num_classes: C.
      pool: "gap" or "gmp".
      dropout: rate of dropout on the pooled features, in training only.
      rngs: random keys for the initial kernel (and for dropout).

    Attributes:
      kernel: (K, C) float32.
      bias: (C,) float32.
      num_classes: C.
      pool: "gap" or "gmp".
      exact_cam: whether the mean of a class's map plus its bias is that class's logit (True for GAP).
    """

    def __init__(
        self, num_features: int, num_classes: int, *, pool: Pool = "gap", dropout: float = 0.0, rngs: nnx.Rngs
    ):
        _check_options(pool, num_classes)
        init = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.kernel = nnx.Param(init(rngs.params(), (num_features, num_classes), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_classes,), jnp.float32))
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.pool = pool
        self.num_classes = num_classes

    @property
    def exact_cam(self) -> bool:
        """True for GAP."""
        return self.pool == "gap"

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, K) features of any float dtype -> (B, C) float32 logits."""
        pooled = global_pool(features, self.pool)
        if self.dropout is not None:
            pooled = self.dropout(pooled)
        # Highest precision: accelerators round float32 products to fewer bits otherwise, and the identity
        # between a map's mean and its logit would hold to three digits only.
        return jnp.dot(pooled, self.kernel[...], precision=jax.lax.Precision.HIGHEST) + self.bias[...]


class MapHead(nnx.Module):
    """Global pooling alone, of features that are the class maps already: channel c is the map of class c.

    So end NIN (Lin et al. 2014, section 3.2) and SqueezeNet (Iandola et al. 2016), whose last convolution has one
    channel a class. The logit of class c is the mean (GAP) or the maximum (GMP) of its map.

    Args:
      num_classes: C, the number of the features' channels.
      pool: "gap" or "gmp".

    Attributes:
      kernel: None; it would be the identity.
      bias: None.
      num_classes: C.
      pool: "gap" or "gmp".
      exact_cam: whether the mean of a class's map is that class's logit (True for GAP).
    """

    def __init__(self, num_classes: int, *, pool: Pool = "gap"):
        _check_options(pool, num_classes)
        self.kernel = None
        self.bias = None
        self.pool = pool
        self.num_classes = num_classes

    @property
    def exact_cam(self) -> bool:
        """True for GAP."""
        return self.pool == "gap"

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, C) features of any float dtype -> (B, C) float32 logits."""
        return global_pool(features, self.pool)


def global_pool(features: jax.Array, pool: Pool) -> jax.Array:
    """(B, h, w, K) features of any float dtype -> (B, K) float32: their mean ("gap") or maximum ("gmp") over space."""
    features = features.astype(jnp.float32)
    return features.mean((1, 2)) if pool == "gap" else features.max((1, 2))


def _check_options(pool: Pool, num_classes: int) -> None:
    if pool not in ("gap", "gmp"):
        raise ValueError(f'pool={pool!r}: expected "gap" (global average) or "gmp" (global max pooling).')
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}: expected at least one class.")
