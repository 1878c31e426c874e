"""Convolutions that are fast on a CPU and native on accelerators; this is the only place that chooses them.

XLA's CPU backend runs a depthwise convolution several times slower than the same sum written as shifted
multiply-adds, and a 1x1 convolution, or one whose windows lie side by side, slower than the equivalent matrix product.
Accelerators want the convolution itself. The choice is made when lowering (`jax.lax.platform_dependent`), so one traced
function is right on every platform, under `jit`, `grad` and `pmap`.
"""

from jax import lax

from camjax.models.depthwise import depthwise


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
    pads = (
        lax.padtype_to_pads(lhs.shape[1:3], (kh, kw), window_strides, padding) if isinstance(padding, str) else padding
    )

    def pointwise(lhs, rhs):
        sy, sx = window_strides
        return lax.dot_general(lhs[:, ::sy, ::sx], rhs[0, 0], (((3,), (0,)), ((), ())), **products)

    def side_by_side(lhs, rhs):
        rows, columns = lhs.shape[1] // kh, lhs.shape[2] // kw
        windows = lhs[:, : rows * kh, : columns * kw].reshape(len(lhs), rows, kh, columns, kw, k_in)
        windows = windows.transpose(0, 1, 3, 2, 4, 5)
        return lax.dot_general(windows, rhs, (((3, 4, 5), (0, 1, 2)), ((), ())), **products)

    def shifted_sum(lhs, rhs):
        return depthwise(lhs, rhs[:, :, 0], tuple(window_strides), tuple(map(tuple, pads)))

    dense = feature_group_count == 1 and not any(p for side in pads for p in side)
    if kh == kw == 1 and dense:
        return lax.platform_dependent(lhs, rhs, cpu=pointwise, default=native)
    if (kh, kw) == tuple(window_strides) and dense:
        return lax.platform_dependent(lhs, rhs, cpu=side_by_side, default=native)
    if feature_group_count == k_in == k_out and kernel_in == 1:
        return lax.platform_dependent(lhs, rhs, cpu=shifted_sum, default=native)
    return native(lhs, rhs)
