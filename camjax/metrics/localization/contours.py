"""Boxes from a score map by OpenCV's contours, at many thresholds at once.

The rule is that of the localization benchmark (Choe et al., CVPR 2020), which calls OpenCV once per threshold. A score
map quantized to 8 bits has at most 256 distinct regions, however many thresholds there are. Many regions, stacked into
one tall image, take one call of OpenCV. The boxes are the same, in the same order, in a fraction of the time.
"""

import cv2
import numpy as np

from camjax.errors import InputError
from camjax.metrics.streaming import THRESHOLD_STEP

# Regions are stacked up to this many pixels: few calls, and a stack that fits the processor's cache.
_STACK_PIXELS = 1 << 18


def contour_boxes(score_map, thresholds, all_contours: bool = False) -> list[np.ndarray]:
    """The boxes around the contours of a score map's regions, one array per threshold.

    With `q = uint8(255 * score_map)`, truncated, the region at threshold t is `q > int(t * max(q))`. Its contours are
    those of `cv2.findContours` (RETR_TREE, CHAIN_APPROX_SIMPLE), outlines of holes among them. The box of a contour
    is its bounding rectangle with x1 = x0 + width and y1 = y0 + height, both at most the map's size - 1: one pixel
    beyond the contour, where the map has one.

    Args:
      score_map: (H, W) float in 0..1.
      thresholds: (T,) shares of the maximum, in 0..1, in any order.
      all_contours: False: the one contour of the largest polygon area (`cv2.contourArea`), of several the first in
        OpenCV's order. True: every contour, in OpenCV's order.

    Returns:
      T arrays (n, 4) int64 of pixel boxes x0, y0, x1, y1. A region without a contour has the one box (0, 0, 0, 0).
      The arrays are read-only: thresholds with the same region share one.

    Raises:
      ValueError: a score map that is not of rank 2 or not in 0..1 everywhere, or thresholds that are not.
    """
    boxes, starts, region = region_boxes(score_map, check_thresholds(thresholds), all_contours)
    boxes.flags.writeable = False
    by_region = np.split(boxes, starts[1:])
    return [by_region[i] for i in region.tolist()]


def region_boxes(score_map, thresholds: np.ndarray, all_contours: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`contour_boxes` without the repetition, at thresholds (T,) from `check_thresholds`, which make R regions.

    Returns:
      boxes: (n, 4) int64 x0, y0, x1, y1, region after region.
      starts: (R,) int64, where each region's boxes start; every region has at least one.
      region: (T,) int64 in 0..R-1, the region of each threshold.
    """
    q = _quantize(score_map)
    occurs = cv2.calcHist([q], [0], None, [256], [0, 256]).ravel() > 0
    maximum = int(np.flatnonzero(occurs)[-1])
    levels = (thresholds * maximum).astype(np.int64)
    # Levels without a pixel's value between them cut the map in the same way.
    _, first, region = np.unique(occurs.cumsum()[levels], return_index=True, return_inverse=True)
    levels = levels[first]
    boxes, starts = _boxes_of_levels(q, levels[levels < maximum], all_contours)
    if levels[-1] == maximum:  # nothing lies above it
        starts = np.append(starts, len(boxes))
        boxes = np.concatenate([boxes, np.zeros((1, 4), np.int64)])
    return boxes, starts, region


def check_thresholds(thresholds) -> np.ndarray:
    """Thresholds as (T,) float64; raises ValueError unless there is one and all are in 0..1."""
    thresholds = np.asarray(thresholds, np.float64)
    if thresholds.ndim != 1 or not len(thresholds) or not (thresholds.min() >= 0 and thresholds.max() <= 1):
        shown = np.array2string(thresholds, threshold=8)
        raise InputError(f"thresholds={shown}: expected at least one share of the maximum, in 0..1, in a sequence.")
    return thresholds


def stepped_thresholds(step: float = THRESHOLD_STEP) -> np.ndarray:
    """The thresholds 0, step, 2 step, ... below 1; raises ValueError unless the step is above 0 and below 1."""
    if not 0 < step < 1:
        raise InputError(f"threshold_step={step}: expected a share above 0 and below 1, such as 0.01 or 0.001.")
    return np.arange(0, 1, step)


def _quantize(score_map) -> np.ndarray:
    """A score map (H, W) in 0..1 as uint8(255 * score_map), truncated; raises ValueError for anything else."""
    score_map = np.asarray(score_map, np.float64)
    if score_map.ndim != 2 or not score_map.size:
        raise InputError(f"score_map of shape {score_map.shape}: expected (H, W), at least one pixel.")
    low, high = score_map.min(), score_map.max()
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"score_map with values in {low:g}..{high:g}: expected 0..1 and no NaN; see camjax.metrics.score_map."
        )
    return np.ascontiguousarray(score_map * 255).astype(np.uint8)


def _boxes_of_levels(q: np.ndarray, levels: np.ndarray, all_contours: bool) -> tuple[np.ndarray, np.ndarray]:
    """`boxes` and `starts` of the regions q > level. The levels (R,) rise, and are below the maximum of q (H, W)."""
    if not len(levels):
        return np.zeros((0, 4), np.int64), np.zeros(0, np.int64)
    contours, stacks = _stacked_contours(q, levels)
    counts, first_level, period, left, top = stacks.T.repeat(stacks[:, 0], axis=1)
    lengths = np.fromiter(map(len, contours), np.int64, len(contours))
    starts = lengths.cumsum() - lengths
    x, y = np.ascontiguousarray(np.concatenate(contours).reshape(-1, 2).T)
    x0, x1 = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    y0, y1 = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    place = y0 // period  # in its stack
    region = first_level + place
    shift = top - place * period
    height, width = q.shape
    boxes = np.stack(
        [x0 + left, y0 + shift, np.minimum(x1 + left + 1, width - 1), np.minimum(y1 + shift + 1, height - 1)], axis=1
    )
    counts = np.bincount(region, minlength=len(levels))
    region_starts = counts.cumsum() - counts
    if all_contours:
        return boxes[np.argsort(region, kind="stable")], region_starts
    largest = np.lexsort((-_twice_area(x, y, starts, lengths), region))[region_starts]  # stable: the first of equals
    return boxes[largest], np.arange(len(levels))


def _stacked_contours(q: np.ndarray, levels: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """OpenCV's contours of the regions q > level, found in stacks of several regions, one above the other.

    All regions of a stack have the frame of the lowest level, which holds the others, and an empty row that keeps them
    apart.

    Returns:
      contours: arrays (n, 1, 2) int32 of points x, y in their stack; those of one region in OpenCV's order.
      stacks: (S, 5) int64: for each stack the number of its contours, the index of its first level, the number of
        rows from one region to the next, and the frame's first column and row in q.
    """
    row_maximum, column_maximum = q.max(1), q.max(0)
    contours: list[np.ndarray] = []
    stacks: list[tuple[int, ...]] = []
    first = 0
    while first < len(levels):
        rows, columns = np.flatnonzero(row_maximum > levels[first]), np.flatnonzero(column_maximum > levels[first])
        top, left = rows[0], columns[0]
        height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
        framed = np.zeros((height + 1, width), np.uint8)
        framed[:-1] = q[top : top + height, left : left + width]
        chosen = levels[first : first + max(1, _STACK_PIXELS // framed.size)].astype(np.uint8)
        stack = framed.reshape(1, -1) > chosen[:, None]
        found, _ = cv2.findContours(stack.view(np.uint8).reshape(-1, width), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        contours += found
        stacks.append((len(found), first, height + 1, left, top))
        first += len(chosen)
    return contours, np.array(stacks, np.int64)


def _twice_area(x: np.ndarray, y: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(P,) int64, twice the area of closed polygons, as in `cv2.contourArea`; exact, in whole numbers.

    Points x, y (n,) int32 are of all polygons, one after the other, with where each starts (P,) and its length (P,). A
    product of an x and a y is at most the number of pixels of an image, which OpenCV's int32 can count.
    """
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    ends = starts + lengths - 1
    next_x[ends], next_y[ends] = x[starts], y[starts]
    return np.abs(np.add.reduceat(x * next_y - next_x * y, starts, dtype=np.int64))
