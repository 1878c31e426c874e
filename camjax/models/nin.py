"""Network in Network (Lin et al. 2014, arXiv:1312.4400) for ImageNet, as Caffe has it.

Its last convolution gives one map a class, which global average pooling turns into logits: the features are the class
maps. The layers have Caffe's names ("cccp": cascaded cross-channel pooling, a 1x1 convolution). As in the released
network, a ReLU follows that last convolution too, so that no map and no logit is negative.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.caffe_layers import CAFFE_DEVIATION, CAFFE_INPUT, CAFFE_NAMES, conv, max_pool
from camjax.models.head import MapHead, Pool
from camjax.models.layers import relu
from camjax.models.spec import ModelSpec, WeightsSource


class NIN(CamModel):
    """Network in Network. Map: 6 x 6 for 224 x 224, about input side / 32. Arguments as in `camjax.create_model`."""

    def __init__(self, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(input_size=(224, 224), stride=32, min_size=39, dtype=dtype, **CAFFE_INPUT)
        self.head = MapHead(num_classes, pool=pool)
        options = {"dtype": dtype, "rngs": rngs}
        self.conv1 = conv(3, 96, 11, 4, input_deviation=CAFFE_DEVIATION, **options)
        self.cccp1 = conv(96, 96, 1, **options)
        self.cccp2 = conv(96, 96, 1, **options)
        self.conv2 = conv(96, 256, 5, padding=2, **options)
        self.cccp3 = conv(256, 256, 1, **options)
        self.cccp4 = conv(256, 256, 1, **options)
        self.conv3 = conv(256, 384, 3, padding=1, **options)
        self.cccp5 = conv(384, 384, 1, **options)
        self.cccp6 = conv(384, 384, 1, **options)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.conv4 = conv(384, 1024, 3, padding=1, **options)
        self.cccp7 = conv(1024, 1024, 1, **options)
        self.cccp8 = conv(1024, num_classes, 1, **options)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, h, w, C)."""
        for layers in (
            (self.conv1, self.cccp1, self.cccp2),
            (self.conv2, self.cccp3, self.cccp4),
            (self.conv3, self.cccp5, self.cccp6),
        ):
            for layer in layers:
                x = relu(layer(x))
            x = max_pool(x, 3, 2)
        x = self.dropout(x)
        for layer in (self.conv4, self.cccp7, self.cccp8):
            x = relu(layer(x))
        return x


_CAFFE = WeightsSource("Caffe", "nin_imagenet", "caffemodel")

SPECS = (ModelSpec("nin", NIN, weights=(_CAFFE,), tensor_names=CAFFE_NAMES, class_layer="cccp8"),)
