"""The pointing game: is the map's maximum on the object?"""

from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np

from camjax.errors import InputError
from camjax.metrics.localization.object_masks import IGNORE, object_masks
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import THRESHOLD_STEP, StreamingMetric, rows_of


class PointingGame(StreamingMetric):
    """The share of images where the map's maximum lies on the object (Zhang et al. 2016, excitation backprop, 4.1).

    The map is resized to the image (bilinear, half-pixel centers). Its maximum is a pixel, of equal values the first in
    raster order. It is a hit if a pixel of the object is at most `tolerance` pixels away, from center to center. The
    object is all pixels with their center in any true box, or those that are 1 in a mask. A map that is constant, or
    that holds NaN or infinity, has no maximum and counts as a miss.

    The paper averages the rate over categories. This one is over images, which is the same where all categories have
    the same number of images.

    Args:
      tolerance: in pixels of the image, >= 0; 15 in the paper.

    Raises:
      ValueError: a tolerance below 0, or not finite.
    """

    title = "Pointing game"
    unit = "percent"
    needs = frozenset({"boxes"})
    whole_images = True

    def __init__(self, tolerance: float = 0):
        if not 0 <= tolerance < np.inf:
            raise InputError(f"tolerance={tolerance}: expected pixels, 0 or more.")
        super().__init__(
            {"tolerance": float(tolerance)},
            dict.fromkeys(("images", "images_with_objects", "hits", "without_maximum"), 0),
        )

    @classmethod
    def for_evaluation(cls, num_classes: int, threshold_step: float = THRESHOLD_STEP) -> Self:
        """With the paper's tolerance of 15 pixels."""
        return cls(tolerance=15)

    @property
    def num_without_objects(self) -> int:
        """The number of images seen without a true box, or with an empty mask: left out of the rate."""
        return int(self.sums["images"] - self.sums["images_with_objects"])

    @property
    def num_without_maximum(self) -> int:
        """The number of misses because the map is constant, or not finite."""
        return int(self.sums["without_maximum"])

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the maps of the true classes."""
        truth = sample.truth
        # Images that could not be read have no size; they are not counted.
        sizes = np.maximum(truth.image_sizes, 1)
        self.update(sample.asked.maps[:, 0], truth.boxes, image_sizes=sizes, mask=truth.counted)

    def update(self, maps, true_boxes: Sequence | None = None, *, masks=None, image_sizes=None, mask=None) -> None:
        """Adds a batch of B images.

        Args:
          maps: (B, h, w) raw maps, such as those of the true classes.
          true_boxes: B arrays (n_i, 4) of true boxes in 0..1, n_i >= 0; or an array (B, n, 4) or (B, 4).
          masks: in place of true_boxes, B arrays (H_i, W_i): 1 (True) object, 0 background, 255 pixels to ignore,
            where the maximum is not searched.
          image_sizes: (B, 2) or (2,) integers, height and width in pixels of each image or of all; with true_boxes
            only, as masks have the images' sizes.
          mask: (B,) bool, False for padding; None for all images.

        Raises:
          ValueError: both or none of true_boxes and masks; no image_sizes for boxes; an array of another shape, or a
            box or mask with other values; the message names the row. Nothing is added then.
        """
        maps = np.asarray(maps)
        if maps.ndim != 3 or 0 in maps.shape[1:] or not np.issubdtype(maps.dtype, np.floating):
            raise InputError(f"maps of shape {maps.shape} and dtype {maps.dtype}: expected (B, h, w) floats.")
        rows = rows_of(mask, len(maps))
        objects = object_masks(true_boxes, masks, image_sizes, len(maps), rows)
        images_with_objects = hits = without_maximum = 0
        for row, regions in zip(rows, objects, strict=True):
            if not (regions == 1).any():
                continue
            images_with_objects += 1
            point = _maximum(maps[row], regions == IGNORE)
            if point is None:
                without_maximum += 1
            else:
                hits += _is_near(regions == 1, point, self.options["tolerance"])
        self.add(images=len(rows), images_with_objects=images_with_objects, hits=hits, without_maximum=without_maximum)

    def compute(self) -> dict[str, float]:
        """The accuracy in percent: "pointing_game".

        Raises:
          ValueError: no image with an object.
        """
        if not self.sums["images_with_objects"]:
            raise InputError(f"{self!r} has seen no image with an object: expected an update() with boxes or masks.")
        return {"pointing_game": 100 * int(self.sums["hits"]) / int(self.sums["images_with_objects"])}


def _maximum(cam: np.ndarray, ignored: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the maximum of a map (h, w), resized, where no pixel (H, W) is ignored; None without one."""
    if not np.isfinite(cam).all() or cam.min() == cam.max():
        return None
    resized = cv2.resize(cam.astype(np.float32), ignored.shape[::-1], interpolation=cv2.INTER_LINEAR)
    resized[ignored] = -np.inf
    y, x = np.unravel_index(resized.argmax(), ignored.shape)
    return int(y), int(x)


def _is_near(region: np.ndarray, point: tuple[int, int], tolerance: float) -> bool:
    """Whether a pixel of the region (H, W) is at most `tolerance` from a point."""
    y, x = point
    reach = int(tolerance)
    top, left = max(y - reach, 0), max(x - reach, 0)
    rows, columns = np.nonzero(region[top : y + reach + 1, left : x + reach + 1])
    return bool(((rows + top - y) ** 2 + (columns + left - x) ** 2 <= tolerance**2).any())
