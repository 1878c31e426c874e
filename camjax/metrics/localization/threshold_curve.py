"""How good boxes are as a function of the threshold they were drawn at."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from camjax.boxes import boxes_from_maps
from camjax.cam import resize_map
from camjax.errors import InputError
from camjax.metrics.localization.box_overlap import (
    IOU_UNIT,
    best_iou_units,
    check_boxes,
    check_iou_threshold,
    pad_true_boxes,
    reaches_iou,
)
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import StreamingMetric, rows_of

DEFAULT_THRESHOLDS = tuple(step / 20 for step in range(20))  # the paper's 0.2 is among them


class Curve(NamedTuple):
    """What `ThresholdCurve.curve` returns, for T thresholds.

    Attributes:
      thresholds: (T,) float64 shares of the map's maximum.
      gt_known_localization: (T,) float64 percent of the images whose box reaches the IoU threshold.
      mean_iou: (T,) float64 100 x the mean IoU.
    """

    thresholds: np.ndarray
    gt_known_localization: np.ndarray
    mean_iou: np.ndarray


class ThresholdCurve(StreamingMetric):
    """GT-known localization and mean IoU at every threshold of the paper's box rule.

    The rule (Zhou et al. 2016, section 3.2): the box of the largest component of the region where the map is above
    `threshold` x its maximum. The IoU of an image is the best with any of its true boxes, 0 where the map gave no box.
    Images without true boxes are left out. MaxBoxAcc of wsolevaluation is a different curve: it scales maps from
    minimum to maximum, and draws boxes around contours.

    Args:
      thresholds: T thresholds, rising, in 0 <= threshold < 1.
      iou_threshold: the IoU that counts as right, 0 < iou_threshold <= 1.

    Raises:
      ValueError: thresholds or iou_threshold out of range.
    """

    title = "Threshold curve"
    unit = "percent"
    needs = frozenset({"boxes"})
    whole_images = True

    def __init__(self, thresholds: Sequence[float] = DEFAULT_THRESHOLDS, iou_threshold: float = 0.5):
        thresholds = _check_thresholds(thresholds)
        super().__init__(
            {"thresholds": thresholds, "iou_threshold": check_iou_threshold(iou_threshold)},
            dict.fromkeys(("images", "images_with_boxes"), 0)
            | dict.fromkeys(("localized", "iou_units"), [0] * len(thresholds)),
        )

    @property
    def num_without_boxes(self) -> int:
        """The number of images seen that have no true box: left out of the rates."""
        return int(self.sums["images"] - self.sums["images_with_boxes"])

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: boxes from the maps of the true classes at every threshold."""
        height, width = sample.images.shape[1:3]
        boxes, valid = boxes_at_thresholds(sample.asked.maps[:, 0], (height, width), self.options["thresholds"])
        self.update(boxes, valid, sample.truth.boxes, mask=sample.truth.counted)

    def update(self, boxes, valid, true_boxes, mask=None) -> None:
        """Adds a batch of B images.

        Args:
          boxes: (B, T, 4) the box of the true class's map at each threshold, in 0..1; see `boxes_at_thresholds`.
          valid: (B, T) bool, False where there is no box.
          true_boxes: B arrays (n_i, 4) of true boxes in 0..1, n_i >= 0; or an array (B, n, 4) or (B, 4).
          mask: (B,) bool, False for padding; None for all images.

        Raises:
          ValueError: an array of another shape, or a box with its edges in the wrong order or not in 0..1; the message
            names the row. Nothing is added then.
        """
        boxes, valid = np.asarray(boxes, np.float64), np.asarray(valid, bool)
        count = len(self.options["thresholds"])
        if boxes.ndim != 3 or boxes.shape[1:] != (count, 4) or valid.shape != boxes.shape[:2]:
            raise InputError(
                f"boxes of shape {boxes.shape} and valid of shape {valid.shape}: expected (B, {count}, 4) and "
                f"(B, {count}), one box for each of the {count} thresholds."
            )
        rows = rows_of(mask, len(boxes))
        true_boxes, num_boxes = pad_true_boxes(true_boxes, len(boxes), rows)
        boxes, valid = boxes[rows], valid[rows]
        check_boxes(boxes, valid, rows, "boxes")
        boxes = np.where(valid[..., None], boxes, 0)

        self.add(
            images=len(rows),
            images_with_boxes=(num_boxes > 0).sum(),
            localized=reaches_iou(boxes, true_boxes, self.options["iou_threshold"]).any(-1).sum(0),
            iou_units=best_iou_units(boxes, true_boxes).sum(0),
        )

    def curve(self) -> Curve:
        """The rates at every threshold, as arrays for a plot.

        Raises:
          ValueError: no image with a true box.
        """
        images = int(self.sums["images_with_boxes"])
        if not images:
            raise InputError(f"{self!r} has seen no image with a true box: expected an update() with some.")
        return Curve(
            np.array(self.options["thresholds"]),
            100 * self.sums["localized"] / images,
            100 * (IOU_UNIT * self.sums["iou_units"]) / images,
        )

    def compute(self) -> dict[str, float]:
        """The best of each curve, and the lowest threshold that has it.

        Returns:
          "best_gt_known_localization" and "best_mean_iou" in percent; "best_gt_known_localization_threshold" and
          "best_mean_iou_threshold", shares of the map's maximum in 0..1. As the threshold is chosen on the same images,
          they are upper bounds of what a threshold fixed beforehand reaches.

        Raises:
          ValueError: no image with a true box.
        """
        curve = self.curve()
        results = {}
        for name in ("gt_known_localization", "mean_iou"):
            values = getattr(curve, name)
            best = values.argmax()
            results[f"best_{name}"] = float(values[best])
            results[f"best_{name}_threshold"] = float(curve.thresholds[best])
        return results


def boxes_at_thresholds(
    maps, size: tuple[int, int], thresholds: Sequence[float] = DEFAULT_THRESHOLDS
) -> tuple[jax.Array, jax.Array]:
    """The paper's box of each map at every threshold, in one compiled call; see `camjax.make_localize_fn`.

    Args:
      maps: (..., h, w) raw maps.
      size: (H, W) of the image in pixels.
      thresholds: T thresholds, rising, in 0 <= threshold < 1.

    Returns:
      (..., T, 4) float32 boxes in 0..1, zeros where not valid; and (..., T) bool, valid.
    """
    return _boxes_at_thresholds(maps, tuple(size), jnp.asarray(_check_thresholds(thresholds), jnp.float32))


@partial(jax.jit, static_argnums=1)
def _boxes_at_thresholds(maps, size, thresholds):
    maps = resize_map(maps, size)
    # One threshold after the other: all at once would take the memory of T batches of masks.
    boxes, valid = jax.lax.map(lambda threshold: boxes_from_maps(maps, size, threshold), thresholds)
    return jnp.moveaxis(boxes, 0, -2), jnp.moveaxis(valid, 0, -1)


def _check_thresholds(thresholds: Sequence[float]) -> list[float]:
    """The thresholds as a list; raises ValueError unless they rise in 0 <= threshold < 1."""
    thresholds = [float(threshold) for threshold in thresholds]
    in_range = all(0 <= threshold < 1 for threshold in thresholds)
    if not thresholds or not in_range or thresholds != sorted(set(thresholds)):
        raise InputError(f"thresholds={thresholds}: expected rising shares of the map's maximum, 0 <= threshold < 1.")
    return thresholds
