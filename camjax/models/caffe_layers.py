"""What Caffe's networks have in common: layers, how they take images, and the names of their weights."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from camjax.models import layers, pooling
from camjax.models.base import InputRule
from camjax.models.tensor_names import CONV, DENSE, Rule, Table

# How Caffe's networks take images: B, G, R in 0..255, less the mean of ILSVRC 2012's training images (here R, G, B).
CAFFE_INPUT: InputRule = {
    "mean": (122.67891434, 116.66876762, 104.00698793),
    "std": (1.0, 1.0, 1.0),
    "channel_order": "bgr",
}
# Their standard deviation, in round numbers. The initial kernel of the first convolution is divided by it.
CAFFE_DEVIATION = 64.0


def _blobs(pattern: str, place: str, axes: tuple[int, ...]) -> Table:
    """The rules of a layer with weights and bias, which `read_caffemodel` names as blobs 0 and 1 of the layer."""
    return Rule(rf"{pattern}\.0", f"{place}.kernel", axes), Rule(rf"{pattern}\.1", f"{place}.bias")


# One table serves all of Caffe's files, since the models have Caffe's names and no two files have one name for two
# things. They are
# - GoogLeNet-CAM, VGG16-CAM and AlexNet+-CAM (Zhou et al. 2016), for ImageNet's 1000 classes and Places' 205;
# - bvlc_alexnet and bvlc_googlenet of Caffe's model zoo; nin_imagenet (Lin et al. 2014); VGG_ILSVRC_16_layers
#   (Simonyan and Zisserman 2015).
# bvlc_reference_caffenet is not among them: its layers have AlexNet's names and another order, see `alexnet.py`.
CAFFE_NAMES: Table = (
    # NIN's last three names end in the width that its authors gave them, "conv4-1024" to "cccp8-1024".
    *_blobs(r"(conv\d|conv\d_\d|cccp\d)(?:-1024)?", r"\1", CONV),
    *_blobs("conv1/7x7_s2", "conv1", CONV),
    *_blobs("conv2/3x3_reduce", "conv2_reduce", CONV),
    *_blobs("conv2/3x3", "conv2", CONV),
    *_blobs(r"inception_(\d[a-e])/(\dx\d|\dx\d_reduce)", r"inception_\1.b\2", CONV),
    *_blobs(r"inception_(\d[a-e])/pool_proj", r"inception_\1.pool_proj", CONV),
    *_blobs("CAM_conv", "cam_conv", CONV),
    *_blobs("(?:CAM_fc|fc9|loss3/classifier)", "head", DENSE),
    *_blobs("(fc[678])", r"head.\1", DENSE),
    # GoogLeNet's two auxiliary classifiers, which only training uses.
    Rule(r"loss[12]/.*", None),
)


def conv(
    in_features: int,
    out_features: int,
    kernel_size: int,
    strides: int = 1,
    *,
    input_deviation: float = 1.0,
    **options: Any,
) -> nnx.Conv:
    """A k x k convolution with bias.

    Its initial kernel has variance 2 / fan_in, which keeps activations at their scale where no BatchNorm does (He et
    al. 2015, eq. 10); its initial bias is zero.

    Args:
      in_features: K_in.
      out_features: K_out.
      kernel_size: k.
      strides: in pixels, the same both ways.
      input_deviation: standard deviation of the input, by which the initial kernel is divided.
      **options: padding, groups, dtype and rngs of `camjax.models.layers.conv2d`.
    """

    def kernel_init(key, shape, dtype, out_sharding=None):
        return layers.he_normal(key, shape, dtype) * (math.sqrt(shape[-1] / shape[-2]) / input_deviation)

    return layers.conv2d(in_features, out_features, kernel_size, strides, kernel_init=kernel_init, **options)


def lrn(x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> jax.Array:
    """Local response normalization across channels (Krizhevsky et al. 2012, section 3.3), in Caffe's form.

    `y_k = x_k / (1 + alpha / size * sum_j x_j^2) ** beta` over the `size` channels j around k; channels before
    the first and after the last count as zero. The paper has alpha in place of alpha / size, and 2 in place of 1.

    Args:
      x: (..., K) of any float dtype.
      size: number of channels in the sum, odd.
      alpha: as above.
      beta: as above.

    Returns:
      (..., K) in the dtype of x; computed in float32.
    """
    y = x.astype(jnp.float32)
    window, strides = (1,) * (y.ndim - 1) + (size,), (1,) * y.ndim
    padding = ((0, 0),) * (y.ndim - 1) + ((size // 2, size // 2),)
    total = lax.reduce_window(y * y, 0.0, lax.add, window, strides, padding)
    return (y * (1 + alpha / size * total) ** -beta).astype(x.dtype)


def max_pool(x: jax.Array, size: int, strides: int, padding: int = 0) -> jax.Array:
    """Max pooling whose windows cover the image to its end, as in Caffe and as PyTorch's `ceil_mode`.

    A side of n pixels gives `ceil((n + 2 * padding - size) / strides) + 1` cells, less one if the last window would
    begin after the image and its left padding. A window takes the pixels that lie in it.

    Args:
      x: (B, H, W, K).
      size: side of the window in pixels.
      strides: in pixels.
      padding: empty pixels on each side that windows may cover.

    Returns:
      (B, H', W', K) in the dtype of x.
    """

    def pads(side):
        cells = -(-(side + 2 * padding - size) // strides) + 1
        if (cells - 1) * strides >= side + padding:
            cells -= 1
        return padding, max(0, (cells - 1) * strides + size - side - padding)

    return pooling.max_pool(x, size, strides, (pads(x.shape[1]), pads(x.shape[2])))
