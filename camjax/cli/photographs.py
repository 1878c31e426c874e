"""What a network says about photographs of any sizes: the numbers that commands print and draw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

TABLE_ROWS = 5
DISPLAY_SIDE = 800  # pixels; more than a photograph gets in a figure


@dataclass(frozen=True)
class Explanation:
    """What the network says about one photograph, for N classes.

    Attributes:
      size: (H, W) of the photograph in pixels.
      display: the photograph at its own aspect ratio, at most `DISPLAY_SIDE` high and wide; (H', W', 3) uint8 RGB.
      class_ids: (N,), the most probable ones first, in order; then those asked for.
      ranks: (N,) place of each class by falling probability, from 1.
      probabilities: (N,) softmax of the logits.
      maps: (N, h, w) raw class activation maps.
      boxes: (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1.
      valid: (N,) whether there is a box.
    """

    size: tuple[int, int]
    display: np.ndarray
    class_ids: np.ndarray
    ranks: np.ndarray
    probabilities: np.ndarray
    maps: np.ndarray
    boxes: np.ndarray
    valid: np.ndarray


def explain_photos(
    network,
    photos: Sequence[np.ndarray],
    asked: Sequence[int],
    top_k: int,
    threshold: float,
    method: str = "cam",
    progress: Callable[[int, int], None] | None = None,
) -> list[Explanation]:
    """Runs the network on photographs of any sizes, one at a time.

    Compiling takes a hundred times as long as running does, so a batch would gain nothing.

    Args:
      network: a model that has what the method needs.
      photos: (H, W, 3) uint8 RGB each.
      asked: ids of classes to add to the most probable ones.
      top_k: the number of these, where it is more than `TABLE_ROWS`.
      threshold: as in `camjax.make_localize_fn`.
      method: see `camjax.evaluation.methods.make_method`.
      progress: likewise.

    Raises:
      ValueError: top_k out of range, an unknown method, or a network without its maps.
    """
    from camjax.data.images import resize_image
    from camjax.evaluation.methods import method_image_size
    from camjax.inference import check_top_k

    check_top_k(top_k, network.head.num_classes)
    shown = max(top_k, min(TABLE_ROWS, network.head.num_classes))
    size = method_image_size(network, method)
    if method == "cam":
        localize = _cams_of_any_classes(network, asked, shown, threshold)
    else:
        localize = _method(network, method, asked, shown, threshold, progress)
    explanations = []
    for photo in photos:
        logits, ids, maps, boxes, valid = localize(resize_image(photo, size))
        ranks = np.argsort(np.argsort(-logits, kind="stable")) + 1
        explanations.append(
            Explanation(
                size=photo.shape[:2],
                display=for_display(photo),
                class_ids=ids,
                ranks=ranks[ids],
                probabilities=softmax(logits)[ids],
                maps=maps,
                boxes=boxes,
                valid=valid,
            )
        )
    return explanations


def softmax(logits: np.ndarray) -> np.ndarray:
    """(C,) logits -> (C,) probabilities; in NumPy, for it compiles nothing."""
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def for_display(photo: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) at its own aspect ratio, at most `DISPLAY_SIDE` high and wide."""
    from camjax.data.images import resize_image

    scale = min(1, DISPLAY_SIDE / max(photo.shape[:2]))
    return resize_image(photo, tuple(max(1, round(side * scale)) for side in photo.shape[:2]))


def edges_in_pixels(box: np.ndarray, size: tuple[int, int]) -> str:
    """A box in 0..1 as a table's columns of top, left, bottom and right, in pixels of an image (H, W)."""
    return "{:5} {:5} {:6} {:5}".format(*np.rint(box * (*size, *size)).astype(int))


def _cams_of_any_classes(network, asked, shown, threshold) -> Callable[[np.ndarray], tuple]:
    """Class activation maps: one compiled program serves every number of classes, and every threshold.

    It returns the maps of all classes, which cost little more than one.
    """
    import jax

    from camjax.inference import boxes_from_maps, make_cam_fn

    cam_fn = make_cam_fn(network, top_k=None)
    boxes_fn = jax.jit(boxes_from_maps, static_argnums=1)

    def localize(image):
        out = jax.device_get(cam_fn(image[None]))
        order = np.argsort(-out.logits[0], kind="stable")
        ids = np.concatenate([order[:shown], np.array(asked, order.dtype)])
        maps = out.maps[0, ids]
        return out.logits[0], ids, maps, *jax.device_get(boxes_fn(maps, image.shape[:2], np.float32(threshold)))

    return localize


def _method(network, method, asked, shown, threshold, progress) -> Callable[[np.ndarray], tuple]:
    """Any method, with a program for these classes and this threshold."""
    import jax

    from camjax.evaluation.methods import make_method

    method_fn = make_method(network, method, threshold=threshold, top_k=shown, progress=progress)
    class_ids = np.array([asked]) if asked else None
    return lambda image: [field[0] for field in jax.device_get(method_fn(image[None], class_ids))]
