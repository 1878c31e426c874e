"""ILSVRC's localization error, with classification error and GT-known localization in the same pass."""

from collections.abc import Sequence
from typing import Self

import numpy as np

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
from camjax.metrics.streaming import THRESHOLD_STEP, StreamingMetric, rows_of


class LocalizationError(StreamingMetric):
    """Localization error, classification error and GT-known localization (Zhou et al. 2016, Tables 1 to 3).

    - Localization error at k (ILSVRC): the share of images where no entry among the first k has both the image's class
      and a box whose IoU with any of the image's true boxes reaches `iou_threshold`.
    - Classification error at k: the share of images whose class is not among the first k predicted.
    - GT-known localization: the share of images where the box of the true class's map, for any prediction, reaches
      `iou_threshold` with any true box; and the mean of that box's best IoU, 0 where the map gave no box.

    Images without true boxes count in the classification errors only. Boxes are half-open. ILSVRC's own evaluation
    counts widths one pixel larger, because its boxes name their last pixel; a box [x0, y0, x1, y1] of its files is
    `[y0 / H, x0 / W, (y1 + 1) / H, (x1 + 1) / W]` here, and the IoU is the same.

    Args:
      top_k: the k of the errors, rising, each at least 1.
      iou_threshold: the IoU that counts as right, 0 < iou_threshold <= 1.

    Raises:
      ValueError: top_k or iou_threshold out of range.
    """

    title = "ILSVRC"
    unit = "percent"
    needs = frozenset({"boxes"})

    def __init__(self, top_k: Sequence[int] = (1, 5), iou_threshold: float = 0.5):
        top_k = [int(k) for k in top_k]
        if not top_k or top_k[0] < 1 or top_k != sorted(set(top_k)):
            raise InputError(f"top_k={top_k}: expected rising numbers of predictions, such as (1, 5).")
        counts = ("images", "images_with_boxes", "gt_known_images", "gt_known_localized", "gt_known_iou_units")
        super().__init__(
            {"top_k": top_k, "iou_threshold": check_iou_threshold(iou_threshold)},
            dict.fromkeys(counts, 0) | dict.fromkeys(("localized", "classified"), [0] * len(top_k)),
        )

    @classmethod
    def for_evaluation(cls, num_classes: int, threshold_step: float = THRESHOLD_STEP) -> Self:
        """Top-1 and top-5 errors; with fewer than five classes only top-1."""
        return cls(top_k=[k for k in (1, 5) if k <= num_classes])

    @property
    def num_without_boxes(self) -> int:
        """The number of images seen that have no true box."""
        return int(self.sums["images"] - self.sums["images_with_boxes"])

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the most probable classes, and the box of the true class.

        Of the most probable classes only the true one can be right, and its box is the one of its map. So no other box
        has to be drawn.
        """
        top, asked, truth = sample.top, sample.asked, sample.truth
        entries = top.class_ids.shape[1]
        self.update(
            top.class_ids,
            np.repeat(asked.boxes, entries, axis=1),
            truth.labels,
            truth.boxes,
            valid=np.repeat(asked.valid, entries, axis=1),
            label_boxes=asked.boxes[:, 0],
            label_valid=asked.valid[:, 0],
            mask=truth.counted,
        )

    def update(
        self,
        class_ids,
        boxes,
        labels,
        true_boxes,
        *,
        valid=None,
        ranking=None,
        label_boxes=None,
        label_valid=None,
        mask=None,
    ) -> None:
        """Adds a batch of B images.

        Args:
          class_ids: (B, N) integers: the class of each entry, best first, N >= max(top_k); later entries do
            not matter.
          boxes: (B, N, 4) one box in 0..1 for each entry.
          labels: (B,) integers: the true classes.
          true_boxes: B arrays (n_i, 4) of true boxes in 0..1, n_i >= 0; or an array (B, n, 4) or (B, 4).
          valid: (B, N) bool, False where an entry has no box and so cannot be right; None where all have one.
          ranking: (B, M) integers: the predicted classes, best first, M >= max(top_k), for the classification error
            where class_ids repeat a class that has several boxes (the paper's heuristic: [c1, c1, c2, c2, c3]).
            None where class_ids are the ranking.
          label_boxes: (B, 4) the box of the true class's map; None leaves GT-known localization out.
          label_valid: (B,) bool, False where that map gave no box; None where all did.
          mask: (B,) bool, False for padding; None for all images.

        Raises:
          ValueError: an array of another shape; a negative class; class_ids that repeat a class, without `ranking`; a
            box with its edges in the wrong order or not in 0..1. The message names the row. Nothing is added then.
        """
        top_k, threshold = self.options["top_k"], self.options["iou_threshold"]
        batch, most = len(labels), top_k[-1]
        rows = rows_of(mask, batch)
        labels = np.asarray(labels)
        if labels.ndim != 1:
            raise InputError(f"labels of shape {labels.shape}: expected ({batch},), the id of one class an image.")
        labels = _classes("labels", labels[:, None], batch, 1, rows)
        class_ids = _classes("class_ids", class_ids, batch, most, rows)
        if ranking is None:
            ranking = class_ids
            _check_no_repeats(ranking, rows)
        else:
            ranking = _classes("ranking", ranking, batch, most, rows)
        boxes = _boxes("boxes", boxes, valid, batch, most, rows)
        true_boxes, num_boxes = pad_true_boxes(true_boxes, batch, rows)

        meets = reaches_iou(boxes, true_boxes, threshold).any(-1)
        localized = np.logical_or.accumulate(meets & (class_ids == labels), axis=1)
        classified = np.logical_or.accumulate(ranking == labels, axis=1)
        places = np.array(top_k) - 1
        found = {
            "images": len(rows),
            "images_with_boxes": (num_boxes > 0).sum(),
            "localized": localized[:, places].sum(0),
            "classified": classified[:, places].sum(0),
        }
        if label_boxes is not None:
            label_boxes = np.asarray(label_boxes)[:, None]
            label_valid = None if label_valid is None else np.asarray(label_valid)[:, None]
            label_boxes = _boxes("label_boxes", label_boxes, label_valid, batch, 1, rows)
            found |= {
                "gt_known_images": (num_boxes > 0).sum(),
                "gt_known_localized": reaches_iou(label_boxes, true_boxes, threshold).any(-1).sum(),
                "gt_known_iou_units": best_iou_units(label_boxes, true_boxes).sum(),
            }
        self.add(**found)

    def compute(self) -> dict[str, float]:
        """The rates in percent: low is good for an error, high for the GT-known ones.

        Returns:
          "top1_classification_error" and "top5_classification_error" over all images. If some images have true boxes,
          "top1_localization_error" and "top5_localization_error" over those. If label_boxes were given too,
          "gt_known_localization" (an accuracy) and "gt_known_mean_iou" (100 x IoU) over the same images. Other k give
          other names.

        Raises:
          ValueError: no images; or label_boxes were given for some of the images only.
        """
        images, located, gt_known = (
            int(self.sums[name]) for name in ("images", "images_with_boxes", "gt_known_images")
        )
        if not images:
            raise InputError(f"{self!r} has seen no images: expected an update() first.")
        if gt_known not in (0, located):
            raise InputError(
                f"label_boxes were given for {gt_known} of {located} images with boxes: expected them in every update, "
                "or in none."
            )
        results = {}
        for k, right in zip(self.options["top_k"], self.sums["classified"].tolist(), strict=True):
            results[f"top{k}_classification_error"] = 100 * (images - right) / images
        if located:
            for k, right in zip(self.options["top_k"], self.sums["localized"].tolist(), strict=True):
                results[f"top{k}_localization_error"] = 100 * (located - right) / located
        if gt_known:
            results["gt_known_localization"] = 100 * int(self.sums["gt_known_localized"]) / gt_known
            results["gt_known_mean_iou"] = 100 * float(IOU_UNIT * self.sums["gt_known_iou_units"]) / gt_known
        return results


def _classes(name: str, ids, batch: int, most: int, rows: np.ndarray) -> np.ndarray:
    """The first `most` columns of the rows wanted, checked: (R, most)."""
    ids = np.asarray(ids)
    if ids.ndim != 2 or len(ids) != batch or ids.shape[1] < most or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            f"{name} of shape {ids.shape} and dtype {ids.dtype}: expected integers, {most} or more for each of "
            f"{batch} images. With fewer classes than that, ask for a smaller top_k."
        )
    ids = ids[rows, :most]
    if (ids < 0).any():
        image = np.argwhere(ids < 0)[0, 0]
        raise InputError(f"{name} of row {rows[image]}: {ids[image].tolist()}, expected classes from 0 on.")
    return ids


def _check_no_repeats(ranking: np.ndarray, rows: np.ndarray) -> None:
    """Raises ValueError where a class is named twice in a row of (R, K) predictions, which then is not a ranking."""
    ordered = np.sort(ranking, axis=1)
    if (repeated := (ordered[:, 1:] == ordered[:, :-1]).any(1)).any():
        image = repeated.argmax()
        raise InputError(
            f"class_ids of row {rows[image]}: {ranking[image].tolist()} name a class twice. Where a class has several "
            "boxes, pass the predicted classes as `ranking`, for the classification error."
        )


def _boxes(name: str, boxes, valid, batch: int, most: int, rows: np.ndarray) -> np.ndarray:
    """The first `most` boxes of the rows wanted, checked: (R, most, 4); zeros, which meet no box, where not valid."""
    boxes = np.asarray(boxes, np.float64)
    valid = np.ones(boxes.shape[:2], bool) if valid is None else np.asarray(valid, bool)
    if boxes.ndim != 3 or boxes.shape[0] != batch or boxes.shape[1] < most or boxes.shape[2] != 4:
        raise InputError(f"{name} of shape {boxes.shape}: expected {most} or more boxes for each of {batch} images.")
    if valid.shape != boxes.shape[:2]:
        raise InputError(f"valid of shape {valid.shape} for {name} of shape {boxes.shape}: expected one for each box.")
    boxes, valid = boxes[rows, :most], valid[rows, :most]
    check_boxes(boxes, valid, rows, name)
    return np.where(valid[..., None], boxes, 0)
