"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv:1602.07360), whose last convolution gives the class maps.

The definition is torchvision's `squeezenet1_1`: windows of its poolings cover the image to its end, and a ReLU follows
the last convolution. So its maps are rectified: no map and no logit is negative, and evidence against a class does not
show. Images are normalized with ImageNet's mean and deviation.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models import layers
from camjax.models.base import IMAGENET_INPUT, CamModel
from camjax.models.caffe_layers import conv, max_pool
from camjax.models.head import MapHead, Pool
from camjax.models.spec import ModelSpec, torchvision
from camjax.models.tensor_names import CONV, layer

# (squeeze, expand) features of the Fire modules; a pooling layer precedes each group.
GROUPS = (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256)))
STEM_FEATURES = 64
DROPOUT = 0.5

# With one pixel less, nothing is left for the last pooling.
MIN_SIZE = 17


class Fire(nnx.Module):
    """A 1x1 convolution to fewer features, then a 1x1 and a 3x3 one side by side to more (Iandola et al., 3.2)."""

    def __init__(self, in_features: int, squeeze: int, expand: int, **options):
        self.squeeze = conv(in_features, squeeze, 1, **options)
        self.expand1x1 = conv(squeeze, expand, 1, **options)
        self.expand3x3 = conv(squeeze, expand, 3, padding=1, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H, W, 2 * expand)."""
        x = layers.relu(self.squeeze(x))
        return layers.relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], axis=-1))


class SqueezeNet(CamModel):
    """SqueezeNet 1.1. Map: 13 x 13 for 224 x 224, about input side / 16; its channels are the classes.

    Arguments as in `camjax.create_model`.
    """

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=16, min_size=MIN_SIZE, dtype=dtype, **IMAGENET_INPUT)
        self.head = MapHead(num_classes, pool=pool)
        options = {"dtype": dtype, "rngs": rngs}
        self.stem = conv(3, STEM_FEATURES, 3, 2, **options)
        groups, in_features = [], STEM_FEATURES
        for group in GROUPS:
            fires = []
            for squeeze, expand in group:
                fires.append(Fire(in_features, squeeze, expand, **options))
                in_features = 2 * expand
            groups.append(nnx.List(fires))
        self.groups = nnx.List(groups)
        self.dropout = nnx.Dropout(DROPOUT, rngs=rngs)
        self.classifier = layers.conv2d(
            in_features,
            num_classes,
            1,
            # Small, or the first losses are in the tens: the classes, which may be few, are its only outputs.
            kernel_init=nnx.initializers.normal(0.01),
            **options,
        )

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, C)."""
        x = layers.relu(self.stem(x))
        for fires in self.groups:
            x = max_pool(x, 3, 2)
            for fire in fires:
                x = fire(x)
        return layers.relu(self.classifier(self.dropout(x)))


# The Fire modules' numbers among torchvision's `features`, by group.
_FIRES = ((3, 4), (6, 7), (9, 10, 11, 12))

TENSOR_NAMES = (
    *layer(r"features\.0", "stem", CONV),
    *(
        rule
        for group, numbers in enumerate(_FIRES)
        for i, number in enumerate(numbers)
        for rule in layer(rf"features\.{number}\.(squeeze|expand1x1|expand3x3)", rf"groups.{group}.{i}.\1", CONV)
    ),
    *layer(r"classifier\.1", "classifier", CONV),
)

_WEIGHTS = (torchvision("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),)

SPECS = (ModelSpec("squeezenet1_1", SqueezeNet, weights=_WEIGHTS, tensor_names=TENSOR_NAMES, class_layer="classifier"),)
