"""Checks of what callers give: models, images, class ids, and numbers of classes."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from camjax.errors import InputError, printable


def num_classes(model: Any) -> int:
    """C of a model with class activation maps.

    Raises:
      ValueError: not a model of camjax, or one without class activation maps: its head is not a global pooling,
        followed by a dense kernel unless the features are the class maps already.
    """
    head = getattr(model, "head", None)
    if not hasattr(model, "features") or head is None:
        raise InputError(
            f"{type(model).__name__} is not a model of camjax: expected `features(images)` and a `head`, as those of "
            "camjax.load_model have. camjax.attribution has explain_nnx, explain_linen and explain_equinox for others."
        )
    if not hasattr(head, "kernel"):
        variant = getattr(model, "cam_variant", None)
        name = (getattr(model, "created_as", None) or {}).get("name") or type(model).__name__
        raise InputError(
            f"{name} has no class activation maps: expected a `head` with a `kernel` (K, C) after a global pooling. "
            + (f"Take its GAP variant, {variant!r}" if variant else "Take a GAP variant from camjax.list_models()")
            + ", or a method that needs no kernel, such as 'gradcam'."
        )
    return head.num_classes if head.kernel is None else head.kernel.shape[1]


def as_array(value: Any, name: str) -> Any:
    """Tensors of PyTorch, TensorFlow and other libraries as NumPy arrays; NumPy's, JAX's, and all else as they are.

    Raises:
      ValueError: a tensor on a device or of a type that NumPy does not read, or one that requires gradients.
    """
    ours = isinstance(value, np.ndarray | np.generic | jax.Array | jax.ShapeDtypeStruct)
    if ours or not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return value
    try:
        return np.asarray(value) if hasattr(value, "__array__") else np.from_dlpack(value)
    except Exception as error:
        kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
        raise InputError(
            f"{name}: a {kind} of {value.dtype} cannot be read as an array ({printable(error)}). Pass a NumPy array: "
            "tensor.detach().cpu().numpy() of PyTorch, after .float() for bfloat16."
        ) from error


def check_images(model: Any, images: Any) -> Any:
    """The images, those of other libraries as NumPy arrays.

    Raises:
      ValueError: not (B, H, W, 3), neither uint8 nor float, or smaller than one cell of the map.
    """
    images = as_array(images, "images")
    shape = getattr(images, "shape", None)
    if shape is None:
        raise InputError(f"images of type {type(images).__name__}: expected an array (B, H, W, 3); see load_images.")
    if len(shape) != 4 or shape[-1] != 3:
        hint = ""
        if len(shape) == 3 and shape[-1] == 3:
            hint = " For one image write images[None]."
        elif len(shape) == 4 and shape[1] == 3:
            hint = " Channels come last: move them with images.transpose(0, 2, 3, 1)."
        raise InputError(f"images of shape {tuple(shape)}: expected (B, H, W, 3), RGB in 0..255.{hint}")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"images of dtype {images.dtype}: expected uint8, or floats in 0..255.")
    smallest = getattr(model, "min_size", 1)
    if shape[0] < 1 or min(shape[1:3]) < smallest:
        raise InputError(
            f"images of shape {tuple(shape)}: expected at least one image, of at least {smallest} x {smallest} pixels "
            "(one cell of the feature map)"
            + (f"; the network was made for {model.input_size}." if hasattr(model, "input_size") else ".")
        )
    return images


def warn_if_scaled(images: Any, stacklevel: int = 3) -> None:
    """Warns where concrete float images are probably scaled or normalized, and 0..255 is meant.

    Those are images that never exceed 4, as after dividing by 255 or by a standard deviation, or that go below 0 by
    more than a tenth of their range, as after subtracting a mean. Noise, or resizing by cubics, goes less far.
    """
    if isinstance(images, jax.core.Tracer) or not jnp.issubdtype(images.dtype, jnp.floating):
        return
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        found = "float images that never exceed 1: expected RGB in 0..255. Multiply by 255, or pass uint8."
    elif high <= 4 or -low > (high - low) / 10:
        found = (
            f"float images with values in {low:.3g}..{high:.3g}, as normalized ones have: expected RGB in 0..255, "
            "which the model normalizes itself. Pass them as they were before."
        )
    else:
        return
    warnings.warn(found, stacklevel=stacklevel)


class ImageCheck:
    """`check_images`, with a look at the values of float images at the first call of each shape and type only.

    The look waits for the device; a loop over float batches would lose its asynchronous dispatch to it.
    """

    def __init__(self, model: Any):
        self.model = model
        self.seen: set[tuple] = set()

    def __call__(self, images: Any) -> Any:
        """The images of `check_images`; raises ValueError, or warns, if they are not what the model takes."""
        images = check_images(self.model, images)
        kind = images.shape, images.dtype
        if kind not in self.seen and not isinstance(images, jax.core.Tracer):
            self.seen.add(kind)
            warn_if_scaled(images, stacklevel=4)
        return images


def check_class_ids(class_ids: Any, batch: int, classes: int) -> Any:
    """class_ids as an int32 array (B, N), or None.

    Raises:
      ValueError: not integers of shape (B,) or (B, N), a concrete id that is not in 0..C-1, or concrete rows of C
        zeros and ones, which mark classes instead of naming them.
    """
    if class_ids is None:
        return None
    traced = isinstance(class_ids, jax.core.Tracer)
    ids = class_ids if traced else np.asarray(as_array(class_ids, "class_ids"))
    if ids.ndim not in (1, 2) or ids.shape[0] != batch or 0 in ids.shape or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise InputError(
            f"class_ids of shape {ids.shape} and dtype {ids.dtype} for {batch} images: expected integers of shape "
            f"({batch},), one class an image, or ({batch}, N), N classes an image."
        )
    check_no_label_vectors(ids, classes)
    if not traced and (ids.min() < 0 or ids.max() >= classes):
        wrong = np.unique(ids[(ids < 0) | (ids >= classes)])
        raise InputError(f"class_ids {wrong[:10].tolist()} out of range: the model has classes 0..{classes - 1}.")
    return (ids[:, None] if ids.ndim == 1 else ids).astype(np.int32)


def check_no_label_vectors(class_ids: Any, classes: int) -> None:
    """Raises ValueError for concrete ids (..., N) that are labels of several classes, C zeros and ones an image.

    With more than two classes, such rows would name a class twice.
    """
    if isinstance(class_ids, jax.core.Tracer) or classes <= 2 or class_ids.ndim < 2 or class_ids.shape[-1] != classes:
        return
    if np.isin(np.asarray(class_ids), (0, 1)).all():
        raise InputError(
            f"class_ids of shape {class_ids.shape} with zeros and ones for {classes} classes: they look like labels "
            "that mark classes, and would be taken as ids of the classes 0 and 1. Give ids, np.flatnonzero(labels) for "
            "each image, or in their place the target camjax.attribution.targets.class_sets(labels)."
        )


def check_top_k(top_k: int | None, classes: int) -> int | None:
    """`top_k`; raises ValueError unless it is None or in 1..C."""
    if top_k is not None and not 1 <= top_k <= classes:
        raise InputError(f"top_k={top_k}: expected 1..{classes}, the model's number of classes, or None for all.")
    return top_k


def check_threshold(threshold: float) -> float:
    """`threshold`; raises ValueError unless it is a share of a map's maximum, 0 <= threshold < 1."""
    if not 0 <= threshold < 1:
        raise InputError(f"threshold={threshold}: expected a share of the map's maximum, 0 <= threshold < 1.")
    return threshold
