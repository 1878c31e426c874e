"""Loading image files at a network's input size: resizing, center crops, and boxes that follow them."""

import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from PIL import Image

from camjax.checks import as_array
from camjax.data.decoding import ImageError, decode_image
from camjax.data.regular_files import read_regular
from camjax.errors import InputError

_FILTERS = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}

Size = int | tuple[int, int]
StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class CropTransform:
    """Where a cropped view lies in its original image, to convert boxes from one to the other.

    Attributes:
      box: (ymin, xmin, ymax, xmax) of the view in the original, each in 0..1 of the original's height or width.
    """

    box: tuple[float, float, float, float]

    def boxes_to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Converts boxes of the view to boxes of the original image, which is turned by its EXIF tag.

        Args:
          boxes: (..., 4) `[ymin, xmin, ymax, xmax]` in 0..1 of the view.

        Returns:
          (..., 4) in 0..1 of the original image.

        Raises:
          ValueError: another shape.
        """
        corner, extent = self._corner_and_extent()
        return corner + _as_boxes(boxes) * extent

    def boxes_from_original(self, boxes: np.ndarray) -> np.ndarray:
        """Converts boxes of the original image to boxes of the view.

        Args:
          boxes: (..., 4) `[ymin, xmin, ymax, xmax]` in 0..1 of the original image.

        Returns:
          (..., 4) in 0..1 of the view; not clipped: below 0 or above 1 outside of the view.

        Raises:
          ValueError: another shape.
        """
        corner, extent = self._corner_and_extent()
        return (_as_boxes(boxes) - corner) / extent

    def _corner_and_extent(self) -> tuple[np.ndarray, np.ndarray]:
        ymin, xmin, ymax, xmax = self.box
        height, width = ymax - ymin, xmax - xmin
        return np.array([ymin, xmin, ymin, xmin]), np.array([height, width, height, width])


@overload
def load_images(paths: StrPath | Iterable[StrPath], size: Size, *, crop: None = None) -> np.ndarray: ...
@overload
def load_images(
    paths: StrPath | Iterable[StrPath],
    size: Size,
    *,
    crop: Literal["center"],
    crop_share: float = 1.0,
    interpolation: str = "bilinear",
) -> tuple[np.ndarray, list[CropTransform]]: ...
def load_images(paths, size, *, crop=None, crop_share=1.0, interpolation="bilinear"):
    """Loads image files as one batch of a network's input size.

    Args:
      paths: file names, or a single one for a batch of one.
      size: (H, W) of the result, or an int for a square; usually `model.input_size`.
      crop: None squashes the whole image to `size`, the convention of class activation mapping: a box in 0..1 of the
        result is the same box in 0..1 of the image. "center" keeps the aspect: it cuts out the largest centered
        rectangle (in whole pixels) with the aspect of `size`, then resizes it.
      crop_share: of a center crop's height and width, what is cut out: `model.crop_share`, timm's `crop_pct`.
      interpolation: by which a center crop is resized, `model.interpolation`: "nearest", "bilinear", "bicubic" or
        "lanczos".

    Returns:
      (B, H, W, 3) uint8 RGB in the order of `paths`, turned by their EXIF tags. With crop="center" (images,
      transforms), one `CropTransform` an image, which converts boxes to those of the whole image.

    Raises:
      FileNotFoundError: a file is missing.
      ImageError: a ValueError; a file is not an image, damaged or too large (see `camjax.data.decoding.decode_image`).
        The message names it.
      ValueError: an empty list, an invalid size, an unknown crop or interpolation, or a share of no crop.
    """
    if crop not in (None, "center"):
        raise InputError(f'crop is {crop!r}; expected None (squash to size) or "center"')
    if crop is None and (crop_share, interpolation) != (1, "bilinear"):
        raise InputError('crop_share and interpolation are those of crop="center"; give it too, or leave them out')
    height, width = height_and_width(size)
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise InputError("paths is empty; give at least one image file")

    images = np.empty((len(paths), height, width, 3), np.uint8)
    transforms = []
    for i, path in enumerate(paths):
        image = load_image(path)
        view = center_view(image.shape[:2], (height, width), crop_share) if crop else (0.0, 0.0, 1.0, 1.0)
        images[i] = resize_image(image, (height, width), box=view, interpolation=interpolation)
        transforms.append(CropTransform(view))
    return (images, transforms) if crop else images


def load_image(path: StrPath) -> np.ndarray:
    """Loads one image file at its full size.

    Args:
      path: of the file.

    Returns:
      (H, W, 3) uint8 RGB, turned by its EXIF tag.

    Raises:
      FileNotFoundError: the file is missing.
      ImageError: the file cannot be read as an image.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path} is a directory; give the image files in it")
    try:
        data = read_regular(path, error=ImageError)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist (looked from {Path.cwd()}); check the name") from error
    try:
        return decode_image(data, apply_exif=True)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def center_view(image_size: tuple[int, int], size: Size, share: float = 1.0) -> tuple[float, float, float, float]:
    """Finds the largest centered part of an image of (H, W) pixels, in whole pixels, that has the aspect of `size`.

    Returns (ymin, xmin, ymax, xmax) in 0..1 of the image; of that part's height and width the centered share.
    """
    if not 0 < share <= 1:
        raise InputError(f"crop_share is {share}; expected a share of the image's height and width, in 0..1")
    (rows, columns), (height, width) = image_size, height_and_width(size)
    # In whole pixels, a crop that keeps the scale copies its pixels instead of blurring them.
    crop_rows = max(1, round(share * min(rows, max(1, round(columns * height / width)))))
    crop_columns = max(1, round(share * min(columns, max(1, round(rows * width / height)))))
    top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    return top / rows, left / columns, (top + crop_rows) / rows, (left + crop_columns) / columns


def resize_image(
    image: np.ndarray,
    size: Size,
    *,
    box: tuple[float, float, float, float] | None = None,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Resizes an image, or the part of it in a box, with antialiased interpolation.

    Pixel centers lie at half-integers. An axis that shrinks is filtered with a triangle as wide as the scale, an axis
    that grows is interpolated linearly.

    Args:
      image: (H, W, 3) uint8.
      size: (h, w), or an int for a square.
      box: the part to resize, (ymin, xmin, ymax, xmax) in 0..1; None is the whole image. At the box's border the
        filter sees the image around it: the result is that of resizing the whole image and then cropping.
      interpolation: "nearest", "bilinear", "bicubic" or "lanczos": Pillow's filters, in place of triangles.

    Returns:
      (h, w, 3) uint8.

    Raises:
      ValueError: an image of another shape or type, a size below 1, a box outside of the image, or an unknown
        interpolation.
    """
    image = as_array(image, "image")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    height, width = height_and_width(size)
    ymin, xmin, ymax, xmax = (0.0, 0.0, 1.0, 1.0) if box is None else box
    if not (0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1):
        raise InputError(f"box is {box}; expected (ymin, xmin, ymax, xmax) in 0..1 with ymin < ymax, xmin < xmax")
    if interpolation not in _FILTERS:
        raise InputError(f"interpolation is {interpolation!r}; expected one of {', '.join(_FILTERS)}")
    rows, columns = image.shape[:2]
    # Most published weights were trained with Pillow's filter (torchvision's default), and it has one rule for every
    # scale, where OpenCV's INTER_AREA becomes plain, aliased interpolation as soon as one axis grows.
    pixels = (xmin * columns, ymin * rows, xmax * columns, ymax * rows)
    return np.array(Image.fromarray(image).resize((width, height), _FILTERS[interpolation], box=pixels))


def shrink_image(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) uint8 at its own aspect, at most `side` pixels high and wide."""
    scale = min(1, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return resize_image(image, (height, width))


def height_and_width(size: Size, name: str = "size") -> tuple[int, int]:
    """Returns (H, W) of a size that may be an int for a square; raises ValueError about `name` for any other size."""
    try:
        height, width = (operator.index(n) for n in (size if isinstance(size, Iterable) else (size, size)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {size!r}; expected (H, W), or an int for a square") from error
    if height < 1 or width < 1:
        raise InputError(f"{name} is {size!r}; height and width must be at least 1")
    return height, width


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes)
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise InputError(f"boxes have shape {boxes.shape}; expected (..., 4): [ymin, xmin, ymax, xmax] in 0..1")
    return boxes
