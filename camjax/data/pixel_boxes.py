"""Boxes in pixels, as annotation files list them: checks, and the conversion to shares of the image."""

import math
from collections.abc import Sequence

import numpy as np

Corners = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in pixels."""


def check_corners(corners: Sequence[float], size: tuple[int, int], where: str) -> None:
    """Checks a box that a file gives in pixels, counted from 0.

    Args:
      corners: xmin, ymin, xmax, ymax.
      size: (H, W) of the image.
      where: the file, and the line or object in it, for the message.

    Raises:
      ValueError: a number that is not finite, a minimum above its maximum, or a box that leaves the image by more than
        a pixel.
    """
    xmin, ymin, xmax, ymax = corners
    height, width = size
    box = f"the box xmin={xmin:g}, ymin={ymin:g}, xmax={xmax:g}, ymax={ymax:g}"
    if not all(map(math.isfinite, corners)) or xmin > xmax or ymin > ymax:
        raise ValueError(f"{where}: {box} is invalid: expected xmin <= xmax and ymin <= ymax. Correct the file.")
    # The last pixel is width - 1: in a file that counts from 1 a box ends at width, a pixel outside.
    inside = -1 <= xmin < width and 0 <= xmax <= width and -1 <= ymin < height and 0 <= ymax <= height
    if not inside:
        raise ValueError(
            f"{where}: {box} leaves the image of {width} x {height} pixels: expected 0 <= x <= {width - 1} and "
            f"0 <= y <= {height - 1}, give or take a pixel. Correct the file."
        )


def boxes_of_last_pixels(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """Converts boxes given by their first and last pixels.

    Pixels count from 0, and the last one belongs to the box, which is xmax - xmin + 1 wide: ILSVRC's convention. Its
    boxes run from 0 to width - 1, and its evaluation takes widths and heights one pixel larger than the difference.
    The half-open boxes that this returns have the same IoU.

    Args:
      corners: (n, 4) xmin, ymin, xmax, ymax, each checked by `check_corners`.
      size: (H, W) of the image.

    Returns:
      (n, 4) float32 `[ymin / H, xmin / W, (ymax + 1) / H, (xmax + 1) / W]`, clipped to 0..1.
    """
    return shares([(xmin, ymin, xmax + 1, ymax + 1) for xmin, ymin, xmax, ymax in corners], size)


def shares(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """Divides boxes by the size of their image.

    Args:
      corners: (n, 4) xmin, ymin, xmax, ymax in pixels.
      size: (H, W) of the image.

    Returns:
      (n, 4) float32 `[ymin / H, xmin / W, ymax / H, xmax / W]`, clipped to 0..1.
    """
    height, width = size
    edges = np.asarray(corners, np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    return np.clip(edges / [height, width, height, width], 0, 1).astype(np.float32)
