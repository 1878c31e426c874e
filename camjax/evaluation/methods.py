"""The methods that table 2 of the paper compares, from one contract: images and labels in, maps and boxes out."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.attribution import grad_cam, output_gradients, saliency
from camjax.evaluation.ten_crop import mean_score_logits, merge_ten_crops, ten_crop_size, ten_crops
from camjax.inference import (
    CamOutput,
    Localization,
    bind,
    boxes_from_maps,
    check_threshold,
    check_top_k,
    class_maps,
    inference_view,
    num_classes,
)

Method = Callable[..., Localization]
"""`method(images, labels) -> Localization`; see `make_method`."""

CENTER_SIGMA = 0.2
"""Standard deviation of the centered map, as a share of the image's height and width."""


def make_method(model: nnx.Module, name: str, *, threshold: float = 0.2, top_k: int = 5) -> Method:
    """Binds a snapshot of the model into a function from images and their labels to maps and boxes.

    Methods, by name:
      "cam": class activation maps (Zhou et al. 2016). With global max pooling these are the same sums of feature maps,
        by the weights that were trained behind that pooling.
      "cam_ten_crop": the heatmap of the paper's release, from ten crops of a larger image: see
        `camjax.evaluation.ten_crop`. Scores are the mean of the crops' softmax; maps are as large as the image.
      "gradcam": Grad-CAM of the last feature map (Selvaraju et al. 2017).
      "backprop": saliency of the image gradient (Simonyan et al. 2014), as large as the image. Its boxes are those of
        the same paper, in which `threshold` has no part; see `camjax.evaluation.saliency_boxes`.
      "center": the baseline that looks at nothing: one Gaussian in the middle for all images and classes, as large as
        the image (Choe et al. 2020). Its standard deviation is 0.2 of either side, so that at the threshold 0.2 its box
        takes the middle 72 % of height and width, about half of the image.

    Boxes of all but "backprop" are the paper's: the largest component above `threshold` times the maximum of the map;
    see `camjax.make_localize_fn`. The first two are for models with class activation maps; the others take networks
    with fully connected layers as well.

    Args:
      model: a camjax model. The snapshot is prepared for inference as in `camjax.make_cam_fn`.
      name: "cam", "cam_ten_crop", "gradcam", "backprop" or "center".
      threshold: share of the maximum, 0 <= threshold < 1.
      top_k: number of classes by falling logit, 1..C.

    Returns:
      `method(images, labels) -> Localization` of images (B, H, W, 3), RGB in 0..255, uint8 or float, whole photographs
      squashed to `method_image_size` or any other size that the model takes, and integer labels (B,) in 0..C-1.
      Its class_ids are (B, top_k + 1): the top_k classes by falling logit, and last the label, for the results with
      known class; maps, boxes and valid are theirs in this order. It runs on the device that the images were put on,
      and leaves the results there. A second call with the same shapes compiles nothing.

    Raises:
      ValueError: unknown name, threshold or top_k out of range, or a model without the maps of the method; on a call,
        images or labels of another shape or type, or labels out of range.
    """
    if name not in METHODS:
        raise ValueError(f"method {name!r}: expected one of {', '.join(METHODS)}.")
    check_threshold(threshold)
    takes_any_head = name not in ("cam", "cam_ten_crop") and hasattr(model.head, "num_classes")
    classes = model.head.num_classes if takes_any_head else num_classes(model)
    check_top_k(top_k, classes)

    def attribute(model, images, labels):
        return METHODS[name](inference_view(model), images, labels, top_k)

    def localize(model, images, labels):
        logits, class_ids, maps = attribute(model, images, labels)
        boxes, valid = boxes_from_maps(maps, images.shape[1:3], threshold)
        maps, boxes, valid = (jnp.broadcast_to(x, class_ids.shape + x.shape[2:]) for x in (maps, boxes, valid))
        return Localization(logits, class_ids, maps, boxes, valid)

    if name != "backprop":
        return _checking_labels(bind(model, localize, classes))

    from camjax.evaluation.saliency_boxes import saliency_boxes

    attribute_fn = bind(model, attribute, classes)

    def localize_on_host(images, labels):
        out = attribute_fn(images, labels)
        return Localization(*out, *saliency_boxes(images, out.maps))

    return _checking_labels(localize_on_host)


def method_image_size(model: nnx.Module, name: str) -> tuple[int, int]:
    """(H, W) in pixels of the images that a method is made for: the model's input size, or more for ten crops of it."""
    return ten_crop_size(model.input_size) if name == "cam_ten_crop" else model.input_size


def _checking_labels(function: Callable[..., Localization]) -> Method:
    """`function(images, labels)`, with an error in words for labels that are not one class an image."""

    def method(images, labels):
        if np.ndim(labels) != 1:
            raise ValueError(f"labels of shape {np.shape(labels)}: expected ({len(images)},), one class an image.")
        return function(images, labels)

    return method


def center_gaussian(size: tuple[int, int]) -> jax.Array:
    """(H, W) float32: the Gaussian in the middle of an image of `size` pixels, 1 at its center; see `make_method`."""
    y, x = (((jnp.arange(side) + 0.5) / side - 0.5) / CENTER_SIGMA for side in size)
    return jnp.exp(-(y[:, None] ** 2 + x**2) / 2)


def _top_classes_and_label(logits: jax.Array, labels: jax.Array, top_k: int) -> jax.Array:
    """(B, C) logits and (B, 1) labels -> (B, top_k + 1) int32: the classes by falling logit, last the label."""
    return jnp.concatenate([jax.lax.top_k(logits, top_k)[1], labels], axis=1)


def _scored_features(model, images, labels, top_k) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The last feature map, the logits, and the classes asked for, from one forward pass."""
    features = model.features(images)
    logits = model.head(features).astype(jnp.float32)
    return features, logits, _top_classes_and_label(logits, labels, top_k)


def _cam(model, images, labels, top_k) -> CamOutput:
    features, logits, class_ids = _scored_features(model, images, labels, top_k)
    return CamOutput(logits, class_ids, class_maps(features, model.head.kernel, class_ids))


def _cam_ten_crop(model, images, labels, top_k) -> CamOutput:
    batch, size, crop_size = len(images), images.shape[1:3], model.input_size
    if size[0] < crop_size[0] or size[1] < crop_size[1]:
        raise ValueError(
            f"images of {size[0]} x {size[1]} pixels: expected {ten_crop_size(crop_size)}, or any size not below the "
            f"network's {crop_size}, of which ten crops are taken."
        )
    features = model.features(ten_crops(images, crop_size).reshape(-1, *crop_size, 3))
    logits = mean_score_logits(model.head(features).reshape(batch, 10, -1))
    class_ids = _top_classes_and_label(logits, labels, top_k)
    features = features.reshape(batch, 10, *features.shape[1:])
    ids_of_crops = jnp.broadcast_to(class_ids[:, None], (batch, 10, class_ids.shape[1]))
    maps = class_maps(features, model.head.kernel, ids_of_crops)
    return CamOutput(logits, class_ids, merge_ten_crops(maps, crop_size, size))


def _grad_cam(model, images, labels, top_k) -> CamOutput:
    features, logits, class_ids = _scored_features(model, images, labels, top_k)
    return CamOutput(logits, class_ids, grad_cam(model.head, features, class_ids))


def _backprop(model, images, labels, top_k) -> CamOutput:
    logits, gradients = output_gradients(model, images)
    logits = logits.astype(jnp.float32)
    class_ids = _top_classes_and_label(logits, labels, top_k)
    return CamOutput(logits, class_ids, saliency(gradients(class_ids)))


def _center(model, images, labels, top_k) -> CamOutput:
    """Its maps are (1, 1, H, W), one for all."""
    logits = model(images).astype(jnp.float32)
    class_ids = _top_classes_and_label(logits, labels, top_k)
    return CamOutput(logits, class_ids, center_gaussian(images.shape[1:3])[None, None])


METHODS = {
    "cam": _cam,
    "cam_ten_crop": _cam_ten_crop,
    "gradcam": _grad_cam,
    "backprop": _backprop,
    "center": _center,
}
"""The names that `make_method` takes, each with its `(model, images, labels, top_k) -> CamOutput`."""
