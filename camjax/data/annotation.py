"""What is known about an image beside its pixels, and the one form in which evaluation reads it."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camjax.data.sources import SourceInfo

BLACKLISTED = "blacklisted"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Annotation:
    """What is known about one image.

    Attributes:
      filename: the image's name within its data set, with forward slashes.
      label: its class.
      boxes: (n, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1 of the stored image, half-open; n is 0 where none
        is known.
      excluded: "", or why the image does not count: `BLACKLISTED` or `UNREADABLE`.
      wsol_boxes: (n, 4) float32, the same boxes for wsolevaluation's metrics: its listed integers x, y as x / width and
        y / height. They differ from `boxes` where a file names a box's last pixel, which `boxes` takes in as a whole.
        By default the same as `boxes`.
    """

    filename: str
    label: int
    boxes: np.ndarray
    excluded: str = ""
    wsol_boxes: np.ndarray | None = None

    def __post_init__(self):
        if self.wsol_boxes is None:
            object.__setattr__(self, "wsol_boxes", self.boxes)


class AnnotatedSource(abc.ABC):
    """Images with labels, and with boxes or masks or both: what evaluation reads.

    The order never changes. Threads may read at once and, since a source can be pickled, processes.

    Images are the stored pixels, not turned by an EXIF tag, for that is what boxes and masks of data sets refer to.

    Attributes:
      info: name, split, class names and number of images.
      has_boxes: whether the source has boxes; single images may lack them still.
      has_masks: whether `mask` has an answer.
    """

    info: SourceInfo
    has_boxes: bool
    has_masks: bool = False

    def __len__(self) -> int:
        return self.info.num_examples

    @abc.abstractmethod
    def __getitem__(self, index: int) -> dict:
        """The image: image (H, W, 3) uint8 RGB, label int, filename str.

        Raises:
          IndexError: an index out of range.
          ValueError: the image can't be read; the message names it.
        """

    @abc.abstractmethod
    def annotation(self, index: int) -> Annotation:
        """What is known about the image, which is not decoded.

        Raises:
          IndexError: an index out of range.
          ValueError: a label or a box that can't be; the message names the file.
        """

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Which pixels belong to the object.

        Args:
          index: the image's.
          size: (H, W) to bring the mask to, each pixel taking the value of one pixel (OpenCV's INTER_NEAREST, as
            wsolevaluation does); None is the mask's own size.

        Returns:
          (H, W) uint8: 1 object, 0 background, 255 neither, to be ignored.

        Raises:
          IndexError: an index out of range.
          ValueError: the source has no masks, or this one can't be read.
        """
        raise ValueError(f"{self!r} has no masks: metrics over pixels need a source that has.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info.name!r}, split={self.info.split!r})"

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {self!r} has {len(self)} images")


def no_boxes() -> np.ndarray:
    """(0, 4) float32: the boxes of an image that has none."""
    return np.zeros((0, 4), np.float32)


def stem_of(filename: str) -> str:
    """The last part of a file name with forward slashes, without its suffix: what images and boxes are joined on."""
    return filename.rpartition("/")[2].rpartition(".")[0] or filename.rpartition("/")[2]


def check_corners(corners: Sequence[float], size: tuple[int, int], where: str) -> None:
    """Checks a box that a file gives in pixels, counted from 0.

    Args:
      corners: xmin, ymin, xmax, ymax.
      size: (H, W) of the image.
      where: the file, and the line or object in it, for the message.

    Raises:
      ValueError: a number that is not finite, a box turned inside out, or one that leaves the image by more than a
        pixel.
    """
    xmin, ymin, xmax, ymax = corners
    height, width = size
    box = f"the box xmin={xmin:g}, ymin={ymin:g}, xmax={xmax:g}, ymax={ymax:g}"
    if not all(map(math.isfinite, corners)) or xmin > xmax or ymin > ymax:
        raise ValueError(f"{where}: {box} is none: expected xmin <= xmax and ymin <= ymax. Correct the file.")
    # The last pixel is width - 1: a file that counts from 1 has a box that ends at width, a pixel outside.
    inside = -1 <= xmin < width and 0 <= xmax <= width and -1 <= ymin < height and 0 <= ymax <= height
    if not inside:
        raise ValueError(
            f"{where}: {box} leaves the image of {width} x {height} pixels: expected 0 <= x <= {width - 1} and "
            f"0 <= y <= {height - 1}, give or take a pixel. Correct the file."
        )


def boxes_of_last_pixels(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """Boxes given by their first and their last pixel, as shares of the image.

    Pixels count from 0, and the last one belongs to the box, which is xmax - xmin + 1 wide: ILSVRC's convention. Its
    boxes run from 0 to width - 1, and its evaluation counts widths and heights one pixel larger than the difference.
    The half-open boxes that come out have that same IoU.

    Args:
      corners: (n, 4) xmin, ymin, xmax, ymax, each checked by `check_corners`.
      size: (H, W) of the image.

    Returns:
      (n, 4) float32 `[ymin / H, xmin / W, (ymax + 1) / H, (xmax + 1) / W]`, clipped to 0..1.
    """
    return shares([(xmin, ymin, xmax + 1, ymax + 1) for xmin, ymin, xmax, ymax in corners], size)


def shares(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """(n, 4) xmin, ymin, xmax, ymax in pixels -> (n, 4) float32 [ymin, xmin, ymax, xmax] as shares, clipped to 0..1."""
    height, width = size
    edges = np.asarray(corners, np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]]
    return np.clip(edges / [height, width, height, width], 0, 1).astype(np.float32)
