"""How boxes overlap, on the host in float64: metrics compare IoU with a threshold, where rounding would decide."""

from collections.abc import Sequence

import numpy as np

from camjax.errors import InputError

# Coordinates in 0..1 are quotients in float32. A device may multiply by a rounded reciprocal instead of dividing, which
# is off by up to two units in the last place.
_ROUNDING = 2.0**-23
# A coordinate this far outside 0..1 still counts as the image's edge.
_EDGE = 1e-5
IOU_UNIT = 2.0**-36
"""In which IoU is summed, as integers: sums do not depend on the order of the images, and are exact to 1.5e-11 per
image over 10^8 images."""


def iou_matrix(a, b) -> np.ndarray:
    """Intersection over union of every box of one set with every box of another.

    Args:
      a: (..., n, 4) boxes `[ymin, xmin, ymax, xmax]`, half-open, in any one unit.
      b: (..., m, 4) boxes in the same unit; leading dimensions broadcast against those of `a`.

    Returns:
      (..., n, m) float64 in 0..1; 0 where the union is empty.
    """
    intersection, areas, _ = _measures(a, b)
    union = areas - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def reaches_iou(a, b, threshold: float) -> np.ndarray:
    """Whether the boxes overlap, with an IoU of `threshold` or more; an IoU of exactly `threshold` counts.

    Boxes are known up to float32's rounding. In an image 5 pixels wide, the second pixel has an IoU of 0.5 with the
    second and third together, but with edges at 1/5, 2/5 and 3/5 in float32 the IoU is a little below 0.5. So the
    comparison allows for the effect of that rounding on the areas: less than half a pixel in an image of 400,000.

    Args:
      a: (..., n, 4) boxes in 0..1.
      b: (..., m, 4) boxes in 0..1.
      threshold: in 0 < threshold <= 1.

    Returns:
      (..., n, m) bool.
    """
    intersection, areas, sides = _measures(a, b)
    # IoU >= t is I >= t (A + B - I). With edges known to within r, a height h and a width w are known to within 2 r
    # and their area to within 2 r (h + w); the height and width of the intersection are at most half of both boxes'.
    surplus = (1 + threshold) * intersection - threshold * areas
    return (intersection > 0) & (surplus >= -_ROUNDING * (1 + 3 * threshold) * sides)


def best_iou_units(boxes, true_boxes: np.ndarray) -> np.ndarray:
    """The best IoU of each box (B, N, 4) with any true box (B, n, 4) of its image: (B, N) int64 in `IOU_UNIT`."""
    return np.rint(iou_matrix(boxes, true_boxes).max(-1, initial=0.0) / IOU_UNIT).astype(np.int64)


def check_iou_threshold(iou_threshold: float) -> float:
    """The threshold as a float; raises ValueError unless it is above 0 and at most 1."""
    if not 0 < iou_threshold <= 1:
        raise InputError(f"iou_threshold={iou_threshold}: expected 0 < iou_threshold <= 1.")
    return float(iou_threshold)


def pad_true_boxes(true_boxes: Sequence, batch: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The true boxes of some images of a batch, checked, as one array.

    Args:
      true_boxes: B arrays (n_i, 4) of boxes in 0..1, n_i >= 0; or an array (B, n, 4), or (B, 4) for one box an image.
      batch: B.
      rows: (R,) the images wanted.

    Returns:
      boxes (R, n, 4) float64, n being the largest number of an image, with zeros where it has fewer; and counts (R,).

    Raises:
      ValueError: another number of images, an array of another shape, or a box that is empty, has its edges in the
        wrong order, or is not in 0..1.
    """
    if len(true_boxes) != batch:
        raise InputError(f"true_boxes of {len(true_boxes)} images: expected those of {batch}, padding counted.")
    arrays = []
    for row in rows:
        boxes = np.asarray(true_boxes[row], np.float64)
        if boxes.size == 0 or (boxes.shape == (4,) and getattr(true_boxes, "ndim", None) == 2):
            boxes = boxes.reshape(-1, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise InputError(f"true_boxes of row {row} have shape {boxes.shape}: expected (n, 4), n >= 0.")
        arrays.append(boxes)
    counts = np.array([len(boxes) for boxes in arrays], np.int64)
    padded = np.zeros((len(rows), counts.max(initial=0), 4))
    present = np.arange(padded.shape[1]) < counts[:, None]
    if arrays:
        padded[present] = np.concatenate(arrays)
    check_boxes(padded, present, rows, "true_boxes")
    if (empty := present & (padded[..., :2] >= padded[..., 2:]).any(-1)).any():
        image, box = np.argwhere(empty)[0]
        raise InputError(
            f"true_boxes of row {rows[image]}: box {padded[image, box].tolist()} is empty: no box can overlap it. "
            "Leave it out, and padding too: images may differ in their number of boxes."
        )
    return padded, counts


def check_boxes(boxes: np.ndarray, present: np.ndarray, rows: np.ndarray, name: str) -> None:
    """Raises ValueError if edges of boxes (R, N, 4) that are present (R, N) are in the wrong order, or not in 0..1.

    Messages take the name of the boxes, and the number of each row (R,) in the caller's batch.
    """
    good = (boxes >= -_EDGE).all(-1) & (boxes <= 1 + _EDGE).all(-1) & (boxes[..., :2] <= boxes[..., 2:]).all(-1)
    if (wrong := present & ~good).any():
        image, box = np.argwhere(wrong)[0]
        raise InputError(
            f"{name} of row {rows[image]}: box {boxes[image, box].tolist()}, expected [ymin, xmin, ymax, xmax] as "
            "shares of the image's height and width, 0 <= ymin <= ymax <= 1 and 0 <= xmin <= xmax <= 1."
        )


def _measures(a, b) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(..., n, m) areas of intersection, sums of both boxes' areas, and sums of both boxes' heights and widths."""
    a, b = np.asarray(a, np.float64)[..., :, None, :], np.asarray(b, np.float64)[..., None, :, :]
    side_a, side_b = (np.maximum(box[..., 2:] - box[..., :2], 0) for box in (a, b))
    shared = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    return shared.prod(-1), side_a.prod(-1) + side_b.prod(-1), side_a.sum(-1) + side_b.sum(-1)
