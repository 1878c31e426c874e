"""The maps of the methods that an evaluation compares, each a traced function of a model and images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from camjax.attribution import METHODS, output_gradients, saliency
from camjax.evaluation.ten_crop import mean_score_logits, merge_ten_crops, ten_crop_size, ten_crops
from camjax.inference import CamOutput, class_maps

CENTER_SIGMA = 0.2
"""Standard deviation of the centered map, as a share of the image's height and width."""


def center_gaussian(size: tuple[int, int]) -> jax.Array:
    """(H, W) float32: the Gaussian in the middle of an image of `size` pixels, 1 at its center; see `make_method`."""
    y, x = (((jnp.arange(side) + 0.5) / side - 0.5) / CENTER_SIGMA for side in size)
    return jnp.exp(-(y[:, None] ** 2 + x**2) / 2)


def top_classes_and_more(logits: jax.Array, class_ids: jax.Array | None, top_k: int) -> jax.Array:
    """(B, C) logits -> (B, top_k + N) int32: the classes by falling logit, and behind them class_ids (B, N) if any."""
    top = jax.lax.top_k(logits, top_k)[1]
    return top if class_ids is None else jnp.concatenate([top, class_ids], axis=1)


def _scored_features(model, images, class_ids, top_k) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The last feature map, the logits, and the classes asked for, from one forward pass."""
    features = model.features(images)
    logits = model.head(features).astype(jnp.float32)
    return features, logits, top_classes_and_more(logits, class_ids, top_k)


def _cam(model, images, class_ids, top_k) -> CamOutput:
    features, logits, class_ids = _scored_features(model, images, class_ids, top_k)
    return CamOutput(logits, class_ids, class_maps(features, model.head.kernel, class_ids))


def _cam_ten_crop(model, images, class_ids, top_k) -> CamOutput:
    batch, size, crop_size = len(images), images.shape[1:3], model.input_size
    if size[0] < crop_size[0] or size[1] < crop_size[1]:
        raise ValueError(
            f"images of {size[0]} x {size[1]} pixels: expected {ten_crop_size(crop_size)}, or any size not below the "
            f"network's {crop_size}, of which ten crops are taken."
        )
    features = model.features(ten_crops(images, crop_size).reshape(-1, *crop_size, 3))
    logits = mean_score_logits(model.head(features).reshape(batch, 10, -1))
    class_ids = top_classes_and_more(logits, class_ids, top_k)
    features = features.reshape(batch, 10, *features.shape[1:])
    ids_of_crops = jnp.broadcast_to(class_ids[:, None], (batch, 10, class_ids.shape[1]))
    maps = class_maps(features, model.head.kernel, ids_of_crops)
    return CamOutput(logits, class_ids, merge_ten_crops(maps, crop_size, size))


def _of_gradients(from_gradients: Callable) -> Callable:
    """The maps of a method of `camjax.attribution`, from features and their gradients."""

    def attribute(model, images, class_ids, top_k) -> CamOutput:
        features = model.features(images).astype(jnp.float32)
        logits, gradients = output_gradients(model.head, features)
        logits = logits.astype(jnp.float32)
        class_ids = top_classes_and_more(logits, class_ids, top_k)
        return CamOutput(logits, class_ids, from_gradients(features, gradients(class_ids)))

    return attribute


def _backprop(model, images, class_ids, top_k) -> CamOutput:
    logits, gradients = output_gradients(model, images)
    logits = logits.astype(jnp.float32)
    class_ids = top_classes_and_more(logits, class_ids, top_k)
    return CamOutput(logits, class_ids, saliency(gradients(class_ids)))


def _center(model, images, class_ids, top_k) -> CamOutput:
    """Its maps are (1, 1, H, W), one for all."""
    logits = model(images).astype(jnp.float32)
    class_ids = top_classes_and_more(logits, class_ids, top_k)
    return CamOutput(logits, class_ids, center_gaussian(images.shape[1:3])[None, None])


TRACED: dict[str, Callable[..., CamOutput]] = {
    "cam": _cam,
    "cam_ten_crop": _cam_ten_crop,
    **{name: _of_gradients(method.from_gradients) for name, method in METHODS.items() if method.from_gradients},
    "backprop": _backprop,
    "center": _center,
}
"""The methods that are one compiled function `(model, images, class_ids (B, N) or None, top_k) -> CamOutput`."""

NAMES = (*TRACED, *(name for name in METHODS if name not in TRACED))
"""All methods; those beside `TRACED` perturb, in loops on the host."""
