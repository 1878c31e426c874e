"""What turns features into logits: the pooled heads, and fully connected layers."""

from typing import Literal, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from camjax.errors import InputError
from camjax.models.layers import relu

Pool = Literal["gap", "gmp"]


class Head(Protocol):
    """What every head has.

    A head whose maps can be computed also has `kernel` (K, C), or None if the features are the class maps already, and
    `bias` (C,) or None. `hasattr(head, "kernel")` tells whether there are maps. A head without kernel whose maps are a
    function of their own has `class_maps(features, class_ids)`, as `camjax.models.wsol.acol.AcolHead`.
    """

    num_classes: int

    @property
    def exact_cam(self) -> bool:
        """Whether, for every class, the mean of its map plus its bias is its logit."""

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, K) features of any float dtype -> (B, C) float32 logits."""


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
      num_classes: as given.
      pool: as given.
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
        # Highest precision: accelerators otherwise round float32 products to fewer bits, and a map's mean would equal
        # the logit to three digits only.
        logits = jnp.dot(pooled, self.kernel[...], precision=jax.lax.Precision.HIGHEST)
        return logits + jnp.broadcast_to(self.bias[...], logits.shape)


class MapHead(nnx.Module):
    """Global pooling alone, of features that are the class maps already: channel c is the map of class c.

    It is the head of NIN (Lin et al. 2014, section 3.2) and SqueezeNet (Iandola et al. 2016), whose last convolution
    has one channel a class. The logit of class c is the mean (GAP) or the maximum (GMP) of its map.

    Args:
      num_classes: C, the number of the features' channels.
      pool: "gap" or "gmp".

    Attributes:
      kernel: None; it would be the identity.
      bias: None.
      num_classes: as given.
      pool: as given.
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


class FullyConnectedHead(nnx.Module):
    """Two hidden layers with ReLU and dropout, and a linear one, over the whole feature map (Krizhevsky et al. 2012).

    There is no `kernel` from features to classes, and so no class activation map: each hidden unit sees every place
    of the map at once.

    Args:
      map_size: (h, w) of the feature map, the only one that the head takes.
      num_features: K.
      num_classes: C.
      pool: only "gap", the default of `create_model`; there is no pooling.
      hidden: units of either hidden layer.
      dtype: compute dtype of the hidden layers.
      rngs: random keys of the initial weights and of dropout.

    Attributes:
      fc6: `nnx.Linear` of the flattened map, K slowest, as in Caffe and PyTorch.
      fc7, fc8: `nnx.Linear`; fc8 gives the classes, in float32.
      num_classes: as given.
      exact_cam: False.

    Raises:
      ValueError: another pool, or num_classes is below 1.
    """

    def __init__(
        self,
        map_size: tuple[int, int],
        num_features: int,
        num_classes: int,
        *,
        pool: str = "gap",
        hidden: int = 4096,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if pool != "gap":
            raise InputError(f"pool={pool!r}: fully connected layers follow no pooling. Leave pool out.")
        _check_options(pool, num_classes)
        he = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
        lecun = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        in_features = map_size[0] * map_size[1] * num_features
        self.fc6 = nnx.Linear(in_features, hidden, dtype=dtype, kernel_init=he, rngs=rngs)
        self.fc7 = nnx.Linear(hidden, hidden, dtype=dtype, kernel_init=he, rngs=rngs)
        self.fc8 = nnx.Linear(hidden, num_classes, dtype=jnp.float32, kernel_init=lecun, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.map_size = tuple(map_size)
        self.num_classes = num_classes

    @property
    def exact_cam(self) -> bool:
        """False: there are no maps."""
        return False

    def __call__(self, features: jax.Array) -> jax.Array:
        """(B, h, w, K) features -> (B, C) float32 logits.

        Raises:
          ValueError: (h, w) is not `map_size`.
        """
        if features.shape[1:3] != self.map_size:
            raise InputError(
                f"a feature map of {features.shape[1]} x {features.shape[2]} cells: fully connected layers expect "
                f"{self.map_size[0]} x {self.map_size[1]}. Give images of the network's input_size."
            )
        x = features.transpose(0, 3, 1, 2).reshape(features.shape[0], -1)
        x = self.dropout(relu(self.fc6(x)))
        x = self.dropout(relu(self.fc7(x)))
        return self.fc8(x)


def global_pool(features: jax.Array, pool: Pool) -> jax.Array:
    """(B, h, w, K) features of any float dtype -> (B, K) float32: their mean ("gap") or maximum ("gmp") over space."""
    features = features.astype(jnp.float32)
    return features.mean((1, 2)) if pool == "gap" else features.max((1, 2))


def _check_options(pool: str, num_classes: int) -> None:
    if pool not in ("gap", "gmp"):
        raise InputError(f'pool={pool!r}: expected "gap" (global average) or "gmp" (global max pooling).')
    if num_classes < 1:
        raise InputError(f"num_classes={num_classes}: expected at least one class.")
