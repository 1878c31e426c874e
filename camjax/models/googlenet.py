"""GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842) as Caffe has it, and GoogLeNet-GAP.

GoogLeNet itself ends in global average pooling and one dense layer, and has exact maps of 7 x 7. GoogLeNet-GAP ends
after inception_4e in a convolution and a pooled head, for maps of 14 x 14 (Zhou et al. 2016, section 3.1). The layers
have Caffe's names. The two auxiliary classifiers, which only training used, are left out.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.caffe_layers import CAFFE_DEVIATION, CAFFE_INPUT, CAFFE_NAMES, conv, lrn, max_pool
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import relu
from camjax.models.spec import ModelSpec, WeightsSource, cam_release

# Szegedy et al. 2015, table 1: K_out of 1x1, of 3x3 reduce and 3x3, of 5x5 reduce and 5x5, of the pool's projection.
WIDTHS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class Inception(nnx.Module):
    """1x1, 3x3 and 5x5 convolutions and a pool side by side (Szegedy et al. 2015, figure 2b)."""

    def __init__(self, in_features, widths, *, dtype, rngs):
        one, three_reduce, three, five_reduce, five, projection = widths
        options = {"dtype": dtype, "rngs": rngs}
        self.b1x1 = conv(in_features, one, 1, **options)
        self.b3x3_reduce = conv(in_features, three_reduce, 1, **options)
        self.b3x3 = conv(three_reduce, three, 3, padding=1, **options)
        self.b5x5_reduce = conv(in_features, five_reduce, 1, **options)
        self.b5x5 = conv(five_reduce, five, 5, padding=2, **options)
        self.pool_proj = conv(in_features, projection, 1, **options)
        self.out_features = one + three + five + projection

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H, W, out_features)."""
        branches = (
            self.b1x1(x),
            self.b3x3(relu(self.b3x3_reduce(x))),
            self.b5x5(relu(self.b5x5_reduce(x))),
            self.pool_proj(max_pool(x, 3, 1, 1)),
        )
        return relu(jnp.concatenate(branches, -1))


class _Trunk(CamModel):
    """The stem and the inception modules up to `last`, such as "4e", which has `trunk_features` channels."""

    def __init__(self, last: str, *, stride: int, dtype, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=stride, dtype=dtype, **CAFFE_INPUT)
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = conv(3, 64, 7, 2, padding=3, input_deviation=CAFFE_DEVIATION, **options)
        self.conv2_reduce = conv(64, 64, 1, **options)
        self.conv2 = conv(64, 192, 3, padding=1, **options)
        self.names = tuple(name for name in WIDTHS if name <= last)
        self.trunk_features = 192
        for name in self.names:
            module = Inception(self.trunk_features, WIDTHS[name], **options)
            setattr(self, f"inception_{name}", module)
            self.trunk_features = module.out_features

    def trunk(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, trunk_features)."""
        x = lrn(max_pool(relu(self.conv1(x)), 3, 2))
        x = lrn(relu(self.conv2(relu(self.conv2_reduce(x)))))
        for name in self.names:
            if name in ("3a", "4a", "5a"):
                x = max_pool(x, 3, 2)
            x = getattr(self, f"inception_{name}")(x)
        return x


class GoogLeNet(_Trunk):
    """GoogLeNet. Map: 7 x 7 for 224 x 224, input side / 32. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__("5b", stride=32, dtype=dtype, rngs=rngs)
        self.head = PooledHead(self.trunk_features, num_classes, pool=pool, dropout=0.4, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 1024)."""
        return self.trunk(x)


class GoogLeNetGap(_Trunk):
    """GoogLeNet-GAP (with pool="gmp", the paper's GoogLeNet-GMP). Map: 14 x 14 for 224 x 224, input side / 16.

    Arguments as in `camjax.create_model`.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__("4e", stride=16, dtype=dtype, rngs=rngs)
        self.cam_conv = conv(self.trunk_features, 1024, 3, padding=1, groups=2, dtype=dtype, rngs=rngs)
        self.head = PooledHead(1024, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 1024)."""
        return relu(self.cam_conv(self.trunk(x)))


_CAFFE = WeightsSource("Caffe", "bvlc_googlenet", "caffemodel")
_BACKBONE = dataclasses.replace(_CAFFE, backbone_only=True)
# The release's list spelled "googlelet" in 2016.
_CAM = (
    cam_release("GoogLeNet-CAM", "imagenet_googlenetCAM_train_iter_120000", "imagenet_googleletCAM_train_iter_120000"),
    cam_release(
        "GoogLeNet-CAM",
        "places_googlenetCAM_train_iter_120000",
        "places_googleletCAM_train_iter_120000",
        data="Places205",
        num_classes=205,
    ),
)

SPECS = (
    ModelSpec("googlenet", GoogLeNet, weights=(_CAFFE,), tensor_names=CAFFE_NAMES),
    ModelSpec(
        "googlenet_gap",
        GoogLeNetGap,
        weights=(*_CAM, _BACKBONE),
        tensor_names=CAFFE_NAMES,
        new_layers=("cam_conv", "head"),
    ),
)
