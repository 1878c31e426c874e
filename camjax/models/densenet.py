"""DenseNet (Huang et al. 2017, arXiv:1608.06993), in which a layer takes the features of all before it in its block.

BatchNorm and ReLU stand before the convolutions, and padding is the same on both sides, as in torchvision's
`densenet121`. Images are normalized with ImageNet's mean and deviation.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.conv import conv_general_dilated
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, he_normal
from camjax.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from camjax.models.spec import ModelSpec

# Layers per block of DenseNet-121: Huang et al. 2017, table 1.
DEPTHS = (6, 12, 24, 16)
GROWTH = 32
STEM_FEATURES = 64

# One pixel less, and nothing would be left for the last pooling.
MIN_SIZE = 29


class BatchNormReLU(nnx.Module):
    """BatchNorm in float32 and ReLU, ahead of a convolution that other BatchNorms share the input of."""

    def __init__(self, features: int, *, dtype, rngs):
        self.bn = nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=jnp.float32, rngs=rngs)
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(..., K) -> (..., K) in the compute dtype."""
        return nnx.relu(self.bn(x)).astype(self.dtype)


class DenseLayer(nnx.Module):
    """A 1x1 and a 3x3 convolution, whose output joins the input (Huang et al. 2017, section 3, DenseNet-B)."""

    def __init__(self, in_features: int, *, dtype, rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.norm = BatchNormReLU(in_features, **options)
        self.conv1 = ConvBN(in_features, 4 * GROWTH, 1, **options)
        self.conv2 = _conv(4 * GROWTH, GROWTH, 3, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, H, W, K + 32)."""
        return jnp.concatenate([x, self.conv2(self.conv1(self.norm(x)))], axis=-1)


class Transition(nnx.Module):
    """Halves the features by a 1x1 convolution, and each side by average pooling."""

    def __init__(self, in_features: int, *, dtype, rngs):
        self.norm = BatchNormReLU(in_features, dtype=dtype, rngs=rngs)
        self.conv = _conv(in_features, in_features // 2, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K) -> (B, floor(H / 2), floor(W / 2), K / 2)."""
        return nnx.avg_pool(self.conv(self.norm(x)), (2, 2), (2, 2))


class DenseNet121(CamModel):
    """DenseNet-121 with a pooled head. Map: input side / 32, where the other networks round up rounded down.

    The last features are behind a BatchNorm and a ReLU of their own, so that none is negative.

    Args:
      num_classes: C.
      pool: "gap" or "gmp".
      dtype: compute dtype.
      rngs: random keys.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(
            input_size=(224, 224), stride=32, min_size=MIN_SIZE, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=dtype
        )
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvBN(3, STEM_FEATURES, 7, 2, padding=3, **options)
        blocks, transitions, features = [], [], STEM_FEATURES
        for depth in DEPTHS:
            if blocks:
                transitions.append(Transition(features, **options))
                features //= 2
            layers = [DenseLayer(features + i * GROWTH, **options) for i in range(depth)]
            # By number from 1, as the weights are named.
            blocks.append(nnx.Dict({f"layer{i}": layer for i, layer in enumerate(layers, 1)}))
            features += depth * GROWTH
        self.blocks, self.transitions = nnx.List(blocks), nnx.List(transitions)
        self.norm = BatchNormReLU(features, **options)
        self.head = PooledHead(features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 1024)."""
        x = nnx.max_pool(self.stem(x), (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for i, layers in enumerate(self.blocks):
            if i:
                x = self.transitions[i - 1](x)
            for number in range(1, len(layers) + 1):
                x = layers[f"layer{number}"](x)
        return self.norm(x)


def _conv(in_features: int, out_features: int, kernel_size: int, *, dtype, rngs) -> nnx.Conv:
    """A convolution without bias."""
    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size),
        padding=kernel_size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=he_normal,
        conv_general_dilated=conv_general_dilated,
        rngs=rngs,
    )


SPECS = (
    ModelSpec(
        "densenet121",
        DenseNet121,
        1000,
        "a file of torchvision's or timm's densenet121, given as weights=FILE",
        "camjax.weights.densenet",
    ),
)
