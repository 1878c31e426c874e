"""Class activation maps on arrays, and resizing and scaling maps for display."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim
from jax.typing import ArrayLike

from camjax.checks import check_no_label_vectors
from camjax.errors import InputError
from camjax.sharding import laid_out_like

_Array = TypeVar("_Array", jax.Array, np.ndarray)


@laid_out_like(0, trailing=3)
def class_activation_map(features: jax.Array, kernel: jax.Array, class_ids: ArrayLike | None = None) -> jax.Array:
    """Class activation maps `M_c(y, x) = sum_k f_k(y, x) w[k, c]` (Zhou et al. 2016, eq. 2).

    With global average pooling and a bias, the mean of `M_c` over space plus `b_c` is the logit of class c.

    Args:
      features: (..., h, w, K) last feature map, of any float dtype.
      kernel: (K, C) weights of the dense layer that follows the pooling.
      class_ids: (..., N) integers in 0..C-1, whose leading dimensions broadcast with those of `features`; for features
        (B, h, w, K) also (B,), one class an image, as in `camjax.cam_fn`; None for all C classes in order. An id out of
        range gives a map of NaN.

    Returns:
      (..., N, h, w) or (..., C, h, w) float32: raw maps, signed, neither clipped nor normalized.

    Raises:
      ValueError: the shapes do not fit each other, or concrete ids are labels, C zeros and ones an image.
    """
    features, kernel = jnp.asarray(features), jnp.asarray(kernel)
    if features.ndim < 3 or kernel.ndim != 2 or features.shape[-1] != kernel.shape[0]:
        raise InputError(
            f"features of shape {features.shape} and a kernel of shape {kernel.shape}: expected features "
            "(..., h, w, K) with channels last and a kernel (K, C) of the same K."
        )
    features, kernel = features.astype(jnp.float32), kernel.astype(jnp.float32)
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    num_classes = kernel.shape[1]
    if class_ids is None:
        return jnp.einsum("...hwk,kc->...chw", features, kernel, **exact)

    class_ids = jnp.asarray(class_ids)
    if class_ids.ndim < 1 or not jnp.issubdtype(class_ids.dtype, jnp.integer):
        raise InputError(
            f"class_ids of shape {class_ids.shape} and dtype {class_ids.dtype}: expected integers of shape "
            "(..., N); for one class write [c]."
        )
    check_no_label_vectors(class_ids, num_classes)
    leading = features.shape[:-3]
    if class_ids.ndim == 1 and len(leading) == 1 and class_ids.shape[0] in (1, *leading):
        class_ids = class_ids[:, None]
    try:
        if class_ids.ndim == 1 and leading:
            raise ValueError
        batch = jnp.broadcast_shapes(class_ids.shape[:-1], leading)
    except ValueError:
        raise InputError(
            f"class_ids of shape {class_ids.shape} for features of shape {features.shape}: expected {(*leading, 'N')}, "
            f"N classes an image{f', or {leading}, one' if len(leading) == 1 else ''}; for the same classes of all "
            "images write class_ids[None]."
        ) from None
    class_ids = jnp.broadcast_to(class_ids, (*batch, class_ids.shape[-1]))
    known = (class_ids >= 0) & (class_ids < num_classes)
    ids = jnp.where(known, class_ids, 0)
    number = class_ids.shape[-1]
    if not is_symbolic_dim(number) and number * 4 > num_classes:
        # So many columns of the kernel, gathered for each image, weigh more than the product with all of it.
        maps = jnp.einsum("...hwk,kc->...chw", features, kernel, **exact)
        maps = jnp.take_along_axis(maps, ids[..., None, None], axis=-3)
    else:
        columns = jnp.take(kernel.T, ids, axis=0)
        maps = jnp.einsum("...hwk,...nk->...nhw", features, columns, **exact)
    return jnp.where(known[..., None, None], maps, jnp.nan)


def class_probabilities(logits: _Array, multi_label: bool = False) -> _Array:
    """The probabilities of classes: a softmax, or a sigmoid where there is one logit, as binary classifiers have.

    Args:
      logits: (..., C). For a NumPy array the result is one too, and nothing is compiled.
      multi_label: an image may have several classes, each with the probability of its own sigmoid.

    Returns:
      (..., C) float32 in 0..1.
    """
    numpy: Any = np if isinstance(logits, np.ndarray) else jnp
    values = logits.astype(np.float32)
    classes = values.shape[-1]
    if multi_label:
        return class_probabilities(values[..., None])[..., 0]
    if classes == 1:  # against a logit of zero
        values = numpy.concatenate([values, numpy.zeros_like(values)], -1)
    exponentials = numpy.exp(values - values.max(-1, keepdims=True))
    return (exponentials / exponentials.sum(-1, keepdims=True))[..., :classes]


@laid_out_like(0, trailing=3)
def class_maps(
    features: jax.Array, kernel: jax.Array | Callable[..., jax.Array] | None, class_ids: ArrayLike | None = None
) -> jax.Array:
    """`class_activation_map`; without a kernel the features' channels, which are the class maps already.

    A head may also have a function of its own for its maps, in place of the kernel.

    Args:
      features: (..., h, w, K).
      kernel: (K, C) of the model's head, or None where K is C and channel c is the map of class c; or a function from
        features and class_ids to the maps.
      class_ids: (..., N) integers; an id out of range gives a map of NaN. None for all C classes.

    Returns:
      (..., N, h, w) or (..., C, h, w) float32.
    """
    if callable(kernel):
        return kernel(features, class_ids)
    if kernel is not None:
        return class_activation_map(features, kernel, class_ids)
    maps = jnp.moveaxis(features, -1, -3).astype(jnp.float32)
    if class_ids is None:
        return maps
    class_ids = jnp.asarray(class_ids)
    known = (class_ids >= 0) & (class_ids < maps.shape[-3])
    maps = jnp.take_along_axis(maps, jnp.where(known, class_ids, 0)[..., None, None], axis=-3)
    return jnp.where(known[..., None, None], maps, jnp.nan)


@laid_out_like(0, trailing=2)
def resize_map(
    maps: jax.Array, size: int | Sequence[int], method: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
) -> jax.Array:
    """Resizes maps to an image's size, with half-pixel centers (the pixel grids' outer edges coincide).

    The paper upsamples its maps so (section 2). Beyond the outermost cell centers a bilinear map keeps their
    value. A size smaller than the map is a resize of the same kind, without antialiasing.

    Args:
      maps: (..., h, w).
      size: (H, W) in pixels, or an int for a square.
      method: "nearest", "bilinear" or "bicubic" (Keys' kernel with a = -0.5).

    Returns:
      (..., H, W) float32.

    Raises:
      ValueError: unknown method, a rank below 2, or a size that is not one or two positive numbers.
    """
    maps = jnp.asarray(maps)
    height, width = np.broadcast_to(size, 2).tolist() if np.shape(size) in ((), (1,), (2,)) else (0, 0)
    if method not in ("nearest", "bilinear", "bicubic"):
        raise InputError(f'method={method!r}: expected "nearest", "bilinear" or "bicubic".')
    if maps.ndim < 2 or height < 1 or width < 1:
        raise InputError(
            f"maps of shape {maps.shape} to size {size}: expected (..., h, w), and (H, W) or one number, >= 1 pixel."
        )
    shape = (*maps.shape[:-2], height, width)
    return jax.image.resize(
        maps.astype(jnp.float32), shape, method, antialias=False, precision=jax.lax.Precision.HIGHEST
    )


def normalize_map(maps: jax.Array, mode: Literal["minmax", "max"] = "minmax") -> jax.Array:
    """Scales each map for display or comparison.

    Args:
      maps: (..., h, w).
      mode: "minmax": (M - min) / (max - min), in 0..1. "max": M / max, at most 1, negative values kept; a map
        whose maximum is not positive has no such scale and becomes zeros.

    Returns:
      (..., h, w) float32. A constant map, and one that holds NaN or infinity, becomes zeros.

    Raises:
      ValueError: unknown mode, or a rank below 2.
    """
    maps = jnp.asarray(maps).astype(jnp.float32)
    if maps.ndim < 2:
        raise InputError(f"maps of shape {maps.shape}: expected (..., h, w).")
    low = maps.min((-2, -1), keepdims=True)
    high = maps.max((-2, -1), keepdims=True)
    if mode == "minmax":
        shift, scale = low, high - low
    elif mode == "max":
        shift, scale = jnp.zeros_like(low), jnp.where(high > low, high, 0)
    else:
        raise InputError(f'mode={mode!r}: expected "minmax" or "max".')
    valid = (scale > 0) & jnp.isfinite(low) & jnp.isfinite(high) & jnp.isfinite(scale)
    return jnp.where(valid, (maps - shift) / jnp.where(valid, scale, 1), 0)
