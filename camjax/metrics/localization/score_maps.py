"""Score maps: raw maps as the localization benchmark prepares them (Choe et al., CVPR 2020), batch by batch."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from camjax.errors import InputError
from camjax.metrics.streaming import rows_of

SIZE = (224, 224)
"""The benchmark's grid: height and width to which maps, boxes and masks are brought."""


def score_map(raw_map, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A raw map as the benchmark prepares it: resized (OpenCV's cubic interpolation), then scaled to 0..1.

    A score map of that size, whose values reach 0 and 1, comes back as it is.

    Args:
      raw_map: (h, w), of any real values; not clipped at 0.
      size: (H, W) in pixels.

    Returns:
      (H, W) float64, with minimum 0 and maximum 1. A map that is constant, or holds NaN or infinity, once resized
      becomes zeros.

    Raises:
      ValueError: a map of another rank, or empty.
    """
    raw_map = np.asarray(raw_map, np.float64)
    if raw_map.ndim != 2 or not raw_map.size:
        raise InputError(f"raw_map of shape {raw_map.shape}: expected (h, w), at least one cell.")
    resized = cv2.resize(raw_map, size[::-1], interpolation=cv2.INTER_CUBIC)
    low = resized.min()
    with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity
        scale = resized.max() - low
    if not np.isfinite(scale) or scale == 0:
        return np.zeros(size)
    return (resized - low) / scale


def maps_and_rows(maps, number: int, name: str, mask) -> tuple[np.ndarray, np.ndarray]:
    """Checked maps (B, h, w), and the rows that are not padding; `number` is the length of the array called `name`."""
    maps = np.asarray(maps)
    if maps.ndim != 3 or len(maps) != number:
        raise InputError(
            f"maps of shape {maps.shape} and {name} of {number} images: expected (B, h, w), one map an image."
        )
    return maps, rows_of(mask, number)


def in_threads(function: Callable, num_threads: int | None, maps: Sequence, *others: Iterable) -> Iterator:
    """`map(function, maps, *others)`, in that many threads; None for one a core."""
    threads = min(num_threads or os.cpu_count() or 1, len(maps))
    if threads <= 1:
        return map(function, maps, *others)
    with ThreadPoolExecutor(threads) as pool:
        return pool.map(function, maps, *others)
