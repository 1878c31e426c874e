"""Relevance mass and rank accuracy: how much of a map, and of its largest values, lies on the object."""

from collections.abc import Sequence

import cv2
import numpy as np

from camjax.errors import InputError
from camjax.metrics.localization.object_masks import IGNORE, object_masks
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import StreamingMetric, rows_of

_UNIT = 2.0**-36
"""In which shares are summed, as integers: sums do not depend on the order of the images."""


class Relevance(StreamingMetric):
    """Relevance mass and rank accuracy by true boxes (Arras et al. 2022, "CLEVR-XAI").

    The map is resized to the image (bilinear, half-pixel centers). Mass accuracy is the share that the object has in
    the sum of the map's positive values; other values count as 0. Rank accuracy is the share of the object in the K
    pixels with the largest values, of equal values the first in raster order, where the object has K pixels. The object
    is all pixels with their center in any true box. Both are means over images with objects, in percent. A map without
    a positive value has a mass accuracy of 0, and one that holds NaN or infinity has 0 for both.
    """

    title = "Relevance accuracy"
    unit = "percent"
    needs = frozenset({"boxes"})
    whole_images = True
    _prefix = "relevance"

    def __init__(self):
        super().__init__({}, dict.fromkeys(("images", "images_with_objects", "mass", "rank"), 0))

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the maps of the true classes."""
        truth = sample.truth
        # Images that could not be read have no size; they are not counted.
        sizes = np.maximum(truth.image_sizes, 1)
        self.update(sample.asked.maps[:, 0], truth.boxes, image_sizes=sizes, mask=truth.counted)

    def update(self, maps, true_boxes: Sequence | None = None, *, masks=None, image_sizes=None, mask=None) -> None:
        """Adds a batch of B images; arguments and errors as `camjax.metrics.PointingGame.update`."""
        maps = np.asarray(maps)
        if maps.ndim != 3 or 0 in maps.shape[1:] or not np.issubdtype(maps.dtype, np.floating):
            raise InputError(f"maps of shape {maps.shape} and dtype {maps.dtype}: expected (B, h, w) floats.")
        rows = rows_of(mask, len(maps))
        objects = object_masks(true_boxes, masks, image_sizes, len(maps), rows)
        shares = [_shares(maps[row], of) for row, of in zip(rows, objects, strict=True) if (of == 1).any()]
        mass, rank = np.rint(np.reshape(shares, (-1, 2)) / _UNIT).astype(np.int64).sum(0)
        self.add(images=len(rows), images_with_objects=len(shares), mass=mass, rank=rank)

    def compute(self) -> dict[str, float]:
        """Both accuracies in percent: "relevance_mass" and "relevance_rank".

        Raises:
          ValueError: no image with an object.
        """
        count = int(self.sums["images_with_objects"])
        if not count:
            raise InputError(f"{self!r} has seen no image with an object: expected an update() with boxes or masks.")
        return {f"{self._prefix}_{name}": 100 * _UNIT * int(self.sums[name]) / count for name in ("mass", "rank")}


class MaskRelevance(Relevance):
    """`Relevance` by masks: "mask_relevance_mass" and "mask_relevance_rank". Pixels to ignore are in no sum."""

    title = "Relevance accuracy by masks"
    needs = frozenset({"masks"})
    _prefix = "mask_relevance"

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the maps of the true classes.

        Raises:
          ValueError: a sample without masks.
        """
        if sample.truth.masks is None:
            raise InputError("relevance by masks of a sample without masks: expected Truth.masks, one mask an image.")
        self.update(sample.asked.maps[:, 0], masks=sample.truth.masks, mask=sample.truth.counted)


def _shares(cam: np.ndarray, objects: np.ndarray) -> tuple[float, float]:
    """The object's share of the positive sum, and of the largest values, of a map (h, w)."""
    if not np.isfinite(cam).all():
        return 0, 0
    counted = objects != IGNORE
    resized = cv2.resize(cam.astype(np.float32), objects.shape[::-1], interpolation=cv2.INTER_LINEAR)
    values, inside = resized[counted].astype(np.float64), objects[counted] == 1
    positive = np.maximum(values, 0)
    total = positive.sum()
    largest = np.argsort(-values, kind="stable")[: inside.sum()]
    return (positive[inside].sum() / total if total else 0), inside[largest].mean()
