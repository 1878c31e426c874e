"""ResNet (He et al. 2016, arXiv:1512.03385), in the form whose weights are in use today, and two that widen it.

Wide ResNet-50-2 (Zagoruyko and Komodakis 2016, arXiv:1605.07146) has twice the channels in each 3x3 convolution,
ResNeXt-50 32x4d (Xie et al. 2017, arXiv:1611.05431) 32 groups of at least 4 channels there.

The stride of a bottleneck is in its 3x3 convolution and padding is the same on both sides, as in
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

from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, SqueezeExcite, relu
from camjax.models.pooling import max_pool
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import DENSE, convbn, layer
from camjax.models.wsol.method import Places

# Blocks per stage: He et al. 2016, table 1.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

STRIDES = (1, 2, 2, 2)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 5 left)."""

    def __init__(self, in_features, features, strides, *, dtype, rngs):
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = ConvBN(in_features, features, 3, strides, padding=1, **options)
        self.conv2 = ConvBN(features, features, 3, padding=1, activation=None, **options)
        self.downsample = _downsample(in_features, features, strides, options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', features)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return relu(self.conv2(self.conv1(x)) + shortcut)


class Bottleneck(nnx.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut (He et al. 2016, figure 5 right).

    Args:
      in_features: K_in.
      features: of the 3x3 convolution.
      out_features: K_out.
      strides: of the 3x3 convolution.
      groups: of the 3x3 convolution.
      squeeze_excite: applied to its result, if given.
      dtype, rngs: as in `ConvBN`.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        out_features: int,
        strides: int,
        *,
        groups: int = 1,
        squeeze_excite: SqueezeExcite | None = None,
        dtype,
        rngs,
    ):
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = ConvBN(in_features, features, 1, padding=0, **options)
        self.conv2 = ConvBN(features, features, 3, strides, padding=1, groups=groups, **options)
        self.squeeze_excite = squeeze_excite
        self.conv3 = ConvBN(features, out_features, 1, padding=0, activation=None, **options)
        self.downsample = _downsample(in_features, out_features, strides, options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', K_out)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv2(self.conv1(x))
        if self.squeeze_excite is not None:
            x = self.squeeze_excite(x)
        return relu(self.conv3(x) + shortcut)


class ResNet(CamModel):
    """ResNet with a pooled head. Map: input side / 32, with the usual strides.

    Args:
      depth: 18, 34, 50, 101 or 152.
      strides: of the first block of each stage.
      groups: of the 3x3 convolutions of bottlenecks.
      group_width: channels of a group in the first stage; they double with each stage.
      num_classes, pool, dtype, rngs: as in `camjax.create_model`.
    """

    wsol_places = Places(adl=("layer3.0", "layer4.0", "layer4"), spg=("layer3.0", "layer3"))

    def __init__(
        self,
        depth: int,
        num_classes: int = 1000,
        *,
        strides: tuple[int, int, int, int] = STRIDES,
        groups: int = 1,
        group_width: int = 64,
        pool: Pool = "gap",
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        stride = 4 * math.prod(strides)  # the stem halves each side twice
        super().__init__(input_size=(224, 224), stride=stride, dtype=dtype, **IMAGENET_INPUT)
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvBN(3, 64, 7, 2, padding=3, **options)
        stages, in_features = [], 64
        for stage, repeats in enumerate(DEPTHS[depth]):
            width, out_features = groups * group_width * 2**stage, (256 if depth >= 50 else 64) * 2**stage
            blocks: list[nnx.Module] = []
            for i in range(repeats):
                block_strides = strides[stage] if i == 0 else 1
                if depth >= 50:
                    blocks.append(Bottleneck(in_features, width, out_features, block_strides, groups=groups, **options))
                else:
                    blocks.append(BasicBlock(in_features, out_features, block_strides, **options))
                in_features = out_features
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = PooledHead(in_features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / stride), ceil(W / stride), K)."""
        *_, last = self.stage_maps(x).values()
        return last

    def stage_maps(self, x: jax.Array) -> dict[str, jax.Array]:
        """The maps after each block ("layer3.0") and each stage ("layer3"), with torchvision's names."""
        x = max_pool(self.stem(x), 3, 2, ((1, 1), (1, 1)))
        maps = {}
        for stage, blocks in enumerate(self.stages, 1):
            for i, block in enumerate(blocks):
                x = maps[f"layer{stage}.{i}"] = self.at(f"layer{stage}.{i}", block(x))
            x = maps[f"layer{stage}"] = self.at(f"layer{stage}", x)
        return maps


def _downsample(in_features: int, out_features: int, strides: int, options: dict) -> ConvBN | None:
    """The 1x1 convolution on the shortcut where the block changes the shape, else None."""
    if strides == 1 and in_features == out_features:
        return None
    return ConvBN(in_features, out_features, 1, strides, padding=0, activation=None, **options)


# torchvision and timm write the same names. They count the stages from 1 (layer1 to layer4), the model from 0.
TENSOR_NAMES = (
    *convbn("conv1", "bn1", "stem"),
    *(
        rule
        for stage, name in enumerate(("layer1", "layer2", "layer3", "layer4"))
        for rule in (
            *convbn(rf"{name}\.(\d+)\.conv(\d)", rf"{name}\.(\d+)\.bn(\d)", rf"stages.{stage}.\1.conv\2"),
            *convbn(
                rf"{name}\.(\d+)\.downsample\.0", rf"{name}\.(\d+)\.downsample\.1", rf"stages.{stage}.\1.downsample"
            ),
        )
    ),
    *layer("fc", "head", DENSE),
)

# The files that torchvision publishes, by depth.
_FILES = {
    18: "resnet18-f37072fd.pth",
    34: "resnet34-b627a593.pth",
    50: "resnet50-0676ba61.pth",
    101: "resnet101-63fe2227.pth",
    152: "resnet152-394f9c45.pth",
}


def _spec(name: str, depth: int, original: str = "", file: str = "", **options) -> ModelSpec:
    original, file = original or f"resnet{depth}", file or _FILES[depth]
    weights = (torchvision(original, file), WeightsSource("timm", original))
    build = functools.partial(ResNet, depth, **options)
    return ModelSpec(name, build, weights=weights, tensor_names=TENSOR_NAMES)


SPECS = (
    *(_spec(f"resnet{depth}", depth) for depth in DEPTHS),
    _spec("resnet50_wsol", 50, strides=(1, 2, 2, 1)),
    _spec("resnet50_wsol_28x28", 50, strides=(1, 2, 1, 1)),
    _spec("resnext50_32x4d", 50, "resnext50_32x4d", "resnext50_32x4d-7cdf4587.pth", groups=32, group_width=4),
    _spec("wide_resnet50_2", 50, "wide_resnet50_2", "wide_resnet50_2-95faca4d.pth", group_width=128),
)
