"""EfficientNetV2-S (Tan and Le 2021, arXiv:2104.00298).

`efficientnet_v2_s` is torchvision's, with padding on both sides; `tf_efficientnetv2_s` is timm's, with TensorFlow's
weights and padding. timm's `efficientnetv2_s`, without `tf_`, has another epsilon of BatchNorm than either.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import IMAGENET_INPUT, CamModel, InputRule
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, SqueezeExcite
from camjax.models.mobilenet import InvertedResidual, timm_block, torchvision_block
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import DENSE, Table, convbn, layer


class Stage(NamedTuple):
    """Some blocks with the same number of features.

    Attributes:
      fused: whether one 3x3 convolution is in place of expansion, depthwise convolution and squeeze-and-excitation.
      repeats: number of blocks.
      strides: of the first one.
      expansion: factor by which a block widens its features.
      features: K_out.
    """

    fused: bool
    repeats: int
    strides: int
    expansion: int
    features: int


# Tan and Le 2021, table 4.
STAGES = (
    Stage(True, 2, 1, 1, 24),
    Stage(True, 4, 2, 4, 48),
    Stage(True, 4, 2, 4, 64),
    Stage(False, 6, 2, 4, 128),
    Stage(False, 9, 1, 6, 160),
    Stage(False, 15, 2, 6, 256),
)
STEM_FEATURES = 24
TOP_FEATURES = 1280


class FusedResidual(nnx.Module):
    """A 3x3 convolution and a 1x1 projection, the first alone without expansion; a shortcut where the shape allows it.

    Args:
      in_features: K_in.
      out_features: K_out.
      strides, padding: of the 3x3 convolution.
      expansion: factor by which it widens the features.
      **options: of every `ConvBN`: epsilon, dtype, rngs.
    """

    def __init__(self, in_features: int, out_features: int, strides: int, expansion: int, *, padding, **options: Any):
        wide = out_features if expansion == 1 else in_features * expansion
        self.conv = ConvBN(in_features, wide, 3, strides, padding=padding, activation=jax.nn.silu, **options)
        self.project = None if expansion == 1 else ConvBN(wide, out_features, 1, activation=None, **options)
        self.shortcut = strides == 1 and in_features == out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', K_out)."""
        y = self.conv(x)
        if self.project is not None:
            y = self.project(y)
        return x + y if self.shortcut else y


class EfficientNetV2S(CamModel):
    """EfficientNetV2-S with a pooled head. Map: input side / 32.

    Args:
      num_classes, pool, dtype, rngs: as in `camjax.create_model`.
      padding: of the 3x3 convolutions, as in `ConvBN`.
      **rule: input_size, mean, std and channel_order of `CamModel`.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        padding: str | int,
        pool: Pool = "gap",
        dtype=jnp.float32,
        rngs: nnx.Rngs,
        **rule: Any,
    ):
        super().__init__(stride=32, dtype=dtype, **rule)
        plain: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        options: dict[str, Any] = {"epsilon": 1e-3, **plain}
        self.stem = ConvBN(3, STEM_FEATURES, 3, 2, padding=padding, activation=jax.nn.silu, **options)
        stages, in_features = [], STEM_FEATURES
        for stage in STAGES:
            blocks: list[nnx.Module] = []
            for i in range(stage.repeats):
                strides = stage.strides if i == 0 else 1
                if stage.fused:
                    blocks.append(
                        FusedResidual(in_features, stage.features, strides, stage.expansion, padding=padding, **options)
                    )
                else:
                    wide = in_features * stage.expansion
                    gate = SqueezeExcite(wide, in_features // 4, activation=jax.nn.silu, **plain)
                    blocks.append(
                        InvertedResidual(
                            in_features,
                            stage.features,
                            3,
                            strides,
                            wide,
                            padding=padding,
                            activation=jax.nn.silu,
                            squeeze_excite=gate,
                            **options,
                        )
                    )
                in_features = stage.features
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.top = ConvBN(in_features, TOP_FEATURES, 1, activation=jax.nn.silu, **options)
        self.head = PooledHead(TOP_FEATURES, num_classes, pool=pool, dropout=0.2, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 32), ceil(W / 32), 1280)."""
        x = self.stem(x)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        return self.top(x)


def _torchvision_names(stages: Sequence[Stage]) -> Table:
    rules = [*convbn(r"features\.0\.0", r"features\.0\.1", "stem")]
    for n, stage in enumerate(stages):
        name, place = rf"features\.{n + 1}\.(\d+)", rf"stages.{n}.\1"
        if not stage.fused:
            rules += torchvision_block(name, place, squeezes=True)
            continue
        for i, at in enumerate(("conv",) if stage.expansion == 1 else ("conv", "project")):
            rules += convbn(rf"{name}\.block\.{i}\.0", rf"{name}\.block\.{i}\.1", f"{place}.{at}")
    top = rf"features\.{len(stages) + 1}"
    return (*rules, *convbn(rf"{top}\.0", rf"{top}\.1", "top"), *layer(r"classifier\.1", "head", DENSE))


def _timm_names(stages: Sequence[Stage]) -> Table:
    rules = [*convbn("conv_stem", "bn1", "stem")]
    for n, stage in enumerate(stages):
        name, place = rf"blocks\.{n}\.(\d+)", rf"stages.{n}.\1"
        if not stage.fused:
            rules += timm_block(name, place, squeezes=True)
        elif stage.expansion == 1:
            rules += convbn(rf"{name}\.conv", rf"{name}\.bn1", f"{place}.conv")
        else:
            rules += convbn(rf"{name}\.conv_exp", rf"{name}\.bn1", f"{place}.conv")
            rules += convbn(rf"{name}\.conv_pwl", rf"{name}\.bn2", f"{place}.project")
    return (*rules, *convbn("conv_head", "bn2", "top"), *layer("classifier", "head", DENSE))


_HALF: InputRule = {"mean": (127.5,) * 3, "std": (127.5,) * 3, "channel_order": "rgb"}

SPECS = (
    ModelSpec(
        "efficientnet_v2_s",
        functools.partial(EfficientNetV2S, padding=1, input_size=(384, 384), **IMAGENET_INPUT),
        weights=(torchvision("efficientnet_v2_s", "efficientnet_v2_s-dd5fe13b.pth"),),
        tensor_names=_torchvision_names(STAGES),
    ),
    ModelSpec(
        "tf_efficientnetv2_s",
        functools.partial(EfficientNetV2S, padding="SAME", input_size=(300, 300), **_HALF),
        weights=(WeightsSource("timm", "tf_efficientnetv2_s", address="hf://timm/tf_efficientnetv2_s.in21k_ft_in1k"),),
        tensor_names=_timm_names(STAGES),
        look_alikes={"conv_stem.weight": "efficientnetv2_s"},
    ),
)
