"""Random changes of training images: functions (image, rng) -> image for the loader's `augment`.

`compose` chains several. All can be pickled, as worker processes require. The repr of a transform is the call that made
it, in every process, so that a run can record what it was trained with:

    augment = compose(random_resized_crop(224), random_horizontal_flip)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from camjax.data.images import Size, height_and_width, resize_image
from camjax.errors import InputError

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_TRIES = 10


def random_translation(image: np.ndarray, rng: np.random.Generator, *, max_shift: int) -> np.ndarray:
    """Shifts an image by up to `max_shift` pixels in each direction, and fills the gap by reflection.

    As in pad-and-crop training (He et al. 2016, section 4.2), but padded by reflection (the border pixel is not
    repeated) in place of zeros.

    Args:
      image: (H, W, 3) uint8, H and W above `max_shift`; so is the result.
      rng: draws the shift.
      max_shift: in pixels.
    """
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, max_shift, max_shift, max_shift, max_shift, cv2.BORDER_REFLECT_101)
    y, x = rng.integers(0, 2 * max_shift, size=2, endpoint=True)
    return padded[y : y + height, x : x + width]


def random_horizontal_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors an image left to right with probability one half; not for digits or text.

    Args:
      image: (H, W, 3) uint8; so is the result.
      rng: draws whether.
    """
    return image[:, ::-1] if rng.random() < 0.5 else image


def random_resized_crop(
    size: Size,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Transform:
    """Crops a random part of an image, of random area and aspect, and resizes it (Szegedy et al. 2015, section 6).

    The rule is torchvision's RandomResizedCrop: up to ten draws of an area (uniform) and an aspect (log-uniform),
    until the part fits into the image; otherwise the largest centered part of an allowed aspect. The part is cropped
    first and then resized: linearly where it grows, antialiased where it shrinks, faster than by Pillow's filter.

    Args:
      size: (h, w) of the result, or an int for a square.
      scale: least and greatest area of the part, as a share of the image's, above 0 and up to 1.
      ratio: least and greatest width / height of the part, in pixels.

    Returns:
      (H, W, 3) uint8 and a generator -> (h, w, 3) uint8.

    Raises:
      ValueError: a size below 1, or a range that is empty or out of bounds.
    """
    scale, ratio = _range("scale", scale, most=1.0), _range("ratio", ratio, most=math.inf)
    return _RandomResizedCrop(height_and_width(size), scale, ratio)


def resize_then_random_crop(resize: Size = 256, size: Size = 224) -> Transform:
    """Squashes an image to `resize`, then crops `size` at a random place.

    The GAP networks (Zhou et al. 2016, whose release crops in Caffe's data layer) and those of the benchmark of weakly
    supervised localization (Choe et al. 2020) were trained with it. Only the crop is computed; its pixels are those of
    resizing the whole image by `camjax.data.resize_image` and then cropping.

    Args:
      resize: (H, W) of the whole image, or an int for a square.
      size: (h, w) of the part, or an int for a square; at most `resize`.

    Returns:
      (H, W, 3) uint8 and a generator -> (h, w, 3) uint8.

    Raises:
      ValueError: a size below 1, or `size` above `resize`.
    """
    whole, part = height_and_width(resize, "resize"), height_and_width(size)
    if part[0] > whole[0] or part[1] > whole[1]:
        raise InputError(f"size is {size}, and resize {resize}; expected a size that fits into it")
    return _ResizeThenRandomCrop(whole, part)


def compose(*transforms: Transform) -> Transform:
    """One transform that applies others one after the other, with the same generator.

    Args:
      *transforms: from images (H, W, 3) uint8 and a generator to images; none of them changes nothing.

    Returns:
      The transform.
    """
    return _Composed(transforms)


@dataclass(frozen=True)
class _RandomResizedCrop:
    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        y, x, height, width = self.draw(image.shape[:2], rng)
        return _resize_fast(image[y : y + height, x : x + width], self.size)

    def __repr__(self) -> str:
        return f"random_resized_crop({self.size}, scale={self.scale}, ratio={self.ratio})"

    def draw(self, image_size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """The part's (y, x, height, width) in pixels, of an image of (H, W) pixels."""
        rows, columns = image_size
        least, greatest = self.ratio
        for _ in range(_TRIES):
            area = rows * columns * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(least), math.log(greatest)))
            height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < height <= rows and 0 < width <= columns:
                y, x = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
                return int(y), int(x), height, width
        # Where the image's own aspect is allowed, min and max leave it whole.
        height = max(min(rows, round(columns / least)), 1)
        width = max(min(columns, round(rows * greatest)), 1)
        return (rows - height) // 2, (columns - width) // 2, height, width


@dataclass(frozen=True)
class _ResizeThenRandomCrop:
    resize: tuple[int, int]
    size: tuple[int, int]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        (rows, columns), (height, width) = self.resize, self.size
        y, x = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
        box = (y / rows, x / columns, (y + height) / rows, (x + width) / columns)
        return resize_image(image, self.size, box=box)

    def __repr__(self) -> str:
        return f"resize_then_random_crop({self.resize}, {self.size})"


@dataclass(frozen=True)
class _Composed:
    transforms: tuple[Transform, ...]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            image = transform(image, rng)
        return image

    def __repr__(self) -> str:
        return f"compose({', '.join(getattr(part, '__name__', repr(part)) for part in self.transforms)})"


def _resize_fast(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) uint8: the mean of n linearly interpolated points a pixel and axis.

    n is the least number of points that passes over no pixel of the image, 1 where it grows. OpenCV's own INTER_AREA
    takes twice as long, and does not antialias an axis that shrinks while the other grows.
    """
    (rows, columns), (height, width) = image.shape[:2], size
    down, across = -(-rows // height), -(-columns // width)
    points = cv2.resize(image, (width * across, height * down), interpolation=cv2.INTER_LINEAR)
    if down == across == 1:
        return points
    return cv2.resize(points, (width, height), interpolation=cv2.INTER_AREA)


def _range(name: str, values: tuple[float, float], *, most: float) -> tuple[float, float]:
    least, greatest = values
    if not 0 < least <= greatest <= most:
        bound = "" if most == math.inf else f" <= {most:g}"
        raise InputError(f"{name} is {values}; expected 0 < least <= greatest{bound}")
    return float(least), float(greatest)
