"""ResNet (He et al. 2016, arXiv:1512.03385), in the form whose weights are in use today.

The stride of a bottleneck stands in its 3x3 convolution and padding is the same on both sides, as in
torchvision's `resnet50`. Images are normalized with ImageNet's mean and deviation.

For localization, the last stage of `resnet50_wsol` goes on at the resolution of the one before it: a map of 14x14
cells for 224x224 pixels, with the weights of `resnet50`; in `resnet50_wsol_28x28` the last two do, for 28x28 cells
(Choe et al. 2020, arXiv:2001.07437; its code calls that `large_feature_map`).
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN
from camjax.models.spec import ModelSpec

IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

# Blocks per stage: He et al. 2016, table 1.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

STRIDES = (1, 2, 2, 2)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 5 left)."""

    expansion = 1

    def __init__(self, in_features, features, strides, *, dtype, rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = ConvBN(in_features, features, 3, strides, padding=1, **options)
        self.conv2 = ConvBN(features, features, 3, padding=1, activation=None, **options)
        self.downsample = _downsample(in_features, features, strides, options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', features)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return nnx.relu(self.conv2(self.conv1(x)) + shortcut)


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (He et al. 2016, figure 5 right)."""

    expansion = 4

    def __init__(self, in_features, features, strides, *, dtype, rngs):
        options = {"dtype": dtype, "rngs": rngs}
        wide = features * self.expansion
        self.conv1 = ConvBN(in_features, features, 1, padding=0, **options)
        self.conv2 = ConvBN(features, features, 3, strides, padding=1, **options)
        self.conv3 = ConvBN(features, wide, 1, padding=0, activation=None, **options)
        self.downsample = _downsample(in_features, wide, strides, options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', 4 * features)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return nnx.relu(self.conv3(self.conv2(self.conv1(x))) + shortcut)


class ResNet(CamModel):
    """ResNet with a pooled head. Map: input side / 32, with the usual strides.

    Args:
      depth: 18, 34, 50, 101 or 152.
      num_classes: C.
      strides: of the first block of each stage.
      pool: "gap" or "gmp".
      dtype: compute dtype.
      rngs: random keys.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        *,
        strides: tuple[int, int, int, int] = STRIDES,
        pool: Pool = "gap",
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        stride = 4 * math.prod(strides)  # the stem halves each side twice
        super().__init__(input_size=(224, 224), stride=stride, mean=IMAGENET_MEAN, std=IMAGENET_STD, dtype=dtype)
        block = Bottleneck if depth >= 50 else BasicBlock
        self.stem = ConvBN(3, 64, 7, 2, padding=3, dtype=dtype, rngs=rngs)
        stages, in_features = [], 64
        for stage, repeats in enumerate(DEPTHS[depth]):
            features = 64 * 2**stage
            blocks = []
            for i in range(repeats):
                blocks.append(block(in_features, features, strides[stage] if i == 0 else 1, dtype=dtype, rngs=rngs))
                in_features = features * block.expansion
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = PooledHead(in_features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / stride), ceil(W / stride), K)."""
        x = nnx.max_pool(self.stem(x), (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        return x


def _downsample(in_features: int, out_features: int, strides: int, options: dict) -> ConvBN | None:
    """The 1x1 convolution on the shortcut where the block changes the shape, else None."""
    if strides == 1 and in_features == out_features:
        return None
    return ConvBN(in_features, out_features, 1, strides, padding=0, activation=None, **options)


def _spec(name: str, depth: int, **options) -> ModelSpec:
    return ModelSpec(
        name,
        functools.partial(ResNet, depth, **options),
        1000,
        f"a file of torchvision's or timm's resnet{depth}, given as weights=FILE",
        "camjax.weights.resnet",
    )


SPECS = (
    *(_spec(f"resnet{depth}", depth) for depth in DEPTHS),
    _spec("resnet50_wsol", 50, strides=(1, 2, 2, 1)),
    _spec("resnet50_wsol_28x28", 50, strides=(1, 2, 1, 1)),
)
