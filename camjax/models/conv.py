"""Convolutions that are fast on a CPU and native on accelerators; this is the only place that chooses them.

XLA's CPU backend runs a depthwise convolution several times slower than the same sum written as shifted
multiply-adds, a 1x1 convolution, or one whose windows lie side by side, slower than the equivalent matrix product, a
3x3 convolution of many channels slower than Winograd's form, one of a few groups slower than dense ones of each, and
the gradients of most kernels slower than products.
Accelerators want the convolution itself. The choice is made when lowering (`jax.lax.platform_dependent`), so one traced
function is right on every platform, under `jit`, `grad` and `pmap`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim

from camjax.models import windows, winograd
from camjax.models.bilinear import bilinear
from camjax.models.depthwise import depthwise

# Where the forms for CPUs begin to win: `python -m benchmarks.convolutions` prints the tables of docs/benchmarks.md.
MANY_PIXELS = 512  # of the whole batch's output; with fewer, the kernel's part of the work is too large
MANY_OUTPUTS = 64  # channels
SOME_INPUTS = 32  # channels; with fewer, the sum over windows is better than the one over Winograd's tiles
MANY_PRODUCTS = 256 * 256  # channels in times channels out, which pay for the transforms of the images
MERGED_INPUTS = 64  # channels; narrower groups are computed together, with zeros between them
FEW_PARTS = 5  # dense convolutions of groups; each takes a twentieth of a second to compile


def as_read(arrays: Sequence[Any]) -> list[Any]:
    """Arrays as programs for the default platform read them best; `as_written` turns them back inside of the program.

    cuDNN reads kernels (K_out, kh, kw, K_in). From (kh, kw, K_in, K_out) XLA makes them anew at each call, by a launch
    for each layer: a fifth of the kernels' time for a batch of one image.
    """
    return [jnp.transpose(array, (3, 0, 1, 2)) if _turns(array) else array for array in arrays]


def as_written(arrays: Sequence[Any]) -> list[Any]:
    """The inverse of `as_read`, for which XLA moves no number."""
    return [jnp.transpose(array, (1, 2, 3, 0)) if _turns(array) else array for array in arrays]


def _turns(array: Any) -> bool:
    return jax.default_backend() == "gpu" and getattr(array, "ndim", 0) == 4


def conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    precision=None,
    preferred_element_type=None,
    out_sharding=None,
):
    """`jax.lax.conv_general_dilated` for NHWC images, with a faster form on CPUs if there is one.

    Takes the arguments of the original, so that `flax.nnx.Conv(conv_general_dilated=...)` accepts it.

    Args:
      lhs: (B, H, W, K_in) images or features.
      rhs: (kh, kw, K_in / groups, K_out) kernel.
      window_strides: (sy, sx).
      padding: "SAME", "VALID" or ((top, bottom), (left, right)).
      lhs_dilation: as in the original.
      rhs_dilation: as in the original.
      dimension_numbers: as in the original.
      feature_group_count: number of groups; equal to K_in and K_out for a depthwise convolution.
      precision: as in the original.
      preferred_element_type: as in the original.
      out_sharding: as in the original, which is called if one is given.

    Returns:
      (B, H', W', K_out) in the dtype of the arguments.
    """
    products = {"precision": precision, "preferred_element_type": preferred_element_type}

    def native(lhs, rhs):
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            out_sharding=out_sharding,
            **products,
        )

    kh, kw, kernel_in, k_out = rhs.shape
    k_in = lhs.shape[-1]
    dilated = any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    if dilated or out_sharding is not None:
        return native(lhs, rhs)
    # The original takes symbolic sizes with a rule alone, and not with the numbers that follow from it.
    named = isinstance(padding, str)
    (top, bottom), (left, right) = (
        lax.padtype_to_pads(lhs.shape[1:3], (kh, kw), window_strides, padding) if named else padding
    )
    pads = ((top, bottom), (left, right))

    def pointwise(lhs, rhs):
        sy, sx = window_strides
        images = lax.slice(lhs, (0, 0, 0, 0), lhs.shape, (1, sy, sx, 1))
        # Two axes: XLA would transpose the images for the kernel's gradient, which takes longer than the product.
        pixels = lax.dot_general(images.reshape(-1, k_in), rhs[0, 0], (((1,), (0,)), ((), ())), **products)
        return pixels.reshape(*images.shape[:3], k_out)

    def side_by_side(lhs, rhs):
        # Counted as a convolution counts: of symbolic sizes, `H // kh` would be another number.
        rows, columns = (lhs.shape[1] - kh) // kh + 1, (lhs.shape[2] - kw) // kw + 1
        blocks = lhs[:, : rows * kh, : columns * kw].reshape(lhs.shape[0], rows, kh, columns, kw, k_in)
        blocks = blocks.transpose(0, 1, 3, 2, 4, 5)
        return lax.dot_general(blocks, rhs, (((3, 4, 5), (0, 1, 2)), ((), ())), **products)

    def native_images_cotangent(rhs, cotangent):
        images = jax.ShapeDtypeStruct(lhs.shape, lhs.dtype)
        return jax.linear_transpose(lambda images: native(images, rhs), images)(cotangent)[0]

    def by_products(lhs, rhs):
        product, images_cotangent = native, native_images_cotangent
        kernel_cotangent = functools.partial(
            windows.kernel_cotangent, kernel_size=(kh, kw), strides=window_strides, pads=pads
        )
        if in_tiles and k_in >= SOME_INPUTS:
            kernel_cotangent = functools.partial(winograd.kernel_cotangent, pads=pads)
            if k_in * k_out >= MANY_PRODUCTS:
                product = functools.partial(winograd.convolution, pads=pads)
                images_cotangent = functools.partial(winograd.images_cotangent, pads=pads)
        return bilinear(product, images_cotangent, kernel_cotangent)(lhs, rhs)

    merged = max(m for m in _divisors(feature_group_count) if m == 1 or m * kernel_in <= MERGED_INPUTS)
    count = feature_group_count // merged

    def group_by_group(lhs, rhs):
        outputs = k_out // feature_group_count
        # Six axes: a gradient's sum over one of seven, the first of size 1, crashes jaxlib 0.10.2.
        groups = rhs.reshape(kh * kw, kernel_in, count, merged, outputs).transpose(2, 0, 1, 3, 4)[:, :, None]
        own = jnp.eye(merged, dtype=rhs.dtype).reshape(1, 1, merged, 1, merged, 1)
        kernels = (groups * own).reshape(count, kh, kw, merged * kernel_in, merged * outputs)
        return jnp.concatenate(
            [
                lax.conv_general_dilated(
                    images, kernel, window_strides, pads, dimension_numbers=dimension_numbers, **products
                )
                for images, kernel in zip(jnp.split(lhs, count, -1), kernels, strict=True)
            ],
            -1,
        )

    def shifted_sum(lhs, rhs):
        return depthwise(lhs, rhs[:, :, 0], tuple(window_strides), pads)

    dense = feature_group_count == 1 and not any(p for side in pads for p in side)
    if kh == kw == 1 and dense:
        return lax.platform_dependent(lhs, rhs, cpu=pointwise, default=native)
    if (kh, kw) == tuple(window_strides) and dense:
        return lax.platform_dependent(lhs, rhs, cpu=side_by_side, default=native)
    if feature_group_count == k_in == k_out and kernel_in == 1:
        return lax.platform_dependent(lhs, rhs, cpu=shifted_sum, default=native)
    if feature_group_count > 1 and count <= FEW_PARTS:
        return lax.platform_dependent(lhs, rhs, cpu=group_by_group, default=native)
    plain = feature_group_count == 1 and lhs.dtype == rhs.dtype == jnp.float32 and precision is None
    height, width = (
        (side + sum(pad) - size) // stride + 1
        for side, pad, size, stride in zip(lhs.shape[1:3], pads, (kh, kw), window_strides, strict=True)
    )
    pixels = lhs.shape[0] * height * width
    in_tiles = (kh, kw, *window_strides) == (3, 3, 1, 1) and all(0 <= p <= 2 for side in pads for p in side)
    if not plain or k_out < MANY_OUTPUTS:
        return native(lhs, rhs)
    if is_symbolic_dim(pixels):  # of a program for batches of any size, which decides when it is compiled for one

        def by_number(lhs, rhs):
            return lax.cond(jnp.asarray(pixels) >= MANY_PIXELS, by_products, native, lhs, rhs)

        return lax.platform_dependent(lhs, rhs, cpu=by_number, default=native)
    if pixels >= MANY_PIXELS:
        return lax.platform_dependent(lhs, rhs, cpu=by_products, default=native)
    return native(lhs, rhs)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
