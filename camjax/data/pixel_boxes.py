"""Boxes in pixels, as annotation files list them: checks, turning, and conversion to shares of the image and back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from camjax.errors import InputError

Corners = tuple[float, float, float, float]
"""xmin, ymin, xmax, ymax in pixels."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """What a file of annotations says about one image.

    Attributes:
      where: the file, and the line that names the image first, for messages.
      classes: the names of its class, or of its objects' classes; empty where the file has none.
      corners: xmin, ymin, xmax, ymax of each box in pixels, counted from 0; the last pixel belongs to the box.
      lines: where each box is in the file; may be empty with `size`.
      size: (H, W) of the image, where the file gives it and the boxes have been checked against it.
    """

    where: str
    classes: tuple[str, ...]
    corners: list[Corners] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None

    def check(self, size: tuple[int, int], path: Path) -> None:
        """Raises ValueError for a box outside of the image at `path`, of (H, W) pixels, or for another aspect of it."""
        if self.size is None:
            for corners, line in zip(self.corners, self.lines, strict=True):
                check_corners(corners, size, line)
        elif not same_aspect(self.size, size):
            turned = ", as stored: draw boxes on the image as it is stored, not turned by its EXIF tag."
            raise InputError(
                f"{self.where} is about an image of {self.size[1]} x {self.size[0]} pixels, but {path} has "
                f"{size[1]} x {size[0]}{turned if self.size == size[::-1] else '. Correct the file.'}"
            )

    def boxes(self, size: tuple[int, int]) -> np.ndarray:
        """Returns the boxes as (n, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1 of an image of (H, W) pixels.

        Where the file gives a size, boxes are shares of that: the image may be a scaled copy.

        They end after their last pixel, xmax - xmin + 1 wide. This is ILSVRC's convention: its boxes run from 0 to
        width - 1, and its evaluation takes widths and heights one pixel larger than the difference.
        """
        corners = [(xmin, ymin, xmax + 1, ymax + 1) for xmin, ymin, xmax, ymax in self.corners]
        return shares(corners, self.size or size)

    def wsol_boxes(self, size: tuple[int, int]) -> np.ndarray:
        """Returns the boxes as (n, 4) float32 shares of their numbers, see `camjax.data.annotations.wsol_lists`."""
        return shares(self.corners, self.size or size)


def same_aspect(listed: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether an image of (H, W) pixels may be a scaled copy of one of another size, with sides rounded up or down."""
    (listed_height, listed_width), (height, width) = listed, size
    # Some factor brings both listed sides to less than a pixel from the image's.
    return (height - 1) * listed_width < (width + 1) * listed_height and (width - 1) * listed_height < (
        height + 1
    ) * listed_width


def check_corners(corners: Corners, size: tuple[int, int], where: str) -> None:
    """Checks a box that a file gives in pixels, counted from 0.

    Args:
      corners: xmin, ymin, xmax, ymax.
      size: (H, W) of the image.
      where: the file, and the line or object in it, for the message.

    Raises:
      ValueError: a number that is not finite, a minimum above its maximum, a box in shares of the image, or one that
        leaves the image by more than a pixel.
    """
    xmin, ymin, xmax, ymax = corners
    height, width = size
    box = f"the box xmin={xmin:g}, ymin={ymin:g}, xmax={xmax:g}, ymax={ymax:g}"
    if not all(map(math.isfinite, corners)) or xmin > xmax or ymin > ymax:
        raise InputError(f"{where}: {box} is invalid: expected xmin <= xmax and ymin <= ymax. Correct the file.")
    if min(corners) >= 0 and max(corners) <= 1 and any(value % 1 for value in corners):
        raise InputError(
            f"{where}: {box} looks like shares of the image, in 0..1: expected pixels. Multiply x by its width, "
            f"{width}, and y by its height, {height}."
        )
    # The last pixel is width - 1: in a file that counts from 1 a box ends at width, a pixel outside.
    if not (-1 <= xmin < width and 0 <= xmax <= width and -1 <= ymin < height and 0 <= ymax <= height):
        raise InputError(
            f"{where}: {box} leaves the image of {width} x {height} pixels: expected 0 <= x <= {width - 1} and "
            f"0 <= y <= {height - 1}, give or take a pixel. Correct the file."
        )


def turn_boxes(boxes: np.ndarray, orientation: int, size: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Boxes of an image's stored pixels as boxes of the image that is turned by its EXIF tag.

    Args:
      boxes: (..., 4) `[ymin, xmin, ymax, xmax]`, half-open.
      orientation: 1..8, see `camjax.data.image_files.read_orientation`.
      size: (H, W) of the stored image in pixels; (1, 1) for boxes in 0..1.
    """
    height, width = size
    if orientation in (5, 6, 7, 8):
        boxes, height, width = boxes[..., [1, 0, 3, 2]], width, height
    ymin, xmin, ymax, xmax = np.moveaxis(boxes, -1, 0)
    if orientation in (3, 4, 7, 8):
        ymin, ymax = height - ymax, height - ymin
    if orientation in (2, 3, 6, 7):
        xmin, xmax = width - xmax, width - xmin
    return np.stack([ymin, xmin, ymax, xmax], axis=-1)


def turn_boxes_back(boxes: np.ndarray, orientation: int, size: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Boxes of an upright image as boxes of its stored pixels; `size` is that of the upright one. See `turn_boxes`."""
    return turn_boxes(boxes, {6: 8, 8: 6}.get(orientation, orientation), size)  # the others are their own inverses


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


def whole_pixels(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes in 0..1 as the nearest edges between pixels.

    A box with an area has at least a pixel; one without, which stands for none, has none.

    Args:
      boxes: (..., 4) `[ymin, xmin, ymax, xmax]`.
      size: (H, W) of the image.

    Returns:
      (..., 4) int64, half-open.
    """
    low, high = np.split(boxes, 2, axis=-1)
    least = (high > low).astype(np.int64)
    low, high = (np.rint(part * size).astype(np.int64) for part in (low, high))
    low = np.minimum(low, np.array(size) - least)
    return np.concatenate([low, np.maximum(high, low + least)], axis=-1)
