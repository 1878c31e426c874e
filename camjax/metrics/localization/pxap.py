"""PxAP, the localization benchmark's metric where objects are known by masks (Choe et al., CVPR 2020)."""

from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np

from camjax.errors import InputError
from camjax.metrics.localization.contours import check_thresholds, stepped_thresholds
from camjax.metrics.localization.score_maps import SIZE, in_threads, maps_and_rows, score_map
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import THRESHOLD_STEP, StreamingMetric


class PxAP(StreamingMetric):
    """PxAP: the area under the precision-recall curve of the pixels of a whole data set, for data sets with masks.

    Between each two thresholds, the pixels of all score maps are counted, on objects and on background. The area is the
    sum over these bins, from the highest down, of the precision above the bin's lower edge times the increase of
    recall. Pixels to ignore are in neither count.

    Args:
      thresholds: lower edges of the bins, rising from 0, below 1; None for the evaluator's, `np.arange(0, 1, 0.01)`.
      size: (H, W) in pixels to which maps and masks are brought.
      num_threads: threads that share the maps of an update; None for one a core. It does not change the results.

    Raises:
      ValueError: thresholds that do not rise from 0 to below 1.
    """

    title = "PxAP"
    unit = "percent"
    needs = frozenset({"masks"})
    whole_images = True
    stepped = True

    def __init__(
        self,
        thresholds: Sequence[float] | None = None,
        size: tuple[int, int] = SIZE,
        num_threads: int | None = None,
    ):
        self.thresholds = check_thresholds(stepped_thresholds() if thresholds is None else thresholds)
        if self.thresholds[0] != 0 or self.thresholds[-1] >= 1 or (np.diff(self.thresholds) <= 0).any():
            shown = np.array2string(self.thresholds, threshold=8)
            raise InputError(f"thresholds={shown}: expected lower edges of bins, rising from 0, below 1.")
        self.num_threads = num_threads
        self._size = (size[0], size[1])
        # The benchmark's last two bins, of the value 1 and above it. The latter is always empty.
        self._edges = np.append(self.thresholds, [1.0, 2.0, 3.0])
        super().__init__(
            {"thresholds": self.thresholds.tolist(), "size": list(size)},
            {"images": 0} | dict.fromkeys(("object_pixels", "background_pixels"), [0] * (len(self._edges) - 1)),
        )

    @classmethod
    def for_evaluation(cls, num_classes: int, threshold_step: float = THRESHOLD_STEP) -> Self:
        """The metric at the thresholds 0, threshold_step, ... below 1.

        Raises:
          ValueError: a step that is not above 0 and below 1.
        """
        return cls(thresholds=stepped_thresholds(threshold_step).tolist())

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the maps of the true classes.

        Raises:
          ValueError: a sample without masks.
        """
        if sample.truth.masks is None:
            raise InputError("PxAP of a sample without masks: expected Truth.masks, one mask an image.")
        self.update(sample.asked.maps[:, 0], sample.truth.masks, mask=sample.truth.counted)

    def update(self, maps, masks, mask=None) -> None:
        """Adds a batch of B images.

        Args:
          maps: (B, h, w) raw maps of the true class; score maps of this metric's size stay as they are.
          masks: B arrays (H_i, W_i) uint8 of any size: 1 on the object, 0 on background, 255 where to ignore. They
            are resized to this metric's size by OpenCV's nearest neighbor.
          mask: (B,) bool, False for padding; None for all images.

        Raises:
          ValueError: another shape or type, or another value in a mask. Nothing is added then.
        """
        maps, rows = maps_and_rows(maps, len(masks), "masks", mask)
        resized = [_resize_mask(masks[row], row, self._size) for row in rows]
        counts = in_threads(self._count, self.num_threads, maps[rows], resized)
        objects, backgrounds = sum(counts, np.zeros((2, 1), np.int64))
        self.add(images=len(rows), object_pixels=objects, background_pixels=backgrounds)

    def compute(self) -> dict[str, float]:
        """PxAP in percent.

        Raises:
          ValueError: no pixel of an object was seen, so recall is undefined.
        """
        precision, recall = self._precision_and_recall()
        precision, increase = precision[::-1][1:], np.diff(recall[::-1])
        known = ~np.isnan(precision)
        return {"PxAP": float((precision[known] * increase[known]).sum() * 100)}

    def curve(self) -> dict[str, np.ndarray]:
        """Arrays (T,): thresholds; precision and recall, in percent, of the pixels at or above each.

        Precision is NaN where no pixel is.

        Raises:
          ValueError: no pixel of an object was seen.
        """
        precision, recall = self._precision_and_recall()
        count = len(self.thresholds)
        return {"thresholds": self.thresholds, "precision": 100 * precision[:count], "recall": 100 * recall[:count]}

    def _precision_and_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares (T + 2,) of the pixels at or above each edge but the last; precision is NaN without any."""
        if not self.sums["object_pixels"].any():
            raise InputError("PxAP without a pixel of an object: expected at least one 1 in the masks.")
        objects, backgrounds = (
            self.sums[name][::-1].cumsum()[::-1].astype(np.float64) for name in ("object_pixels", "background_pixels")
        )
        predicted = objects + backgrounds
        precision = np.divide(objects, predicted, out=np.full_like(objects, np.nan), where=predicted > 0)
        return precision, objects / objects[0]

    def _count(self, raw_map: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """(2, T + 2) the numbers of object and background pixels in each bin."""
        scores = score_map(raw_map, self._size)
        return np.stack([np.histogram(scores[mask == value], self._edges)[0] for value in (1, 0)])


def _resize_mask(mask, row: int, size: tuple[int, int]) -> np.ndarray:
    """A mask of 1, 0 and 255 by nearest neighbor; raises ValueError, with the row, for anything else."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size or mask.dtype != np.uint8:
        raise InputError(f"mask of row {row}, shape {mask.shape}, dtype {mask.dtype}: expected (H, W) uint8.")
    mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
    if (other := (mask > 1) & (mask < 255)).any():
        raise InputError(f"mask of row {row} has the value {mask[other][0]}: expected 1, 0, and 255 where to ignore.")
    return mask
