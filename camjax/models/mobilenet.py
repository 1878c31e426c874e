"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), and what other networks took from it.

Padding is the same on both sides, as in torchvision's `mobilenet_v2`. Images are normalized with ImageNet's mean
and deviation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, SqueezeExcite
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import DENSE, Rule, Table, convbn, layer

# (repeats, kernel size, stride, expansion, K_out) of the seven stages: Sandler et al. 2018, table 2.
STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (3, 3, 2, 6, 32), (4, 3, 2, 6, 64)),
    *((3, 3, 1, 6, 96), (3, 3, 2, 6, 160), (1, 3, 1, 6, 320)),
)
STEM_FEATURES = 32
TOP_FEATURES = 1280


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where the shape allows it.

    Args:
      in_features: K_in.
      out_features: K_out.
      kernel_size, strides, padding: of the depthwise convolution.
      wide: its number of features; there is no expansion if they are K_in.
      activation: after the first two convolutions.
      squeeze_excite: applied to the result of the depthwise convolution, if given.
      **options: of every `ConvBN`: momentum, epsilon, dtype, rngs.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        strides: int,
        wide: int,
        *,
        padding: str | int,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu6,
        squeeze_excite: SqueezeExcite | None = None,
        **options: Any,
    ):
        self.expand = ConvBN(in_features, wide, 1, activation=activation, **options) if wide != in_features else None
        self.depthwise = ConvBN(
            wide, wide, kernel_size, strides, padding=padding, groups=wide, activation=activation, **options
        )
        self.squeeze_excite = squeeze_excite
        self.project = ConvBN(wide, out_features, 1, activation=None, **options)
        self.shortcut = strides == 1 and in_features == out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', K_out)."""
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        if self.squeeze_excite is not None:
            y = self.squeeze_excite(y)
        y = self.project(y)
        return x + y if self.shortcut else y


class InvertedResidualNet(CamModel):
    """A 3x3 convolution, stages of inverted residuals, a 1x1 convolution, and a pooled head. Map: input side / 32.

    Args:
      stages: (repeats, kernel size, stride of the first block, expansion, K_out) of each.
      num_classes, pool, dtype, rngs: as in `camjax.create_model`.
      padding: of the 3x3 and the depthwise convolutions, as in `ConvBN`.
      dropout: rate of dropout before the head.
      batchnorm: momentum and epsilon of `ConvBN`, if they are not its defaults.
      **rule: input_size, mean, std and channel_order of `CamModel`.
    """

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int, int, int]],
        num_classes: int,
        *,
        pool: Pool,
        padding: str | int,
        dropout: float,
        batchnorm: dict[str, float] | None = None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        **rule: Any,
    ):
        super().__init__(stride=32, dtype=dtype, **rule)
        options: dict[str, Any] = {"dtype": dtype, "rngs": rngs, **(batchnorm or {})}
        self.stem = ConvBN(3, STEM_FEATURES, 3, 2, padding=padding, activation=jax.nn.relu6, **options)
        blocks, in_features = [], STEM_FEATURES
        for repeats, kernel_size, strides, expansion, out_features in stages:
            for i in range(repeats):
                block_strides = strides if i == 0 else 1
                wide = in_features * expansion
                blocks.append(
                    InvertedResidual(
                        in_features, out_features, kernel_size, block_strides, wide, padding=padding, **options
                    )
                )
                in_features = out_features
        self.blocks = nnx.List(blocks)
        self.top = ConvBN(in_features, TOP_FEATURES, 1, activation=jax.nn.relu6, **options)
        self.head = PooledHead(TOP_FEATURES, num_classes, pool=pool, dropout=dropout, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 32), ceil(W / 32), 1280)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.top(x)


class MobileNetV2(InvertedResidualNet):
    """MobileNetV2 of width 1. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        options = {"padding": 1, "dropout": 0.2, "dtype": dtype, "rngs": rngs, "input_size": (224, 224)}
        super().__init__(STAGES, num_classes, pool=pool, **options, **IMAGENET_INPUT)


def timm_names(repeats: Sequence[int]) -> Table:
    """The rules of timm's networks of inverted residuals, which count the blocks of each stage from 0.

    Args:
      repeats: number of blocks per stage; those of the first stage have no expansion.
    """
    rules, number = [*convbn("conv_stem", "bn1", "stem")], 0
    for stage, count in enumerate(repeats):
        for i in range(count):
            rules += timm_block(rf"blocks\.{stage}\.{i}", f"blocks.{number}", expands=bool(stage))
            number += 1
    return (*rules, *convbn("conv_head", "bn2", "top"), *layer("classifier", "head", DENSE))


def timm_block(name: str, place: str, *, expands: bool = True, squeezes: bool = False) -> Table:
    """The rules of one of timm's inverted residuals.

    Args:
      name: pattern of the block's name.
      place: of the block in the model.
      expands: whether it has an expansion.
      squeezes: whether it has squeeze-and-excitation.
    """
    layers = ("expand", "depthwise", "project") if expands else ("depthwise", "project")
    convs = ("conv_pw", "conv_dw", "conv_pwl") if expands else ("conv_dw", "conv_pw")
    rules: list[Rule] = []
    for n, (conv, at) in enumerate(zip(convs, layers, strict=True), 1):
        rules += convbn(rf"{name}\.{conv}", rf"{name}\.bn{n}", f"{place}.{at}")
    for at in ("reduce", "expand") if squeezes else ():
        rules += layer(rf"{name}\.se\.conv_{at}", f"{place}.squeeze_excite.{at}", DENSE)
    return tuple(rules)


def torchvision_block(name: str, place: str, *, expands: bool = True, squeezes: bool = False) -> Table:
    """The rules of one of torchvision's inverted residuals after MobileNetV2; arguments as in `timm_block`."""
    rules: list[Rule] = []
    for n, at in enumerate([*["expand"] * expands, "depthwise", *["squeeze_excite"] * squeezes, "project"]):
        if at != "squeeze_excite":
            rules += convbn(rf"{name}\.block\.{n}\.0", rf"{name}\.block\.{n}\.1", f"{place}.{at}")
            continue
        for number, dense in enumerate(("reduce", "expand"), 1):
            rules += layer(rf"{name}\.block\.{n}\.fc{number}", f"{place}.{at}.{dense}", DENSE)
    return tuple(rules)


def _torchvision_names() -> Table:
    """The rules of torchvision's names, which number stem, blocks and top throughout."""
    blocks = sum(repeats for repeats, *_ in STAGES)
    rules = [*convbn(r"features\.0\.0", r"features\.0\.1", "stem")]
    for number in range(blocks):
        name, place = rf"features\.{number + 1}\.conv\.", f"blocks.{number}."
        activated = ["expand", "depthwise"] if number else ["depthwise"]
        for n, block_layer in enumerate(activated):
            rules += convbn(rf"{name}{n}\.0", rf"{name}{n}\.1", place + block_layer)
        rules += convbn(f"{name}{len(activated)}", f"{name}{len(activated) + 1}", f"{place}project")
    top = rf"features\.{blocks + 1}"
    return (*rules, *convbn(rf"{top}\.0", rf"{top}\.1", "top"), *layer(r"classifier\.1", "head", DENSE))


_WEIGHTS = (torchvision("mobilenet_v2", "mobilenet_v2-b0353104.pth"), WeightsSource("timm", "mobilenetv2_100"))
_NAMES = _torchvision_names() + timm_names([repeats for repeats, *_ in STAGES])

SPECS = (ModelSpec("mobilenet_v2", MobileNetV2, weights=_WEIGHTS, tensor_names=_NAMES),)
