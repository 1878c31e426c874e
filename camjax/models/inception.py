"""Inception v3 (Szegedy et al. 2016, arXiv:1512.00567), and the localization benchmark's form of it.

- `inception_v3` is torchvision's: it ends in global average pooling and one dense layer, and has exact maps.
- `inception_v3_wsol` is that of the benchmark for weakly supervised localization (Choe et al. 2020): padded and with
  fewer strides, it ends after Mixed_6e in two 3x3 convolutions of 1024 units and a 1x1 convolution. Averaging the 1x1
  convolution over space is the same as global average pooling before it, so that here it is the head's dense layer.
  `inception_v3_wsol_28x28` lacks the third pooling, the benchmark's "large feature map".

The layers have torchvision's names.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models import pooling
from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.caffe_layers import conv, max_pool
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, avg_pool, relu
from camjax.models.spec import ModelSpec, WeightsSource, torchvision
from camjax.models.tensor_names import CONV, DENSE, Rule, convbn, layer
from camjax.models.wsol.method import Places


class _Branches(nnx.Module):
    """Chains of convolutions and a pool side by side, concatenated: every block of Inception v3 but the last.

    Args:
      in_features: K_in.
      chains: for each branch, in order, {name: (K_out, kernel size)} of its convolutions.
      strides: of the last convolution of each chain, and of the pool if it is a max pool.
      padding: pixels of zeros around these; None for as many as keep the size.
      pool_features: K_out of the 1x1 convolution after an average pool; None for a max pool without convolution.
    """

    def __init__(self, in_features, chains, *, strides=1, padding=None, pool_features=None, dtype, rngs):
        options = {"epsilon": 1e-3, "dtype": dtype, "rngs": rngs}
        self.chains = tuple(tuple(chain) for chain in chains)
        self.strides, self.padding = strides, padding
        self.out_features = in_features if pool_features is None else pool_features
        for chain in chains:
            features = in_features
            for name, (out_features, kernel_size) in chain.items():
                reduces = padding is not None and name == list(chain)[-1]
                placing = {"strides": strides, "padding": padding} if reduces else {}
                setattr(self, name, ConvBN(features, out_features, kernel_size, **placing, **options))
                features = out_features
            self.out_features += features
        self.branch_pool = None if pool_features is None else ConvBN(in_features, pool_features, 1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', out_features)."""
        branches = []
        for chain in self.chains:
            y = x
            for name in chain:
                y = getattr(self, name)(y)
            branches.append(y)
        if self.branch_pool is None:
            pads = ((self.padding, self.padding),) * 2
            branches.append(pooling.max_pool(x, 3, self.strides, pads))
        else:
            branches.append(self.branch_pool(_average(x)))
        return jnp.concatenate(branches, -1)


class _InceptionE(nnx.Module):
    """The block of the 8 x 8 map, two of whose branches fork (Szegedy et al. 2016, figure 7)."""

    def __init__(self, in_features, *, dtype, rngs):
        options = {"epsilon": 1e-3, "dtype": dtype, "rngs": rngs}
        self.branch1x1 = ConvBN(in_features, 320, 1, **options)
        self.branch3x3_1 = ConvBN(in_features, 384, 1, **options)
        self.branch3x3_2a = ConvBN(384, 384, (1, 3), **options)
        self.branch3x3_2b = ConvBN(384, 384, (3, 1), **options)
        self.branch3x3dbl_1 = ConvBN(in_features, 448, 1, **options)
        self.branch3x3dbl_2 = ConvBN(448, 384, 3, **options)
        self.branch3x3dbl_3a = ConvBN(384, 384, (1, 3), **options)
        self.branch3x3dbl_3b = ConvBN(384, 384, (3, 1), **options)
        self.branch_pool = ConvBN(in_features, 192, 1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H, W, 2048)."""
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        branches = (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(_average(x)),
        )
        return jnp.concatenate(branches, -1)


class _Trunk(CamModel):
    """The stem and the blocks up to Mixed_6e.

    Args:
      padded: the benchmark's form: zeros around the first convolution, the poolings (whose sides are rounded up) and
        Mixed_6a, which has stride 1.
      rule: `mean` and `std` of `CamModel`, with `input_size`, `stride` and `min_size`.
    """

    def __init__(self, *, padded: bool, dtype, rngs: nnx.Rngs, **rule):
        super().__init__(dtype=dtype, **rule)
        options = {"dtype": dtype, "rngs": rngs}
        stem = {"epsilon": 1e-3, **options}
        self.padded = padded
        self.Conv2d_1a_3x3 = ConvBN(3, 32, 3, 2, padding=int(padded), **stem)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3, padding=0, **stem)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3, **stem)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1, **stem)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3, padding=0, **stem)
        self.Mixed_5b = _inception_a(192, 32, **options)
        self.Mixed_5c = _inception_a(256, 64, **options)
        self.Mixed_5d = _inception_a(288, 64, **options)
        self.Mixed_6a = _Branches(
            288,
            (
                {"branch3x3": (384, 3)},
                {"branch3x3dbl_1": (64, 1), "branch3x3dbl_2": (96, 3), "branch3x3dbl_3": (96, 3)},
            ),
            strides=1 if padded else 2,
            padding=int(padded),
            **options,
        )
        self.Mixed_6b = _inception_c(128, **options)
        self.Mixed_6c = _inception_c(160, **options)
        self.Mixed_6d = _inception_c(160, **options)
        self.Mixed_6e = _inception_c(192, **options)

    def to_5d(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 288), about the sides / 8."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self._pool(x)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = self._pool(x)
        return self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))

    def to_6e(self, x: jax.Array) -> jax.Array:
        """(B, h, w, 288) -> (B, h', w', 768)."""
        for block in (self.Mixed_6a, self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e):
            x = block(x)
        return x

    def _pool(self, x):
        return max_pool(x, 3, 2, 1) if self.padded else pooling.max_pool(x, 3, 2)


class InceptionV3(_Trunk):
    """Inception v3. Map: 8 x 8 for 299 x 299, about input side / 32. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(
            padded=False,
            input_size=(299, 299),
            stride=32,
            min_size=75,
            # Images in -1..1, to which torchvision turns its own normalization back.
            mean=(127.5,) * 3,
            std=(127.5,) * 3,
            dtype=dtype,
            rngs=rngs,
        )
        options = {"dtype": dtype, "rngs": rngs}
        self.Mixed_7a = _Branches(
            768,
            (
                {"branch3x3_1": (192, 1), "branch3x3_2": (320, 3)},
                {
                    "branch7x7x3_1": (192, 1),
                    "branch7x7x3_2": (192, (1, 7)),
                    "branch7x7x3_3": (192, (7, 1)),
                    "branch7x7x3_4": (192, 3),
                },
            ),
            strides=2,
            padding=0,
            **options,
        )
        self.Mixed_7b = _InceptionE(1280, **options)
        self.Mixed_7c = _InceptionE(2048, **options)
        self.head = PooledHead(2048, num_classes, pool=pool, dropout=0.5, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 2048)."""
        x = self.to_6e(self.to_5d(x))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))


class InceptionV3Wsol(_Trunk):
    """The benchmark's Inception v3. Map: 14 x 14 for 224 x 224, about input side / 16; or 28 x 28.

    With ACoL and ADL it has no dropout, and with ACoL it ends with Mixed_6e.

    Args:
      large: whether the third pooling is left out, for a map of twice the side.
      num_classes, pool, dtype, rngs: as in `camjax.create_model`.
    """

    wsol_places = Places(adl=("Mixed_5d", "Mixed_6e", "SPG_A3_2b"), spg=("pool", "Mixed_6e"), spg_width=512)
    SPG_A3_1b: nnx.Conv | None
    SPG_A3_2b: nnx.Conv | None

    def __init__(self, large: bool, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(
            padded=True,
            input_size=(224, 224),
            stride=8 if large else 16,
            min_size=16,
            dtype=dtype,
            rngs=rngs,
            **IMAGENET_INPUT,
        )
        self.large = large
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.SPG_A3_1b = nnx.data(conv(768, 1024, 3, padding=1, dtype=dtype, rngs=rngs))
        self.SPG_A3_2b = nnx.data(conv(1024, 1024, 3, padding=1, dtype=dtype, rngs=rngs))
        self.head = PooledHead(1024, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 1024)."""
        *_, last = self.stage_maps(x).values()
        return last

    def stage_maps(self, x: jax.Array) -> dict[str, jax.Array]:
        """The maps after Mixed_5d, the third pooling ("pool"), Mixed_6e and each of the last two convolutions."""
        maps = {}
        x = maps["Mixed_5d"] = self.at("Mixed_5d", self.to_5d(x))
        x = maps["pool"] = self.at("pool", x if self.large else max_pool(x, 3, 2))
        x = maps["Mixed_6e"] = self.at("Mixed_6e", self.to_6e(x))
        for name in ("SPG_A3_1b", "SPG_A3_2b"):
            if getattr(self, name) is not None:
                x = maps[name] = self.at(name, relu(getattr(self, name)(self.dropout(x))))
        *_, last = maps
        return {**maps, last: self.dropout(x)}

    def for_wsol(self, method: str, *, rngs: nnx.Rngs) -> None:
        """See the class."""
        if method in ("acol", "adl"):
            self.dropout.rate = 0.0
        if method == "acol":
            self.SPG_A3_1b = self.SPG_A3_2b = None


def _average(x: jax.Array) -> jax.Array:
    """3x3 average pooling at stride 1; zeros around the image count."""
    return avg_pool(x, 3, 1, "SAME")


def _inception_a(in_features: int, pool_features: int, **options) -> _Branches:
    """The block of the 35 x 35 map (Szegedy et al. 2016, figure 5; torchvision keeps a 5x5 convolution)."""
    chains = (
        {"branch1x1": (64, 1)},
        {"branch5x5_1": (48, 1), "branch5x5_2": (64, 5)},
        {"branch3x3dbl_1": (64, 1), "branch3x3dbl_2": (96, 3), "branch3x3dbl_3": (96, 3)},
    )
    return _Branches(in_features, chains, pool_features=pool_features, **options)


def _inception_c(width: int, **options) -> _Branches:
    """The block of the 17 x 17 map, with 7x7 convolutions in two parts (Szegedy et al. 2016, figure 6)."""
    chains = (
        {"branch1x1": (192, 1)},
        {"branch7x7_1": (width, 1), "branch7x7_2": (width, (1, 7)), "branch7x7_3": (192, (7, 1))},
        {
            "branch7x7dbl_1": (width, 1),
            "branch7x7dbl_2": (width, (7, 1)),
            "branch7x7dbl_3": (width, (1, 7)),
            "branch7x7dbl_4": (width, (7, 1)),
            "branch7x7dbl_5": (192, (1, 7)),
        },
    )
    return _Branches(768, chains, pool_features=192, **options)


TENSOR_NAMES = (
    Rule(r"AuxLogits\..+", None),  # the auxiliary classifier, which only training used
    *convbn(r"((?:Conv2d|Mixed)_.+)\.conv", r"((?:Conv2d|Mixed)_.+)\.bn", r"\1"),
    *layer("fc", "head", DENSE),
    *layer(r"(SPG_A3_\db)\.0", r"\1", CONV),
    *layer("SPG_A4", "head", DENSE),
)

_TORCHVISION = torchvision("inception_v3", "inception_v3_google-0cc3c7bd.pth")
_BACKBONE = dataclasses.replace(_TORCHVISION, backbone_only=True)
_WSOL = WeightsSource("wsolevaluation", "InceptionCam")

SPECS = (
    ModelSpec("inception_v3", InceptionV3, weights=(_TORCHVISION,), tensor_names=TENSOR_NAMES),
    *(
        ModelSpec(
            name,
            functools.partial(InceptionV3Wsol, large),
            weights=(_WSOL, _BACKBONE),
            tensor_names=TENSOR_NAMES,
            new_layers=("SPG_A3_1b", "SPG_A3_2b", "head"),
        )
        for name, large in (("inception_v3_wsol", False), ("inception_v3_wsol_28x28", True))
    ),
)
