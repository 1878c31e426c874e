"""MobileNetV3 (Howard et al. 2019, arXiv:1905.02244).

`mobilenet_v3_large` and `mobilenet_v3_small` are torchvision's; `mobilenetv3_large_100` and `mobilenetv3_small_100` are
timm's, with the same layers and another epsilon of BatchNorm. Padding is the same on both sides, and images are
normalized with ImageNet's mean and deviation, in all four.

The original has a dense layer and hard-swish between pooling and the classifier. Hard-swish multiplies a number by a
factor in 0..1: of the pooled vector p of an image, `q = W p + b` gives `q * hard_sigmoid(q)`. Here the dense layer and
that factor, with the q of the pooled vector, are applied to every place of the map before pooling. That gives the same
pooled vector and the same logits, and features that the classifier weighs directly, so the mean of a class's map plus
its bias is its logit. The features of other implementations are those before the dense layer.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.efficientnet_lite import scale_features
from camjax.models.head import Pool, PooledHead, global_pool
from camjax.models.layers import ConvBN, SqueezeExcite, he_normal, relu
from camjax.models.mobilenet import InvertedResidual, timm_block, torchvision_block
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import DENSE, Table, convbn, layer

STEM_FEATURES = 16


class Row(NamedTuple):
    """A block: the columns of Howard et al. 2019, tables 1 and 2.

    Attributes:
      kernel_size: of the depthwise convolution.
      wide: its number of features.
      features: K_out.
      squeezes: whether it has squeeze-and-excitation.
      hard: whether its activation is hard-swish, else ReLU.
      strides: of the depthwise convolution.
    """

    kernel_size: int
    wide: int
    features: int
    squeezes: bool
    hard: bool
    strides: int


BLOCKS: dict[str, tuple[Row, ...]] = {
    "large": (
        Row(3, 16, 16, False, False, 1),
        Row(3, 64, 24, False, False, 2),
        Row(3, 72, 24, False, False, 1),
        Row(5, 72, 40, True, False, 2),
        Row(5, 120, 40, True, False, 1),
        Row(5, 120, 40, True, False, 1),
        Row(3, 240, 80, False, True, 2),
        Row(3, 200, 80, False, True, 1),
        Row(3, 184, 80, False, True, 1),
        Row(3, 184, 80, False, True, 1),
        Row(3, 480, 112, True, True, 1),
        Row(3, 672, 112, True, True, 1),
        Row(5, 672, 160, True, True, 2),
        Row(5, 960, 160, True, True, 1),
        Row(5, 960, 160, True, True, 1),
    ),
    "small": (
        Row(3, 16, 16, True, False, 2),
        Row(3, 72, 24, False, False, 2),
        Row(3, 88, 24, False, False, 1),
        Row(5, 96, 40, True, True, 2),
        Row(5, 240, 40, True, True, 1),
        Row(5, 240, 40, True, True, 1),
        Row(5, 120, 48, True, True, 1),
        Row(5, 144, 48, True, True, 1),
        Row(5, 288, 96, True, True, 2),
        Row(5, 576, 96, True, True, 1),
        Row(5, 576, 96, True, True, 1),
    ),
}

# K_out of the last convolution, and of the dense layer before the classifier.
TOP_FEATURES = {"large": (960, 1280), "small": (576, 1024)}


class MobileNetV3(CamModel):
    """MobileNetV3 of width 1 with a pooled head. Map: input side / 32.

    Args:
      size: "large" or "small".
      batchnorm: momentum and epsilon of `ConvBN`.
      pool: "gap" or "gmp"; under "gmp", the factor of hard-swish is still that of the averaged features.
      num_classes, dtype, rngs: as in `camjax.create_model`.
    """

    def __init__(
        self,
        size: str,
        num_classes: int = 1000,
        *,
        batchnorm: dict[str, float],
        pool: Pool = "gap",
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(input_size=(224, 224), stride=32, dtype=dtype, **IMAGENET_INPUT)
        plain = {"dtype": dtype, "rngs": rngs}
        options = {**batchnorm, **plain}
        self.stem = ConvBN(3, STEM_FEATURES, 3, 2, padding=1, activation=jax.nn.hard_swish, **options)
        blocks, in_features = [], STEM_FEATURES
        for row in BLOCKS[size]:
            squeeze_excite = None
            if row.squeezes:
                squeezed = scale_features(row.wide, 0.25)
                squeeze_excite = SqueezeExcite(row.wide, squeezed, gate=jax.nn.hard_sigmoid, **plain)
            blocks.append(
                InvertedResidual(
                    in_features,
                    row.features,
                    row.kernel_size,
                    row.strides,
                    row.wide,
                    padding=row.kernel_size // 2,
                    activation=jax.nn.hard_swish if row.hard else relu,
                    squeeze_excite=squeeze_excite,
                    **options,
                )
            )
            in_features = row.features
        self.blocks = nnx.List(blocks)
        top, wide = TOP_FEATURES[size]
        self.top = ConvBN(in_features, top, 1, activation=jax.nn.hard_swish, **options)
        self.dense = nnx.Linear(top, wide, kernel_init=he_normal, **plain)
        self.head = PooledHead(wide, num_classes, pool=pool, dropout=0.2, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 32), ceil(W / 32), K)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = self.dense(self.top(x))
        factors = jax.nn.hard_sigmoid(global_pool(x, "gap"))
        return (x * factors[:, None, None].astype(x.dtype)).astype(self.dtype)


def _torchvision_names(blocks: Sequence[Row]) -> Table:
    rules, in_features = [*convbn(r"features\.0\.0", r"features\.0\.1", "stem")], STEM_FEATURES
    for n, row in enumerate(blocks):
        options = {"expands": row.wide != in_features, "squeezes": row.squeezes}
        rules += torchvision_block(rf"features\.{n + 1}", f"blocks.{n}", **options)
        in_features = row.features
    top = rf"features\.{len(blocks) + 1}"
    rules += convbn(rf"{top}\.0", rf"{top}\.1", "top")
    return (*rules, *layer(r"classifier\.0", "dense", DENSE), *layer(r"classifier\.3", "head", DENSE))


def _timm_names(blocks: Sequence[Row]) -> Table:
    rules, number = [*convbn("conv_stem", "bn1", "stem")], 0
    stages = [list(rows) for _, rows in itertools.groupby(blocks, key=lambda row: row.features)]
    for stage, rows in enumerate(stages):
        for i, row in enumerate(rows):
            options = {"expands": stage > 0, "squeezes": row.squeezes}
            rules += timm_block(rf"blocks\.{stage}\.{i}", f"blocks.{number}", **options)
            number += 1
    top = rf"blocks\.{len(stages)}\.0"
    rules += convbn(rf"{top}\.conv", rf"{top}\.bn1", "top")
    return (*rules, *layer("conv_head", "dense", DENSE), *layer("classifier", "head", DENSE))


_FILES = {"large": "mobilenet_v3_large-5c1a4163.pth", "small": "mobilenet_v3_small-047dcff4.pth"}
_TAGS = {"large": "ra_in1k", "small": "lamb_in1k"}


def _specs(size: str) -> tuple[ModelSpec, ModelSpec]:
    """The two networks of a size, which differ in BatchNorm's epsilon and momentum."""
    ours, theirs = f"mobilenet_v3_{size}", f"mobilenetv3_{size}_100"
    of_torchvision, of_timm = {"momentum": 0.99, "epsilon": 1e-3}, {"momentum": 0.9, "epsilon": 1e-5}
    return (
        ModelSpec(
            ours,
            functools.partial(MobileNetV3, size, batchnorm=of_torchvision),
            weights=(torchvision(ours, _FILES[size]),),
            tensor_names=_torchvision_names(BLOCKS[size]),
        ),
        ModelSpec(
            theirs,
            functools.partial(MobileNetV3, size, batchnorm=of_timm),
            weights=(WeightsSource("timm", theirs, address=f"hf://timm/{theirs}.{_TAGS[size]}"),),
            tensor_names=_timm_names(BLOCKS[size]),
            look_alikes={"conv_stem.weight": f"tf_{theirs}"},
        ),
    )


SPECS = (*_specs("large"), *_specs("small"))
