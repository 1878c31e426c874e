"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), and the inverted residual that other networks took from it.

Padding is the same on both sides, as in torchvision's `mobilenet_v2`. Images are normalized with ImageNet's mean
and deviation.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN
from camjax.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from camjax.models.spec import ModelSpec

# (repeats, stride, expansion, K_out) of the seven stages: Sandler et al. 2018, table 2.
STAGES = ((1, 1, 1, 16), (2, 2, 6, 24), (3, 2, 6, 32), (4, 2, 6, 64), (3, 1, 6, 96), (3, 2, 6, 160), (1, 1, 6, 320))
STEM_FEATURES = 32
TOP_FEATURES = 1280
DROPOUT = 0.2


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where the shape allows it.

    Args:
      in_features: K_in.
      out_features: K_out.
      kernel_size: of the depthwise convolution.
      strides: of the depthwise convolution.
      expansion: factor by which the first convolution widens the features; 1 for none.
      padding: of the depthwise convolution.
      **options: of every `ConvBN`: momentum, epsilon, dtype, rngs.
    """

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int, strides: int, expansion: int, *, padding, **options
    ):
        wide = in_features * expansion
        self.expand = ConvBN(in_features, wide, 1, activation=jax.nn.relu6, **options) if expansion != 1 else None
        self.depthwise = ConvBN(
            wide, wide, kernel_size, strides, padding=padding, groups=wide, activation=jax.nn.relu6, **options
        )
        self.project = ConvBN(wide, out_features, 1, activation=None, **options)
        self.shortcut = strides == 1 and in_features == out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', K_out)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.shortcut else y


class MobileNetV2(CamModel):
    """MobileNetV2 of width 1 with a pooled head. Map: input side / 32.

    Args:
      num_classes: C.
      pool: "gap" or "gmp".
      dtype: compute dtype.
      rngs: random keys.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=32, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=dtype)
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvBN(3, STEM_FEATURES, 3, 2, padding=1, activation=jax.nn.relu6, **options)
        blocks, in_features = [], STEM_FEATURES
        for repeats, strides, expansion, out_features in STAGES:
            for i in range(repeats):
                block_strides = strides if i == 0 else 1
                blocks.append(
                    InvertedResidual(in_features, out_features, 3, block_strides, expansion, padding=1, **options)
                )
                in_features = out_features
        self.blocks = nnx.List(blocks)
        self.top = ConvBN(in_features, TOP_FEATURES, 1, activation=jax.nn.relu6, **options)
        self.head = PooledHead(TOP_FEATURES, num_classes, pool=pool, dropout=DROPOUT, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 32), ceil(W / 32), 1280)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.top(x)


SPECS = (
    ModelSpec(
        "mobilenet_v2",
        MobileNetV2,
        1000,
        "a file of torchvision's mobilenet_v2 or timm's mobilenetv2_100, given as weights=FILE",
        "camjax.weights.mobilenet",
    ),
)
