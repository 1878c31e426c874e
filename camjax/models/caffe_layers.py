"""The layers that Caffe's networks have and others do not: LRN across channels, and max pooling that rounds up.

With them come a convolution with bias as those networks have it, and Caffe's rule for images.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from camjax.models.conv import conv_general_dilated
from camjax.models.layers import he_normal

# How Caffe's networks take images: B, G, R in 0..255, less the mean of ILSVRC 2012's training images (here R, G, B).
CAFFE_INPUT = {"mean": (122.67891434, 116.66876762, 104.00698793), "std": (1.0, 1.0, 1.0), "channel_order": "bgr"}
# Their standard deviation, in round numbers. The first convolution begins with a kernel that much smaller.
CAFFE_DEVIATION = 64.0


def conv(
    in_features: int,
    out_features: int,
    kernel_size: int,
    strides: int = 1,
    *,
    padding: int = 0,
    groups: int = 1,
    input_deviation: float = 1.0,
    dtype=jnp.float32,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A k x k convolution with bias.

    Its initial kernel has variance 2 / fan_in, which keeps activations at their scale where no BatchNorm does (He et
    al. 2015, eq. 10); its initial bias is zero.

    Args:
      in_features: K_in.
      out_features: K_out.
      kernel_size: k.
      strides: in pixels, the same both ways.
      padding: pixels of zeros on each side.
      groups: number of groups.
      input_deviation: standard deviation of what comes in, by which the initial kernel is divided.
      dtype: compute dtype; parameters are float32.
      rngs: random keys for the initial kernel.

    Returns:
      The layer, with `kernel` (k, k, K_in / groups, K_out) and `bias` (K_out,).
    """

    def kernel_init(key, shape, dtype, out_sharding=None):
        return he_normal(key, shape, dtype) * (math.sqrt(shape[-1] / shape[-2]) / input_deviation)

    return nnx.Conv(
        in_features,
        out_features,
        (kernel_size, kernel_size),
        strides,
        padding=padding,
        feature_group_count=groups,
        dtype=dtype,
        kernel_init=kernel_init,
        conv_general_dilated=conv_general_dilated,
        rngs=rngs,
    )


def lrn(x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> jax.Array:
    """Local response normalization across channels (Krizhevsky et al. 2012, section 3.3), in Caffe's form.

    `y_k = x_k / (1 + alpha / size * sum_j x_j^2) ** beta` over the `size` channels j around k, of which those that
    there are not count as zero. The paper has alpha in place of alpha / size, and 2 in place of 1.

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
    begin behind the image and its left padding. A window takes what pixels there are in it.

    Args:
      x: (B, H, W, K).
      size: side of the window in pixels.
      strides: in pixels.
      padding: pixels on each side that windows may cover; they hold nothing.

    Returns:
      (B, H', W', K) in the dtype of x.
    """

    def pads(side):
        cells = -(-(side + 2 * padding - size) // strides) + 1
        if (cells - 1) * strides >= side + padding:
            cells -= 1
        return padding, max(0, (cells - 1) * strides + size - side - padding)

    return nnx.max_pool(x, (size, size), (strides, strides), padding=(pads(x.shape[1]), pads(x.shape[2])))
