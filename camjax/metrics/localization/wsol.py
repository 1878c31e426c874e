"""MaxBoxAcc and MaxBoxAccV2 of the localization benchmark (Choe et al., CVPR 2020), with its conventions.

From the same maps, boxes and masks the results equal those of its evaluator, wsolevaluation, to the last digit. Its
conventions are in this file, `contours`, `score_maps` and `pxap`, and nowhere else: maps resized by OpenCV's cubic
interpolation and scaled to 0..1, boxes around OpenCV's contours, and boxes of whole pixels whose widths and heights
count one pixel more.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np

from camjax.errors import InputError
from camjax.metrics.localization.box_overlap import check_boxes
from camjax.metrics.localization.contours import check_thresholds, region_boxes, stepped_thresholds
from camjax.metrics.localization.score_maps import SIZE, in_threads, maps_and_rows, score_map
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import THRESHOLD_STEP, StreamingMetric

_IOU_THRESHOLDS = {1: (0.5,), 2: (0.3, 0.5, 0.7)}


class MaxBoxAcc(StreamingMetric):
    """MaxBoxAcc and MaxBoxAccV2: the share of images whose box is right, at the best threshold for the data set.

    Version 1 draws one box a map, around the contour of the largest area, which is right if its IoU with any true box
    is at least 0.5. Version 2 draws a box around every contour and counts an image if any of them meets any true box;
    it is the mean over IoU 0.3, 0.5 and 0.7, each at its own best threshold. See `contour_boxes` for the boxes.

    Images without a true box are counted apart and enter no rate. A map that is constant or not finite has the box
    (0, 0, 0, 0), as in the benchmark.

    Args:
      version: 1 or 2.
      thresholds: shares of the score map's maximum, in 0..1; None for `np.arange(0, 1, 0.01)`, those of the benchmark's
        evaluator of stored maps. Its training and inference, where published numbers come from, take steps of 0.001.
      iou_thresholds: in 0..1, at least one; None for (0.5,) in version 1 and (0.3, 0.5, 0.7) in version 2.
      size: (H, W) in pixels of the grid on which boxes are drawn and compared.
      num_threads: threads that share the maps of an update; None for one a core. It does not change the results.

    Raises:
      ValueError: another version, or thresholds out of range.
    """

    title = "MaxBoxAcc"
    unit = "percent"
    needs = frozenset({"boxes"})
    whole_images = True
    stepped = True

    def __init__(
        self,
        version: int = 1,
        thresholds: Sequence[float] | None = None,
        iou_thresholds: Sequence[float] | None = None,
        size: tuple[int, int] = SIZE,
        num_threads: int | None = None,
    ):
        if version not in _IOU_THRESHOLDS:
            raise InputError(f"version={version!r}: expected 1 (MaxBoxAcc) or 2 (MaxBoxAccV2).")
        self.thresholds = check_thresholds(stepped_thresholds() if thresholds is None else thresholds)
        self.iou_thresholds = check_thresholds(_IOU_THRESHOLDS[version] if iou_thresholds is None else iou_thresholds)
        self.num_threads = num_threads
        self._size = (size[0], size[1])
        self._name = "MaxBoxAcc" if version == 1 else "MaxBoxAccV2"
        super().__init__(
            {
                "version": version,
                "thresholds": self.thresholds.tolist(),
                "iou_thresholds": self.iou_thresholds.tolist(),
                "size": list(size),
            },
            {
                "images": 0,
                "images_with_boxes": 0,
                "hits": np.zeros((len(self.iou_thresholds), len(self.thresholds)), np.int64),
            },
        )

    @classmethod
    def for_evaluation(cls, num_classes: int, threshold_step: float = THRESHOLD_STEP) -> Self:
        """The metric at the thresholds 0, threshold_step, ... below 1.

        Raises:
          ValueError: a step that is not above 0 and below 1.
        """
        return cls(thresholds=stepped_thresholds(threshold_step).tolist())

    @property
    def num_without_boxes(self) -> int:
        """The number of images seen that have no true box."""
        return int(self.sums["images"] - self.sums["images_with_boxes"])

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the maps of the true classes."""
        self.update(sample.asked.maps[:, 0], sample.truth.wsol_boxes, mask=sample.truth.counted)

    def update(self, maps, true_boxes, mask=None) -> None:
        """Adds a batch of B images.

        Args:
          maps: (B, h, w) raw maps of the true class; score maps of this metric's size stay as they are.
          true_boxes: B arrays (n_i, 4) of true boxes `[ymin, xmin, ymax, xmax]` in 0..1, n_i >= 0; or an array
            (B, n, 4) or (B, 4). The benchmark lists whole pixels x, y, and uses `x * 224 / width`: give
            x / width and y / height of the listed numbers, without a pixel added to the far side.
          mask: (B,) bool, False for padding; None for all images.

        Raises:
          ValueError: another shape; a box with its edges in the wrong order or not in 0..1. Nothing is added then.
        """
        maps, rows = maps_and_rows(maps, len(true_boxes), "true_boxes", mask)
        boxes = {row: _grid_boxes(true_boxes[row], row, self._size) for row in rows.tolist()}
        boxes = {row: found for row, found in boxes.items() if len(found)}
        best_ious = in_threads(self._best_ious, self.num_threads, [maps[row] for row in boxes], boxes.values())
        hits = sum(best >= self.iou_thresholds[:, None] for best in best_ious)
        self.add(images=len(rows), images_with_boxes=len(boxes), hits=hits)

    def compute(self) -> dict[str, float]:
        """The rates in percent, and the thresholds that give them, as shares.

        Returns:
          Version 1: MaxBoxAcc, optimal_threshold. Version 2: MaxBoxAccV2, the mean; MaxBoxAccV2_30, MaxBoxAccV2_50,
          MaxBoxAccV2_70 and optimal_threshold_30, ... by the percent of IoU. Of equally good thresholds, the first.

        Raises:
          ValueError: no image with a true box was seen.
        """
        rates = self._rates()
        best = rates.max(1)
        thresholds = self.thresholds[rates.argmax(1)]
        if len(best) == 1:
            return {self._name: float(best[0]), "optimal_threshold": float(thresholds[0])}
        results = {self._name: float(np.average(best))}
        for name, values in ((self._name, best), ("optimal_threshold", thresholds)):
            results |= {f"{name}_{100 * iou:g}": float(x) for iou, x in zip(self.iou_thresholds, values, strict=True)}
        return results

    def curve(self) -> dict[str, np.ndarray]:
        """The rate at every threshold: thresholds (T,), and by MaxBoxAcc_50 and the like (T,) in percent.

        Raises:
          ValueError: no image with a true box was seen.
        """
        rates = zip(self.iou_thresholds, self._rates(), strict=True)
        return {"thresholds": self.thresholds} | {f"{self._name}_{100 * iou:g}": rate for iou, rate in rates}

    def _rates(self) -> np.ndarray:
        """(number of IoU thresholds, T) in percent."""
        if not self.sums["images_with_boxes"]:
            raise InputError(f"{self._name} of no image: expected at least one with a true box.")
        return self.sums["hits"] * 100.0 / float(self.sums["images_with_boxes"])

    def _best_ious(self, raw_map: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
        """(T,) the largest IoU of any of the map's boxes at each threshold with any of the true boxes (n, 4)."""
        scores, all_contours = score_map(raw_map, self._size), self.options["version"] == 2
        boxes, starts, region = region_boxes(scores, self.thresholds, all_contours)
        return np.maximum.reduceat(_grid_iou(boxes, true_boxes).max(1), starts)[region]


class MaxBoxAccV2(MaxBoxAcc):
    """`MaxBoxAcc(version=2)`, with the other arguments of `MaxBoxAcc` by name."""

    title = "MaxBoxAccV2"

    def __init__(self, **options):
        super().__init__(version=2, **options)


def _grid_boxes(true_boxes, row: int, size: tuple[int, int]) -> np.ndarray:
    """True boxes (n, 4) or (4,) of a row of the batch, on the grid of whole pixels: (n, 4) int64 x0, y0, x1, y1.

    They are truncated, as `int(x * 224 / width)`. A share x / width that was rounded to float32 can fall below the
    whole pixel that it means. Rounding to 1e-4 pixels before truncation brings it back, and moves no other value: where
    x * 224 / width is not whole, it is at least 1 / width away from a whole number.
    """
    boxes = np.asarray(true_boxes, np.float64)
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 or boxes.shape == (4,) else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"true_boxes of row {row} have shape {boxes.shape}: expected (n, 4), n >= 0.")
    check_boxes(boxes[None], np.ones((1, len(boxes)), bool), np.array([row]), "true_boxes")
    pixels = np.trunc(np.round(boxes * [*size, *size], 4)).astype(np.int64)
    return pixels[:, [1, 0, 3, 2]]


def _grid_iou(boxes: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    """(n, 4), (m, 4) int64 pixel boxes x0, y0, x1, y1 -> (n, m) IoU; sides count one pixel more than x1 - x0."""
    low = np.maximum(boxes[:, None, :2], true_boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], true_boxes[None, :, 2:])
    intersection = np.maximum(high - low + 1, 0).prod(-1)
    areas, true_areas = ((of[:, 2:] - of[:, :2] + 1).prod(-1) for of in (boxes, true_boxes))
    return intersection / (areas[:, None] + true_areas - intersection)
