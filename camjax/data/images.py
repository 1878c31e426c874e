"""Image files to uint8 RGB arrays: decoding, turning by the EXIF tag, resizing and center crops."""

import io
import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

MAX_PIXELS = 178_956_970
"""The most pixels (H * W) that an image may announce in its header. It is the number at which Pillow, too,
refuses an image as a decompression bomb; as uint8 RGB that is half a gigabyte."""

Size = int | tuple[int, int]
StrPath = str | os.PathLike[str]


class ImageError(ValueError):
    """A file or bytes that cannot be read as an image; the message says what was found and what to do."""


@dataclass(frozen=True)
class CropTransform:
    """Where a cropped view lies in its original image, to carry boxes from one to the other.

    box: (ymin, xmin, ymax, xmax) of the view in the original, each in 0..1 of the original's height or width.
    """

    box: tuple[float, float, float, float]

    def boxes_to_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) [ymin, xmin, ymax, xmax] in 0..1 of the view, in 0..1 of the original image.

        The original is the image as `load_image` returns it, turned by its EXIF tag.
        """
        corner, extent = self._corner_and_extent()
        return corner + _as_boxes(boxes) * extent

    def boxes_from_original(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) [ymin, xmin, ymax, xmax] in 0..1 of the original image, in 0..1 of the view.

        Nothing is clipped: what lies outside of the view comes out below 0 or above 1.
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
    paths: StrPath | Iterable[StrPath], size: Size, *, crop: Literal["center"]
) -> tuple[np.ndarray, list[CropTransform]]: ...
def load_images(paths, size, *, crop=None):
    """Load image files as one batch of a network's input size.

    paths: file names, or a single one for a batch of one.
    size: (H, W) of the result, or an int for a square; usually `model.input_size`.
    crop: None squashes the whole image to `size`, the convention of class activation mapping: a box in 0..1
        of the result is the same box in 0..1 of the image. "center" keeps the aspect: it cuts out the largest
        centered rectangle (in whole pixels) with the aspect of `size`, then resizes it.

    Returns images (B, H, W, 3) uint8 RGB in the order of `paths`, turned by their EXIF tags. With
    crop="center" it returns (images, transforms), one `CropTransform` an image, which maps boxes back to the
    whole image.

    Raises FileNotFoundError for a missing file; `ImageError`, which is a ValueError, for one that is no
    image, damaged or too large (see `decode_image`), each naming the file; ValueError for an empty list, a
    bad size or an unknown crop.
    """
    if crop not in (None, "center"):
        raise ValueError(f'crop is {crop!r}; expected None (squash to size) or "center"')
    height, width = _height_and_width(size)
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise ValueError("paths is empty; give at least one image file")

    images = np.empty((len(paths), height, width, 3), np.uint8)
    transforms = []
    for i, path in enumerate(paths):
        image = load_image(path)
        box = center_view(image.shape[:2], (height, width)) if crop else None
        images[i] = resize_image(image, (height, width), box=box)
        if box is not None:
            transforms.append(CropTransform(box))
    return (images, transforms) if crop else images


def load_image(path: StrPath) -> np.ndarray:
    """Load one image file at its full size, (H, W, 3) uint8 RGB, turned by its EXIF tag.

    Raises FileNotFoundError for a missing file and `ImageError` for one that cannot be read as an image.
    """
    path = Path(path)
    if path.is_dir():
        raise ImageError(f"{path} is a directory; give the image files in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist (looked from {Path.cwd()}); check the name") from error
    try:
        return decode_image(data, apply_exif=True)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def decode_image(data: bytes, *, apply_exif: bool) -> np.ndarray:
    """Decode the bytes of an image file: JPEG, PNG, GIF, WebP, BMP, TIFF and what else Pillow reads.

    apply_exif: turn the image by its orientation tag, as a viewer does. A user's photos want True; data sets
        whose boxes were drawn on the stored pixels want False. TIFF, where the tag says how the rows are
        stored, is turned either way.

    Returns (H, W, 3) uint8 RGB. Gray is repeated in the three channels; transparency is laid over white,
    since the colors under it are arbitrary; 16-bit values v become round(v / 257); an animation gives its
    first frame; color profiles are not applied, as in the common training pipelines.

    Raises `ImageError` if the data are empty, no image, cut off or damaged, announce more than `MAX_PIXELS`
    pixels (checked before decoding), or have 32-bit values, whose range no format fixes. A JPEG whose damage
    leaves a valid end cannot be told from a whole one.
    """
    image = _open(data)
    try:
        pixels = _decode(image, data)
        # After decoding, for a PNG may keep its tag behind the pixels. TIFF is turned by its decoders.
        if apply_exif and image.format != "TIFF":
            pixels = _turn(pixels, image.getexif().get(ExifTags.Base.Orientation, 1))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise many types, whatever their parsing trips over
        raise _damaged(image, error) from error
    return pixels


def center_view(image_size: tuple[int, int], size: Size) -> tuple[float, float, float, float]:
    """The largest centered part of an image, in whole pixels, that has the aspect of `size`.

    image_size: (H, W) of the image in pixels. size: (h, w), or an int for a square.

    Returns (ymin, xmin, ymax, xmax) in 0..1 of the image.
    """
    (rows, columns), (height, width) = image_size, _height_and_width(size)
    # Whole pixels, so that a crop that needs no change of scale copies its pixels instead of blurring them.
    crop_rows = min(rows, max(1, round(columns * height / width)))
    crop_columns = min(columns, max(1, round(rows * width / height)))
    top, left = (rows - crop_rows) // 2, (columns - crop_columns) // 2
    return top / rows, left / columns, (top + crop_rows) / rows, (left + crop_columns) / columns


def resize_image(image: np.ndarray, size: Size, *, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Resize an image, or the part of it in a box, with antialiased bilinear interpolation.

    image: (H, W, 3) uint8. size: (h, w), or an int for a square.
    box: the part to resize, (ymin, xmin, ymax, xmax) in 0..1; None is the whole image. At the box's border
        the filter sees the image around it: a box gives what resizing the whole image and then cropping gives.

    Returns (h, w, 3) uint8. Pixel centers lie at half-integers. An axis that shrinks is filtered with a
    triangle as wide as the scale, an axis that grows is interpolated linearly. Raises ValueError for another
    shape or type, a size below 1 or a box outside of the image.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"image is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
    height, width = _height_and_width(size)
    if box is None:
        box = (0.0, 0.0, 1.0, 1.0)
    ymin, xmin, ymax, xmax = box
    if not (0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1):
        raise ValueError(f"box is {box}; expected (ymin, xmin, ymax, xmax) in 0..1 with ymin < ymax, xmin < xmax")
    rows, columns = image.shape[:2]
    # Pillow rather than OpenCV: most published weights were trained on images that Pillow's filter had
    # resized (it is torchvision's default), it has one rule for every scale (OpenCV's INTER_AREA turns into
    # plain, aliased interpolation as soon as one axis grows), and it costs about the same.
    resized = Image.fromarray(image).resize(
        (width, height),
        Image.Resampling.BILINEAR,
        box=(xmin * columns, ymin * rows, xmax * columns, ymax * rows),
    )
    return np.array(resized)


def _open(data: bytes) -> Image.Image:
    """Read an image's header and refuse what should not be decoded."""
    if not data:
        raise ImageError("the file is empty (0 bytes); get a complete copy of it")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise ImageError(
            f"not an image in a known format, or cut off within its header ({len(data)} bytes, beginning with "
            f"{bytes(data[:12])!r}); give a complete JPEG, PNG, GIF, WebP, BMP or TIFF file"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{error} Make a smaller copy of the image") from error
    except Exception as error:  # as in decode_image
        raise ImageError(
            f"the image's header cannot be read ({type(error).__name__}: {error}); get a complete copy of the file"
        ) from error
    width, height = image.size
    # Pillow's own limit is a global that many programs switch off.
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the header announces {width} x {height} pixels, more than the {MAX_PIXELS} that are decoded; "
            "make a smaller copy of the image"
        )
    return image


def _decode(image: Image.Image, data: bytes) -> np.ndarray:
    """Decode to (H, W, 3) uint8 RGB, not turned. `image` is `data`, opened by Pillow and not yet loaded.

    Which decoder: OpenCV for the gray and color JPEGs that data sets consist of, so that training, evaluation
    and a user's photo see the same pixels, and for 16-bit color, of which Pillow keeps the high byte only.
    Pillow, which knows palettes, CMYK, transparency and animation, for the rest; PNG is lossless, hence the
    same by either.
    """
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        # Turning is left to decode_image, which does it for all formats alike.
        return _decode_with_opencv(image, data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile.args) for tile in image.tile):
        deep = _decode_with_opencv(image, data, cv2.IMREAD_UNCHANGED)
        to_rgb = cv2.COLOR_BGRA2RGBA if deep.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return _over_white(Image.fromarray(_to_8_bits(cv2.cvtColor(deep, to_rgb))))
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _over_white(Image.fromarray(_to_8_bits(np.asarray(image))))
    if image.mode in ("I", "F"):
        kind = "integer" if image.mode == "I" else "floating-point"
        raise ImageError(
            f"a {image.format} image with 32-bit {kind} values, whose range from black to white is unknown; "
            "scale it to 8 or 16 bits"
        )
    return _over_white(image)


def _decode_with_opencv(image: Image.Image, data: bytes, flags: int) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise _damaged(image)
    return pixels


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """16-bit values (0..65535 in any integer type) to the nearest 8-bit ones: 65535 = 255 * 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_white(image: Image.Image) -> np.ndarray:
    """A Pillow image of any 8-bit mode as (H, W, 3) uint8 RGB, transparency laid over white."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (tag 274, 1 to 8; other values have no meaning and change nothing).

    pixels: (H, W, 3). Returns (H, W, 3), or (W, H, 3) for the orientations 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _damaged(image: Image.Image, error: Exception | None = None) -> ImageError:
    cause = f" ({type(error).__name__}: {error})" if error else ""
    return ImageError(
        f"the header announces a {image.format} image of {image.width} x {image.height} pixels, but what follows "
        f"is cut off or damaged{cause}; get a complete copy of the file"
    )


def _height_and_width(size: Size) -> tuple[int, int]:
    try:
        height, width = (operator.index(n) for n in (size if isinstance(size, Iterable) else (size, size)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"size is {size!r}; expected (H, W), or an int for a square") from error
    if height < 1 or width < 1:
        raise ValueError(f"size is {size!r}; height and width must be at least 1")
    return height, width


def _as_boxes(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes)
    if boxes.ndim < 1 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes have shape {boxes.shape}; expected (..., 4): [ymin, xmin, ymax, xmax] in 0..1")
    return boxes
