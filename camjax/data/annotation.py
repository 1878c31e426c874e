"""Annotations of images, and the type of source that evaluation reads."""

import abc
from dataclasses import dataclass, field

import cv2
import numpy as np

from camjax.data.source_info import SourceInfo
from camjax.errors import InputError

BLACKLISTED = "blacklisted"
UNREADABLE = "unreadable"
OTHER_SIZE = "of another size than listed"
UNLABELED = "without a class"

_NOT_GIVEN = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Annotation:
    """What is known about one image.

    Attributes:
      filename: the image's name within its data set, with forward slashes.
      label: its class.
      boxes: (n, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1 of the stored image, half-open; n is 0 where no box is
        known.
      excluded: "", or why the image does not count: `BLACKLISTED`, `UNREADABLE` or `UNLABELED`; an evaluation adds
        `OTHER_SIZE`.
      wsol_boxes: (n, 4) float32, the same boxes for wsolevaluation's metrics, see `camjax.data.annotations.wsol_lists`;
        `boxes` if not given.
      size: (H, W) of the image, where a file lists it and boxes are shares of it; else None. Check it by `same_aspect`
        against the image that is there.
    """

    filename: str
    label: int
    boxes: np.ndarray
    excluded: str = ""
    wsol_boxes: np.ndarray = field(default_factory=lambda: _NOT_GIVEN)
    size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.wsol_boxes is _NOT_GIVEN:
            object.__setattr__(self, "wsol_boxes", self.boxes)


class AnnotatedSource(abc.ABC):
    """Images with labels, and with boxes or masks or both: what evaluation reads.

    The order never changes. Several threads may read at once; so may several processes, since a source can be pickled.
    Images are the stored pixels, not turned by an EXIF tag, since boxes and masks of data sets refer to those; only
    pictures listed with labels in a CSV file are turned, and their boxes with them.

    Attributes:
      info: name, split, class names and number of images.
      has_boxes: whether the source has boxes; single images may still lack them.
      has_masks: whether the source has masks.
    """

    info: SourceInfo
    has_boxes: bool
    has_masks: bool = False

    def __len__(self) -> int:
        return self.info.num_examples

    @abc.abstractmethod
    def __getitem__(self, index: int) -> dict:
        """Reads an image.

        Returns:
          image (H, W, 3) uint8 RGB, label int, filename str.

        Raises:
          IndexError: an index out of range.
          ValueError: the image cannot be read; the message names it.
        """

    @abc.abstractmethod
    def annotation(self, index: int) -> Annotation:
        """Returns what is known about an image, without decoding it.

        Args:
          index: the image's.

        Raises:
          IndexError: an index out of range.
          ValueError: an invalid label or box; the message names the file.
        """

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """Reads which pixels of an image belong to the object.

        Args:
          index: the image's.
          size: (H, W) to resize the mask to, by the nearest pixel; None keeps the mask's own size.

        Returns:
          (H, W) uint8: 1 object, 0 background, 255 neither, to be ignored.

        Raises:
          IndexError: an index out of range.
          ValueError: the source has no masks, or this mask cannot be read.
        """
        raise InputError(f"{self!r} has no masks: metrics over pixels need a source that has.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info.name!r}, split={self.info.split!r})"

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {self!r} has {len(self)} images")


def no_boxes() -> np.ndarray:
    """(0, 4) float32: the boxes of an image without boxes."""
    return np.zeros((0, 4), np.float32)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 -> (h, w) uint8, `size`: each pixel takes the value of the nearest, as in wsolevaluation."""
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)


def stem_of(filename: str) -> str:
    """The last part of a file name with forward slashes, without its suffix: images and boxes are joined by it."""
    name = filename.rpartition("/")[2]
    return name.rpartition(".")[0] or name
