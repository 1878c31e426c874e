"""What a file of annotations says about one image."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from camjax.data.pixel_boxes import Corners, boxes_of_last_pixels, check_corners
from camjax.data.wsol import wsol_boxes


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
        """Checks the boxes against the image.

        Args:
          size: (H, W) of the stored image.
          path: of the image, for messages.

        Raises:
          ValueError: a box does not lie in the image, or the file is about an image of another size.
        """
        if self.size is None:
            for corners, line in zip(self.corners, self.lines, strict=True):
                check_corners(corners, size, line)
        elif self.size != size:
            turned = ", as stored: draw boxes on the image as it is stored, not turned by its EXIF tag."
            raise ValueError(
                f"{self.where} is about an image of {self.size[1]} x {self.size[0]} pixels, but {path} has "
                f"{size[1]} x {size[0]}{turned if self.size == size[::-1] else '. Correct the file.'}"
            )

    def boxes(self, size: tuple[int, int]) -> np.ndarray:
        """(n, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1, half-open; `size` is the image's (H, W)."""
        return boxes_of_last_pixels(self.corners, size)

    def wsol_boxes(self, size: tuple[int, int]) -> np.ndarray:
        """(n, 4) float32, see `camjax.data.wsol.wsol_boxes`; `size` is the image's (H, W)."""
        return wsol_boxes(self.corners, size)
