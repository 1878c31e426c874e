"""What a network says about photographs of any sizes: the numbers that commands print and draw."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from camjax.cli.ready_network import ReadyNetwork, make_ready
from camjax.exporting.network import ExportedNetwork

if TYPE_CHECKING:
    from camjax.attribution.methods import Method
    from camjax.models import CamModel

TABLE_ROWS = 5
DISPLAY_PIXELS = 800 * 600  # more than a photograph gets in a figure of 150 dpi


class ClassMaps(NamedTuple):
    """N classes of one photograph.

    Attributes:
      class_ids: (N,).
      ranks: (N,) place of each class by falling probability, from 1.
      probabilities: (N,) of the classes, see `camjax.cam.class_probabilities`.
      maps: (N, h, w) raw maps.
      boxes: (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1.
      valid: (N,) whether there is a box.
    """

    class_ids: np.ndarray
    ranks: np.ndarray
    probabilities: np.ndarray
    maps: np.ndarray
    boxes: np.ndarray
    valid: np.ndarray

    def first(self, count: int) -> "ClassMaps":
        """The first `count` of the classes."""
        return ClassMaps(*(field[:count] for field in self))


@dataclass(frozen=True)
class ExplainedPhoto:
    """What the network says about one photograph.

    Attributes:
      size: (H, W) of the photograph in pixels.
      display: the photograph at its own aspect ratio, as large as a figure shows it; (H', W', 3) uint8 RGB.
      top: the most probable classes, in order.
      asked: the classes that were asked for; None where none were.
    """

    size: tuple[int, int]
    display: np.ndarray
    top: ClassMaps
    asked: ClassMaps | None

    @property
    def all(self) -> ClassMaps:
        """The most probable classes, then those asked for that are not among them."""
        if self.asked is None:
            return self.top
        new = ~np.isin(self.asked.class_ids, self.top.class_ids)
        return ClassMaps(*(np.concatenate([a, b[new]]) for a, b in zip(self.top, self.asked, strict=True)))


def photo_explainer(
    network: "CamModel | ReadyNetwork | ExportedNetwork",
    asked: Sequence[int],
    method: str = "cam",
    *,
    top_k: int,
    threshold: float,
    layer: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    display_pixels: float = DISPLAY_PIXELS,
) -> Callable[[np.ndarray], ExplainedPhoto]:
    """Makes a function that runs the network on one photograph of any size.

    One at a time: compiling takes a hundred times as long as running, so that a batch would gain nothing.

    Args:
      network: a model that has what the method needs, one that is ready to run by it, or an exported one, which has
        its own method and layer.
      asked: ids of classes to add to the most probable ones.
      method: as in `camjax.make_localize_fn`.
      top_k: the number of most probable classes, where it is more than `TABLE_ROWS`.
      threshold: as in `camjax.make_localize_fn`.
      layer: as in `camjax.make_localize_fn`.
      progress: as in `camjax.make_localize_fn`, of methods that have this option.
      display_pixels: as in `for_display`.

    Returns:
      The function of a photograph (H, W, 3) uint8 RGB.

    Raises:
      ValueError: top_k out of range, an unknown method, or a network without what the method needs.
    """
    from camjax.checks import check_top_k
    from camjax.data.images import resize_image

    if not isinstance(network, ReadyNetwork | ExportedNetwork):
        from camjax.attribution.methods import method_named

        row = method_named(method)
        if row.all_classes:
            network = make_ready(network, method)
    if isinstance(network, ReadyNetwork):
        classes, size = network.num_classes, network.image_size
    elif isinstance(network, ExportedNetwork):
        classes, size = network.num_classes, network.input_size
    else:
        classes, size = row.num_classes(network), row.image_size(network)
    check_top_k(top_k, classes)
    shown = max(top_k, min(TABLE_ROWS, classes))
    localize: Localize
    if isinstance(network, ReadyNetwork):
        localize = _from_maps_of_all_classes(network, asked, shown, threshold)
    elif isinstance(network, ExportedNetwork):
        localize = _from_exported(network, asked, shown, threshold)
    else:
        localize = _from_maps_of_these_classes(network, row, asked, shown, threshold, layer, progress)

    def explain(photo: np.ndarray) -> ExplainedPhoto:
        return ExplainedPhoto(photo.shape[:2], for_display(photo, display_pixels), *localize(resize_image(photo, size)))

    return explain


def for_display(photo: np.ndarray, pixels: float = DISPLAY_PIXELS) -> np.ndarray:
    """A photograph (H, W, 3) at its own aspect ratio, with at most `pixels`."""
    from camjax.data.images import resize_image

    scale = min(1, math.sqrt(pixels / (photo.shape[0] * photo.shape[1])))
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    return resize_image(photo, (height, width))


def edges_in_pixels(box: np.ndarray, size: tuple[int, int]) -> str:
    """A box in 0..1 as a table's columns of top, left, bottom and right, in pixels of an image (H, W)."""
    from camjax.data.pixel_boxes import whole_pixels

    return "{:5} {:5} {:6} {:5}".format(*whole_pixels(box, size))


Localize = Callable[[np.ndarray], tuple[ClassMaps, ClassMaps | None]]
"""An image (H, W, 3) -> the most probable classes, and those asked for."""


def _from_maps_of_all_classes(network: ReadyNetwork, asked: Sequence[int], shown: int, threshold: float) -> Localize:
    """One compiled program serves every number of classes, and every threshold."""
    import jax

    boxes_fn = functools.cache(network.boxes_fn)

    def localize(image):
        (logits,), (all_maps,) = jax.device_get(network.maps_fn(image[None]))
        ids = _shown_and_asked(logits, shown, asked)
        maps = all_maps[ids]
        boxes, valid = jax.device_get(boxes_fn(maps.shape)(maps, np.float32(threshold)))
        return _parted(class_maps(network.multi_label, logits, ids, maps, boxes, valid), shown)

    return localize


def _from_exported(network: ExportedNetwork, asked: Sequence[int], shown: int, threshold: float) -> Localize:
    """The program for given classes serves every number of them."""
    import jax

    def localize(image):
        ids = _shown_and_asked(np.asarray(network(image[None]).logits[0]), shown, asked)
        found = jax.device_get(network(image[None], ids[None], threshold=threshold))
        return _parted(class_maps(network.multi_label, *(field[0] for field in found)), shown)

    return localize


def _shown_and_asked(logits: np.ndarray, shown: int, asked: Sequence[int]) -> np.ndarray:
    """Ids of the most probable classes, followed by those asked for."""
    return np.concatenate([np.argsort(-logits, kind="stable")[:shown], np.array(asked, np.int64)])


def _parted(every: ClassMaps, shown: int) -> tuple[ClassMaps, ClassMaps | None]:
    asked = ClassMaps(*(field[shown:] for field in every))
    return every.first(shown), asked if len(asked.class_ids) else None


def _from_maps_of_these_classes(
    network: "CamModel",
    row: "Method",
    asked: Sequence[int],
    shown: int,
    threshold: float,
    layer: str | None,
    progress: Callable[[int, int], None] | None,
) -> Localize:
    """A program for this number of classes, and every threshold."""
    import jax

    from camjax.inference import make_localize_fns

    options = {row.name: row.accepted(progress=progress)}
    localize_fn = make_localize_fns(network, [row.name], threshold=threshold, top_k=shown, layer=layer, options=options)
    class_ids = np.array([asked]) if asked else None

    def localize(image):
        found = jax.device_get(localize_fn(image[None], class_ids)[row.name])
        top, asked_for = (
            None if part is None else class_maps(network.multi_label, *(field[0] for field in part)) for part in found
        )
        return top, asked_for

    return localize


def class_maps(multi_label: bool, logits: np.ndarray, ids: np.ndarray, *maps_and_boxes: Any) -> ClassMaps:
    """Classes of one photograph, from the fields of `camjax.Localization` for it."""
    from camjax.cam import class_probabilities

    ranks = np.argsort(np.argsort(-logits, kind="stable")) + 1
    return ClassMaps(ids, ranks[ids], class_probabilities(logits, multi_label)[ids], *maps_and_boxes)
