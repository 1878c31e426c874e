"""wsolevaluation's conventions for boxes and masks (Choe et al., CVPR 2020; github.com/clovaai/wsolevaluation).

Its metrics work on a grid of 224 x 224 pixels. They multiply the numbers of a box, as its file lists them, by
224 / width or 224 / height and drop the fraction, whatever the file means by its last pixel. Masks come to the grid
by the nearest pixel. `camjax.data.annotations.wsol_lists` reads its text lists.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from camjax.data.pixel_boxes import Corners, shares


def wsol_boxes(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The boxes that wsolevaluation's metrics start from.

    Args:
      corners: (n, 4) xmin, ymin, xmax, ymax in pixels, as listed.
      size: (H, W) of the image.

    Returns:
      (n, 4) float32 `[ymin / H, xmin / W, ymax / H, xmax / W]`: not a pixel wider, even where the file's last pixel
      belongs to the box.
    """
    return shares(corners, size)


def with_extent(corners: Corners) -> Corners:
    """A listed box with at least a pixel on each side, since x0 == x1 occurs in wsolevaluation's lists."""
    x0, y0, x1, y1 = corners
    return x0, y0, max(x1, x0 + 1, 1), max(y1, y0 + 1, 1)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a mask, each pixel taking the value of one pixel (OpenCV's INTER_NEAREST).

    Args:
      mask: (H, W) uint8.
      size: (h, w) of the result.

    Returns:
      (h, w) uint8.
    """
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)
