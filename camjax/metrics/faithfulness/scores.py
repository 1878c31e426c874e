"""What functions of faithfulness share: checked arguments, ranks of pixels, and scores of many changed copies."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from camjax.attribution.network import as_pytree
from camjax.cam import resize_map
from camjax.checks import as_array, check_class_ids, check_images
from camjax.errors import InputError

IMAGENET_MEAN = (123.675, 116.28, 103.53)
"""The mean color of ImageNet, RGB in 0..255: what a 0 is in the normalized images of most networks."""


def check_arguments(scores_fn: Callable, images, maps, class_ids) -> tuple[Callable, jax.Array, jax.Array, jax.Array]:
    """The arguments that all functions of faithfulness take, checked and prepared.

    Returns:
      The function as a pytree; images (B, H, W, 3) float32; maps (B, H, W) float32, resized to the images; class ids
      (B,) int32.

    Raises:
      ValueError: another shape or type, maps that hold NaN or infinity, class ids out of range, or scores that are not
        (B, C).
    """
    images, maps = check_images(None, images), as_array(maps, "maps")
    class_ids = as_array(class_ids, "class_ids")
    shape, dtype, batch = np.shape(maps), jnp.result_type(maps), len(images)
    if len(shape) != 3 or shape[0] != batch or 0 in shape or not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(
            f"maps of shape {shape} and dtype {dtype} for {batch} images: expected floats of shape ({batch}, h, w), "
            "one map an image."
        )
    finite = np.asarray(jnp.isfinite(jnp.asarray(maps)).all((1, 2)))
    if not finite.all():
        raise InputError(
            f"maps of rows {np.flatnonzero(~finite)[:10].tolist()} hold NaN or infinity: expected finite numbers, "
            "which put pixels in an order. Leave such images out by the mask of update()."
        )
    scores_fn, images = as_pytree(scores_fn), jnp.asarray(images, jnp.float32)
    shape = jax.eval_shape(float_scores, scores_fn, images).shape
    if len(shape) != 2 or shape[0] != batch:
        raise InputError(f"scores of shape {shape} for {batch} images: expected ({batch}, C).")
    if np.ndim(class_ids) != 1:
        raise InputError(f"class_ids of shape {np.shape(class_ids)}: expected ({batch},), one class an image.")
    ids = jnp.asarray(check_class_ids(class_ids, *shape)[:, 0])
    return scores_fn, images, _resized(maps, images.shape[1:3]), ids


_resized = jax.jit(resize_map, static_argnums=1)


def check_baseline(baseline, images) -> jax.Array:
    """The baseline as an array with B rows that broadcasts with images (B, H, W, 3), or ValueError."""
    shape = np.shape(baseline)
    fits = len(shape) <= 4 and all(own in (1, side) for own, side in zip(shape[::-1], images.shape[::-1], strict=False))
    if not fits or not np.isfinite(baseline).all():
        raise InputError(
            f"baseline of shape {shape} for images {tuple(images.shape)}: expected a finite number, a color (3,), or "
            "images of that shape, in 0..255."
        )
    whole = images.shape if len(shape) > 1 else (len(images), 1, 1, 3)
    return jnp.broadcast_to(jnp.asarray(baseline, jnp.float32), whole)


def color_option(baseline) -> float | list[float]:
    """A number or a color (3,) in JSON's types, for a metric's options; raises ValueError for anything else."""
    color = np.asarray(baseline, np.float64)
    if color.shape not in ((), (3,)) or not ((color >= 0) & (color <= 255)).all():
        raise InputError(f"baseline={baseline!r}: expected a number or a color of three, RGB in 0..255.")
    return color.tolist()


def check_maps(maps_fn: Callable, images: jax.Array, class_ids: jax.Array) -> jax.Array:
    """The maps that a function of images and class ids gives, (B, H, W) float32, resized to the images.

    Raises:
      ValueError: maps of another shape.
    """
    maps = maps_fn(images, class_ids)
    if np.ndim(maps) != 3 or len(maps) != len(images):
        raise InputError(
            f"maps_fn gives maps of shape {np.shape(maps)} for {len(images)} images: expected ({len(images)}, h, w), "
            "one map an image."
        )
    return _resized(maps, images.shape[1:3])


@jax.jit
def pixel_ranks(maps: jax.Array) -> jax.Array:
    """Finite maps (B, H, W) -> (B, H, W) int32, 0 for a map's largest value; equal values in raster order."""
    order = jnp.argsort(-maps.reshape(len(maps), -1), axis=1, stable=True)
    places = jnp.broadcast_to(jnp.arange(order.shape[1], dtype=jnp.int32), order.shape)
    return jnp.put_along_axis(jnp.zeros_like(places), order, places, axis=1, inplace=False).reshape(maps.shape)


def map_copies(function: Callable[[jax.Array], jax.Array], batch: int, copies: int, chunk_size: int) -> jax.Array:
    """Calls a function for many changed copies of images, in compiled chunks of one shape, one chunk at a time.

    A loop on the host, not to be called inside `jax.jit`. Nothing in it waits for the device.

    Args:
      function: rows (R, 2) int32 of image and copy -> (R, ...) float32; a pytree. Rows that fill up the last chunk
        are copy 0 of image 0.
      batch: B.
      copies: of each image.
      chunk_size: the largest R; ValueError if below 1.

    Returns:
      (B, copies, ...) float32.
    """
    if chunk_size < 1:
        raise InputError(f"chunk_size={chunk_size}: expected the number of copies to score at a time, at least 1.")
    rows = np.stack(np.divmod(np.arange(batch * copies, dtype=np.int32), np.int32(copies)), axis=1)
    chunk_size = min(chunk_size, len(rows))
    rows = np.pad(rows, ((0, -len(rows) % chunk_size), (0, 0)))
    shape = jax.eval_shape(function, rows[:chunk_size]).shape[1:]
    numbers = jnp.zeros((len(rows), *shape), jnp.float32)
    for start in range(0, len(rows), chunk_size):
        # One chunk waits for the one before it, whose array it fills: asynchronous dispatch starts no two of them.
        numbers = _filled(numbers, function, rows[start : start + chunk_size], start)
    return numbers[: batch * copies].reshape(batch, copies, *shape)


def scores_of_classes(scores_fn: Callable, images: jax.Array, class_ids: jax.Array) -> jax.Array:
    """(R, H, W, 3) images, (R,) class ids -> (R,) float32 scores."""
    scores = float_scores(scores_fn, images)
    return jnp.take_along_axis(scores, class_ids[:, None], axis=1)[:, 0]


@jax.jit
def correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """(..., n), (..., n) -> (...) float32, Pearson's correlation over the last axis; 0 where one is constant."""
    return (_standardized(a) * _standardized(b)).sum(-1).clip(-1, 1)


def _standardized(values):
    # Scaled to 0..1 first: the rounded mean of a constant may differ from it, and squares of small numbers are 0.
    low, high = values.min(-1, keepdims=True), values.max(-1, keepdims=True)
    values = (values - low) / jnp.where(high > low, high - low, 1)
    values = values - values.mean(-1, keepdims=True)
    length = jnp.linalg.norm(values, axis=-1, keepdims=True)
    return jnp.where(high == low, 0, values / jnp.where(length > 0, length, 1))


def float_scores(scores_fn: Callable, images: jax.Array) -> jax.Array:
    """(R, H, W, 3) images -> (R, C) float32 scores."""
    return jnp.asarray(scores_fn(images)).astype(jnp.float32)


@functools.partial(jax.jit, donate_argnums=0)
def _filled(numbers, function, rows, start):
    return jax.lax.dynamic_update_slice_in_dim(numbers, function(rows), start, axis=0)
