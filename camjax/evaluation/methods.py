"""Every method by its name, on one contract: images in, maps and boxes of classes out."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.attribution import METHODS, cut_network
from camjax.attribution.targets import as_target
from camjax.evaluation.method_maps import NAMES, TRACED, top_classes_and_more
from camjax.evaluation.ten_crop import ten_crop_size
from camjax.inference import (
    CamOutput,
    Localization,
    bind,
    boxes_from_maps,
    check_threshold,
    check_top_k,
    committed_device,
    inference_view,
    num_classes,
)
from camjax.models.layers import fold_batchnorm

Method = Callable[..., Localization]
"""`method(images, class_ids=None) -> Localization`; see `make_method`."""


def make_method(
    model: nnx.Module,
    name: str,
    *,
    threshold: float = 0.2,
    top_k: int = 5,
    chunk_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Method:
    """Binds a snapshot of the model into a function from images and classes to maps and boxes.

    Methods, by name:
      "cam": class activation maps (Zhou et al. 2016). With global max pooling these are the same sums of feature maps,
        by the weights that were trained behind that pooling.
      "cam_ten_crop": the heatmap of the paper's release, from ten crops of a larger image: see
        `camjax.evaluation.ten_crop`. Scores are the mean of the crops' softmax; maps are as large as the image.
      Those of `camjax.attribution.METHODS`, such as "gradcam" and "scorecam", of the last feature map.
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
      name: of `camjax.evaluation.method_maps.NAMES`.
      threshold: share of the maximum, 0 <= threshold < 1.
      top_k: number of classes by falling logit, 1..C.
      chunk_size: of methods that perturb: images, or features, scored at a time.
      progress: of methods that perturb: `progress(done, total)` after each chunk.

    Returns:
      `method(images, class_ids=None) -> Localization` of images (B, H, W, 3), RGB in 0..255, uint8 or float, whole
      photographs squashed to `method_image_size` or any other size that the model takes, and integer classes, (B,) such
      as the labels or (B, N), in 0..C-1.
      Its class_ids are (B, top_k + N): the top_k classes by falling logit, and behind them those that were given; maps,
      boxes and valid are theirs in this order. It runs on the device that the images were put on, and leaves the
      results there. A second call with the same shapes compiles nothing.

    Raises:
      ValueError: unknown name, threshold or top_k out of range, or a model without the maps of the method; on a call,
        images or classes of another shape or type, or classes out of range.
    """
    if name not in NAMES:
        raise ValueError(f"method {name!r}: expected one of {', '.join(NAMES)}.")
    check_threshold(threshold)
    classes = method_classes(model, name)
    check_top_k(top_k, classes)

    def attribute(model, images, class_ids):
        return TRACED[name](inference_view(model), images, class_ids, top_k)

    if name not in TRACED:
        return _perturbing(model, name, classes, top_k, threshold, chunk_size=chunk_size, progress=progress)
    if name != "backprop":

        def localize(model, images, class_ids):
            return located(attribute(model, images, class_ids), images, threshold)

        return bind(model, localize, classes)

    from camjax.evaluation.saliency_boxes import saliency_boxes

    attribute_fn = bind(model, attribute, classes)

    def localize_on_host(images, class_ids=None):
        out = attribute_fn(images, class_ids)
        return Localization(*out, *saliency_boxes(images, out.maps))

    return localize_on_host


def method_image_size(model: nnx.Module, name: str) -> tuple[int, int]:
    """(H, W) in pixels of the images that a method is made for: the model's input size, or more for ten crops of it."""
    return ten_crop_size(model.input_size) if name == "cam_ten_crop" else model.input_size


def common_image_size(model: nnx.Module, names: Sequence[str]) -> tuple[int, int]:
    """(H, W) in pixels of the images that several methods are made for.

    Raises:
      ValueError: their sizes differ.
    """
    sizes = {method_image_size(model, name): name for name in names}
    if len(sizes) > 1:
        listed = ", ".join(f"{name} takes {h} x {w}" for (h, w), name in sizes.items())
        raise ValueError(f"methods with images of different sizes: {listed}. Take them one after the other.")
    return next(iter(sizes))


def method_classes(model: nnx.Module, name: str) -> int:
    """C of a model for a method.

    Raises:
      ValueError: the model has not the maps of the method.
    """
    takes_any_head = name not in ("cam", "cam_ten_crop") and hasattr(model.head, "num_classes")
    return model.head.num_classes if takes_any_head else num_classes(model)


def located(out: CamOutput, images: jax.Array, threshold: float) -> Localization:
    """The maps with their boxes by the paper's rule; traceable.

    Args:
      out: of a method; maps (1, 1, h, w) are those of all images and classes.
      images: (B, H, W, 3), for their size.
      threshold: share of the maximum.
    """
    boxes, valid = boxes_from_maps(out.maps, images.shape[1:3], threshold)
    of_classes = (jnp.broadcast_to(x, out.class_ids.shape + x.shape[2:]) for x in (out.maps, boxes, valid))
    return Localization(out.logits, out.class_ids, *of_classes)


def _perturbing(model, name: str, classes: int, top_k: int, threshold: float, **options) -> Method:
    """The method of a name that is a loop on the host, over compiled pieces."""

    def score(model, images, class_ids):
        view = inference_view(model)
        features = view.features(images)
        logits = view.head(features).astype(jnp.float32)
        return features, logits, top_classes_and_more(logits, class_ids, top_k)

    score_fn = bind(model, score, classes)
    view = inference_view(fold_batchnorm(model))
    networks = {None: cut_network(view.features, view.head)}
    locate_fn = jax.jit(functools.partial(located, threshold=threshold))

    def method(images, class_ids=None):
        features, logits, class_ids = score_fn(images, class_ids)
        device = committed_device(images)
        if device not in networks:
            networks[device] = jax.device_put(networks[None], device)
        target = as_target(class_ids, logits)
        maps = METHODS[name].from_network(networks[device], images, features, target, **options)
        return locate_fn(CamOutput(logits, class_ids, maps), images)

    return method
