"""RegNetY (Radosavovic et al. 2020, arXiv:2003.13678): bottlenecks with groups of one width and squeeze-and-excite.

The definition is torchvision's and timm's, which is that of pycls. Images are normalized with ImageNet's mean and
deviation.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, SqueezeExcite
from camjax.models.resnet import Bottleneck
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import DENSE, Table, convbn, layer

# (blocks, features) of the stages of RegNetY-1.6GF, and the width of its groups: Radosavovic et al. 2020, table 11.
STAGES = ((2, 48), (6, 120), (17, 336), (2, 888))
GROUP_WIDTH = 24
STEM_FEATURES = 32


class RegNetY(CamModel):
    """RegNetY-1.6GF with a pooled head. Map: input side / 32. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=32, dtype=dtype, **IMAGENET_INPUT)
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = ConvBN(3, STEM_FEATURES, 3, 2, padding=1, **options)
        stages, in_features = [], STEM_FEATURES
        for repeats, features in STAGES:
            blocks = []
            for i in range(repeats):
                blocks.append(
                    Bottleneck(
                        in_features,
                        features,
                        features,
                        2 if i == 0 else 1,
                        groups=features // GROUP_WIDTH,
                        squeeze_excite=SqueezeExcite(features, in_features // 4, **options),
                        **options,
                    )
                )
                in_features = features
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = PooledHead(in_features, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 32), ceil(W / 32), 888)."""
        x = self.stem(x)
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
        return x


def _torchvision_names() -> Table:
    rules = [*convbn(r"stem\.0", r"stem\.1", "stem")]
    for stage in range(len(STAGES)):
        name, place = rf"trunk_output\.block{stage + 1}\.block{stage + 1}-(\d+)", rf"stages.{stage}.\1"
        for n, conv in enumerate("abc", 1):
            rules += convbn(rf"{name}\.f\.{conv}\.0", rf"{name}\.f\.{conv}\.1", f"{place}.conv{n}")
        rules += convbn(rf"{name}\.proj\.0", rf"{name}\.proj\.1", f"{place}.downsample")
        for n, dense in enumerate(("reduce", "expand"), 1):
            rules += layer(rf"{name}\.f\.se\.fc{n}", f"{place}.squeeze_excite.{dense}", DENSE)
    return (*rules, *layer("fc", "head", DENSE))


def _timm_names() -> Table:
    rules = [*convbn(r"stem\.conv", r"stem\.bn", "stem")]
    for stage, (repeats, _) in enumerate(STAGES):
        for i in range(repeats):  # which timm counts from 1
            name, place = rf"s{stage + 1}\.b{i + 1}", f"stages.{stage}.{i}"
            rules += convbn(rf"{name}\.conv(\d)\.conv", rf"{name}\.conv(\d)\.bn", rf"{place}.conv\1")
            for n, dense in enumerate(("reduce", "expand"), 1):
                rules += layer(rf"{name}\.se\.fc{n}", f"{place}.squeeze_excite.{dense}", DENSE)
        first = rf"s{stage + 1}\.b1\.downsample"
        rules += convbn(rf"{first}\.conv", rf"{first}\.bn", f"stages.{stage}.0.downsample")
    return (*rules, *layer(r"head\.fc", "head", DENSE))


_WEIGHTS = (
    torchvision("regnet_y_1_6gf", "regnet_y_1_6gf-0d7bc02a.pth"),
    WeightsSource("timm", "regnety_016", address="hf://timm/regnety_016.tv2_in1k"),
)

SPECS = (ModelSpec("regnety_016", RegNetY, weights=_WEIGHTS, tensor_names=_torchvision_names() + _timm_names()),)
