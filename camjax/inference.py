"""A model and the mathematics, compiled: images in; logits, class activation maps and boxes out."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.boxes import largest_component_box
from camjax.cam import class_activation_map, resize_map
from camjax.models.layers import fold_batchnorm


class CamOutput(NamedTuple):
    """What `cam_fn` returns, for B images, C classes in all and N asked for.

    Attributes:
      logits: (B, C) float32.
      class_ids: (B, N) int32.
      maps: (B, N, h, w) float32: raw class activation maps, signed, neither clipped nor normalized.
    """

    logits: jax.Array
    class_ids: jax.Array
    maps: jax.Array


class Localization(NamedTuple):
    """What a `localize_fn` returns, for B images, C classes in all and N asked for.

    Attributes:
      logits: (B, C) float32.
      class_ids: (B, N) int32.
      maps: (B, N, h, w) float32: raw class activation maps.
      boxes: (B, N, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1; zeros where not valid.
      valid: (B, N) bool: whether the map has a region, which it has if its maximum is positive and it holds no NaN.
    """

    logits: jax.Array
    class_ids: jax.Array
    maps: jax.Array
    boxes: jax.Array
    valid: jax.Array


def cam_fn(model: nnx.Module, images, class_ids=None) -> CamOutput:
    """Logits and class activation maps from one forward pass (Zhou et al. 2016, eqs. 1 and 2).

    A jitted function of model and images: use it anywhere, inside a `jit` of your own as well. The model runs in
    inference mode, whatever its mode, and stays as it was. For many calls with fixed weights, `make_cam_fn` has the
    lower cost per call.

    Args:
      model: has `features(images) -> (B, h, w, K)` and `head` with `kernel` (K, C), or None where the features are
        the class maps already, as every camjax model with class activation maps.
      images: (B, H, W, 3) RGB in 0..255, uint8 or float.
      class_ids: (B,) or (B, N) integers in 0..C-1; None for the class of the largest logit.

    Returns:
      `CamOutput`; N = 1 for class_ids (B,) or None.

    Raises:
      ValueError: images or class_ids of another shape or type, or concrete class_ids out of range. Ids that are
        traced (inside a `jit` of your own) cannot raise: one out of range gives a map of NaN.
    """
    classes = num_classes(model)
    check_images(model, images)
    warn_if_unit_range(images)
    class_ids = check_class_ids(class_ids, len(images), classes)
    return _cam_jit(model, images, class_ids, 1)


def make_cam_fn(model: nnx.Module, top_k: int | None = 1) -> Callable[..., CamOutput]:
    """Binds a snapshot of the model's weights into a function of the images alone, at the lowest cost per call.

    The snapshot is prepared for inference: BatchNorm is folded into the convolutions, which changes results within
    rounding. It does not follow the model: after more training, make another.

    Args:
      model: as in `cam_fn`.
      top_k: number of classes, in order of falling logit, whose maps a call without class_ids returns; None for all
        C classes in order of their ids.

    Returns:
      `cam_fn(images, class_ids=None) -> CamOutput`, with the arguments and errors of `camjax.cam_fn`; class_ids
      override top_k. A second call with the same shapes compiles nothing.

    Raises:
      ValueError: top_k is not in 1..C, or the model has no class activation maps.
    """
    classes = num_classes(model)
    top_k = check_top_k(top_k, classes)
    return bind(model, lambda model, images, class_ids: _cam(model, images, class_ids, top_k), classes)


def make_localize_fn(model: nnx.Module, threshold: float = 0.2, top_k: int | None = 1) -> Callable[..., Localization]:
    """Binds a snapshot of the model into one jitted function from images to boxes.

    The box of a class is that of the largest 8-connected component of the region where its map, resized to the
    image's size (bilinear, half-pixel centers), is strictly above `threshold` times the map's maximum
    (Zhou et al. 2016, section 3.2, with 0.2). A map whose maximum is not positive, or that holds a NaN, has no such
    region: its box is zeros and `valid` is False.

    Args:
      model: as in `cam_fn`.
      threshold: share of the maximum, 0 <= threshold < 1.
      top_k: as in `make_cam_fn`.

    Returns:
      `localize_fn(images, class_ids=None) -> Localization`, with the arguments and errors of `camjax.cam_fn`.

    Raises:
      ValueError: threshold or top_k out of range, or the model has no class activation maps.
    """
    classes = num_classes(model)
    check_threshold(threshold)
    top_k = check_top_k(top_k, classes)

    def localize(model, images, class_ids):
        out = _cam(model, images, class_ids, top_k)
        boxes, valid = boxes_from_maps(out.maps, images.shape[1:3], threshold)
        return Localization(*out, boxes, valid)

    return bind(model, localize, classes)


def boxes_from_maps(maps: jax.Array, size: tuple[int, int], threshold) -> tuple[jax.Array, jax.Array]:
    """The paper's box of each map; see `make_localize_fn`.

    Args:
      maps: (..., h, w) raw maps.
      size: (H, W) of the image in pixels.
      threshold: share of the maximum of the resized map; a number, or an array that broadcasts with (...).

    Returns:
      boxes (..., 4) float32, and valid (...) bool.
    """
    maps = resize_map(maps, size)
    maximum = maps.max((-2, -1))
    has_region = (maximum > 0) & jnp.isfinite(maps).all((-2, -1))
    mask = (maps > (threshold * maximum)[..., None, None]) & has_region[..., None, None]
    return largest_component_box(mask)


def num_classes(model: nnx.Module) -> int:
    """C of a model with class activation maps.

    Raises:
      ValueError: the model's head is no global pooling with a dense kernel or of class maps, so that it has no maps.
    """
    head = getattr(model, "head", None)
    if not hasattr(model, "features") or not hasattr(head, "kernel"):
        variant = getattr(model, "cam_variant", None)
        raise ValueError(
            f"{type(model).__name__} has no class activation maps: expected a model with `features(images)` and a "
            "`head` with a `kernel` (K, C) behind a global pooling. "
            + (f"Take its GAP variant, {variant!r}." if variant else "Take a GAP variant from camjax.list_models().")
        )
    return head.num_classes if head.kernel is None else head.kernel.shape[1]


def check_images(model, images) -> None:
    """Raises ValueError unless images are (B, H, W, 3), uint8 or float, and at least one cell of the map in size."""
    shape = getattr(images, "shape", None)
    if shape is None:
        raise ValueError(f"images of type {type(images).__name__}: expected an array (B, H, W, 3); see load_images.")
    if len(shape) != 4 or shape[-1] != 3:
        hint = ""
        if len(shape) == 3 and shape[-1] == 3:
            hint = " For one image write images[None]."
        elif len(shape) == 4 and shape[1] == 3:
            hint = " Channels come last: move them with images.transpose(0, 2, 3, 1)."
        raise ValueError(f"images of shape {tuple(shape)}: expected (B, H, W, 3), RGB in 0..255.{hint}")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images of dtype {images.dtype}: expected uint8, or floats in 0..255.")
    smallest = getattr(model, "min_size", 1)
    if shape[0] < 1 or min(shape[1:3]) < smallest:
        raise ValueError(
            f"images of shape {tuple(shape)}: expected at least one image, of at least {smallest} x {smallest} pixels "
            "(one cell of the feature map)"
            + (f"; the network was made for {model.input_size}." if hasattr(model, "input_size") else ".")
        )


def warn_if_unit_range(images) -> None:
    """Warns where concrete float images never exceed 1: they were probably scaled to 0..1, and 0..255 is meant."""
    if isinstance(images, jax.core.Tracer) or not jnp.issubdtype(images.dtype, jnp.floating):
        return
    if images.max() <= 1:
        warnings.warn(
            "float images that never exceed 1: expected RGB in 0..255. Multiply by 255, or pass uint8.", stacklevel=3
        )


def check_class_ids(class_ids, batch: int, classes: int):
    """class_ids as an int32 array (B, N), or None.

    Raises:
      ValueError: not integers of shape (B,) or (B, N), or a concrete id that is not in 0..C-1.
    """
    if class_ids is None:
        return None
    traced = isinstance(class_ids, jax.core.Tracer)
    ids = class_ids if traced else np.asarray(class_ids)
    if ids.ndim not in (1, 2) or ids.shape[0] != batch or 0 in ids.shape or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise ValueError(
            f"class_ids of shape {ids.shape} and dtype {ids.dtype} for {batch} images: expected integers of shape "
            f"({batch},), one class an image, or ({batch}, N), N classes an image."
        )
    if not traced and (ids.min() < 0 or ids.max() >= classes):
        wrong = np.unique(ids[(ids < 0) | (ids >= classes)])
        raise ValueError(f"class_ids {wrong[:10].tolist()} out of range: the model has classes 0..{classes - 1}.")
    return ids.reshape(batch, -1).astype(np.int32)


def check_top_k(top_k: int | None, classes: int) -> int | None:
    """`top_k`; raises ValueError unless it is None or in 1..C."""
    if top_k is not None and not 1 <= top_k <= classes:
        raise ValueError(f"top_k={top_k}: expected 1..{classes}, the model's number of classes, or None for all.")
    return top_k


def check_threshold(threshold: float) -> float:
    """`threshold`; raises ValueError unless it is a share of a map's maximum, 0 <= threshold < 1."""
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold}: expected a share of the map's maximum, 0 <= threshold < 1.")
    return threshold


def inference_view(model: nnx.Module) -> nnx.Module:
    """A view of the model in inference mode, whatever its mode: no dropout, BatchNorm at its running statistics."""
    return nnx.view(model, raise_if_not_found=False, deterministic=True, use_running_average=True)


def _cam(model: nnx.Module, images: jax.Array, class_ids: jax.Array | None, top_k: int | None) -> CamOutput:
    """The traced body of `cam_fn`: (B, H, W, 3) images and (B, N) ids, or None for the top_k (None: all) classes."""
    model = inference_view(model)
    features = model.features(images)
    logits = model.head(features).astype(jnp.float32)
    all_classes = class_ids is None and top_k is None
    if all_classes:
        class_ids = jnp.broadcast_to(jnp.arange(logits.shape[1], dtype=jnp.int32), logits.shape)
    elif class_ids is None:
        class_ids = jax.lax.top_k(logits, top_k)[1]
    maps = class_maps(features, model.head.kernel, None if all_classes else class_ids)
    return CamOutput(logits, class_ids, maps)


def class_maps(features: jax.Array, kernel: nnx.Param | None, class_ids: jax.Array | None) -> jax.Array:
    """`class_activation_map`; without a kernel, the features' channels, which are the class maps already.

    Args:
      features: (..., h, w, K).
      kernel: (K, C) of the model's head, or None.
      class_ids: (..., N), of which one out of range gives a map of NaN; or None for all C classes.

    Returns:
      (..., N, h, w) or (..., C, h, w) float32.
    """
    if kernel is not None:
        return class_activation_map(features, kernel[...], class_ids)
    maps = jnp.moveaxis(features, -1, -3).astype(jnp.float32)
    if class_ids is None:
        return maps
    known = (class_ids >= 0) & (class_ids < maps.shape[-3])
    maps = jnp.take_along_axis(maps, jnp.where(known, class_ids, 0)[..., None, None], axis=-3)
    return jnp.where(known[..., None, None], maps, jnp.nan)


_cam_jit = jax.jit(_cam, static_argnums=3)


def bind(model: nnx.Module, function: Callable, classes: int) -> Callable:
    """Binds a snapshot of the model, its BatchNorm folded, into a jitted function of checked arguments.

    The snapshot follows the images: for images committed to a device (`jax.device_put(images, device)`) it is copied
    there at the first call, and the results are there too.

    Args:
      model: any model that `function` takes.
      function: `function(model, images, class_ids)`, traceable.
      classes: C, which the class_ids are checked against.

    Returns:
      `bound(images, class_ids=None)`, which calls `function` with images (B, H, W, 3) and class_ids (B, N) or None,
      and raises ValueError for other images or class_ids as `cam_fn` does.
    """
    leaves, structure = jax.tree.flatten(fold_batchnorm(model))
    placed = {None: leaves}
    check = _ImageCheck(model)

    @jax.jit
    def compiled(leaves, images, class_ids):
        return function(jax.tree.unflatten(structure, leaves), images, class_ids)

    def bound(images, class_ids=None):
        check(images)
        class_ids = check_class_ids(class_ids, len(images), classes)
        device = committed_device(images)
        if device not in placed:
            placed[device] = jax.device_put(leaves, device)
        return compiled(placed[device], images, class_ids)

    return bound


def committed_device(images) -> jax.Device | None:
    """The one device that images were put on deliberately; None for NumPy, traced, uncommitted or sharded ones."""
    if not isinstance(images, jax.Array) or isinstance(images, jax.core.Tracer) or not images.committed:
        return None
    devices = images.devices()
    return next(iter(devices)) if len(devices) == 1 else None


class _ImageCheck:
    """`check_images`, with the look at the values of float images at the first call of each shape only.

    The look waits for the device; a loop over float batches would lose its asynchronous dispatch to it.
    """

    def __init__(self, model):
        self.model = model
        self.seen = set()

    def __call__(self, images):
        check_images(self.model, images)
        if images.shape not in self.seen and not isinstance(images, jax.core.Tracer):
            self.seen.add(images.shape)
            warn_if_unit_range(images)
