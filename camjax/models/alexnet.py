"""AlexNet (Krizhevsky et al. 2012) as Caffe has it, and the two that the paper on class activation mapping made of it.

AlexNet-GAP puts a convolution and a pooled head in place of all that follows conv5; AlexNet*-GAP ("AlexNet+") two
convolutions more (Zhou et al. 2016, sections 3.1 and 3.2). The layers have Caffe's names.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.caffe_layers import CAFFE_DEVIATION, CAFFE_INPUT, CAFFE_NAMES, conv, lrn, max_pool
from camjax.models.head import FullyConnectedHead, Pool, PooledHead
from camjax.models.layers import relu
from camjax.models.spec import ModelSpec, WeightsSource, cam_release


class _Trunk(CamModel):
    """conv1 to conv5, which the three networks share except for conv5's width and the place of LRN.

    Args:
      conv5_features: K_out of conv5.
      pool_first: whether LRN comes after pooling, as in AlexNet+, and not before it.
    """

    def __init__(self, conv5_features: int, *, pool_first: bool, min_size: int = 23, dtype, rngs: nnx.Rngs):
        super().__init__(input_size=(227, 227), stride=16, min_size=min_size, dtype=dtype, **CAFFE_INPUT)
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = conv(3, 96, 11, 4, input_deviation=CAFFE_DEVIATION, **options)
        self.conv2 = conv(96, 256, 5, padding=2, groups=2, **options)
        self.conv3 = conv(256, 384, 3, padding=1, **options)
        self.conv4 = conv(384, 384, 3, padding=1, groups=2, **options)
        self.conv5 = conv(384, conv5_features, 3, padding=1, groups=2, **options)
        self.pool_first = pool_first

    def trunk(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, K), conv5 with its ReLU; 13 x 13 for 227 x 227."""
        for layer in (self.conv1, self.conv2):
            x = relu(layer(x))
            x = lrn(max_pool(x, 3, 2)) if self.pool_first else max_pool(lrn(x), 3, 2)
        for layer in (self.conv3, self.conv4, self.conv5):
            x = relu(layer(x))
        return x


class AlexNet(_Trunk):
    """AlexNet with its fully connected layers: a classifier of 227 x 227 images, without class activation maps.

    Args:
      pool: only "gap"; see `FullyConnectedHead`.
      num_classes, dtype, rngs: as in `camjax.create_model`.
    """

    cam_variant = "alexnet_gap"

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(256, pool_first=False, dtype=dtype, rngs=rngs)
        self.head = FullyConnectedHead((6, 6), 256, num_classes, pool=pool, dtype=dtype, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, 227, 227, 3) normalized images -> (B, 6, 6, 256)."""
        return max_pool(self.trunk(x), 3, 2)


class AlexNetGap(_Trunk):
    """AlexNet-GAP. Map: 13 x 13 for 227 x 227, about input side / 16. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(256, pool_first=False, dtype=dtype, rngs=rngs)
        self.cam_conv = conv(256, 1024, 3, padding=1, groups=2, dtype=dtype, rngs=rngs)
        self.head = PooledHead(1024, num_classes, pool=pool, dropout=0.5, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 1024)."""
        return relu(self.cam_conv(self.trunk(x)))


class AlexNetStarGap(_Trunk):
    """AlexNet*-GAP, released as "AlexNet+". Map: 11 x 11 for 227 x 227, about input side / 16.

    Arguments as in `camjax.create_model`.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(384, pool_first=True, min_size=55, dtype=dtype, rngs=rngs)
        self.conv6 = conv(384, 512, 3, padding=1, groups=2, dtype=dtype, rngs=rngs)
        self.conv7 = conv(512, 512, 3, padding=1, groups=2, dtype=dtype, rngs=rngs)
        self.head = PooledHead(512, num_classes, pool=pool, dropout=0.5, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, 512)."""
        x = max_pool(self.trunk(x), 3, 1)
        return relu(self.conv7(relu(self.conv6(x))))


_CAFFE = WeightsSource("Caffe", "bvlc_alexnet", "caffemodel")
_BACKBONE = dataclasses.replace(_CAFFE, backbone_only=True)
# bvlc_reference_caffenet has layers of the same names and shapes, and pools before it normalizes.
_ORDER = ("norm1", "pool1", "norm2", "pool2")
_GAP = WeightsSource(None, "AlexNet-GAP", "caffemodel")
_STAR = (
    cam_release("AlexNet+-CAM", "alexnetplusCAM_imagenet"),
    cam_release("AlexNet+-CAM", "alexnetplusCAM_places205", data="Places205", num_classes=205),
)

SPECS = (
    ModelSpec(
        "alexnet",
        AlexNet,
        weights=(_CAFFE,),
        tensor_names=CAFFE_NAMES,
        class_layer="head.fc8",
        caffe_order=_ORDER,
    ),
    ModelSpec(
        "alexnet_gap",
        AlexNetGap,
        weights=(_GAP, _BACKBONE),
        tensor_names=CAFFE_NAMES,
        caffe_order=_ORDER,
        new_layers=("cam_conv", "head"),
    ),
    ModelSpec(
        "alexnet_star_gap",
        AlexNetStarGap,
        weights=(*_STAR, _BACKBONE),
        tensor_names=CAFFE_NAMES,
        new_layers=("conv5", "conv6", "conv7", "head"),
    ),
)
