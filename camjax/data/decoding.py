"""Image files to uint8 RGB pixels: which decoder, what is refused, and turning by the EXIF tag."""

import io

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from camjax.errors import InputError

MAX_PIXELS = 178_956_970
"""The most pixels (H * W) that an image's header may announce: half a gigabyte as uint8 RGB, and Pillow's own limit."""


class ImageError(InputError):
    """A file or bytes cannot be read as an image; the message says what was found and what to do."""


def decode_image(data: bytes, *, apply_exif: bool) -> np.ndarray:
    """Decodes the bytes of an image file: JPEG, PNG, GIF, WebP, BMP, TIFF and the other formats that Pillow reads.

    Args:
      data: the bytes.
      apply_exif: turn the image by its orientation tag, as a viewer does: True for a user's photographs, False for data
        sets, whose boxes were drawn on the stored pixels. TIFF is always turned: there the tag says how the rows are
        stored.

    Returns:
      (H, W, 3) uint8 RGB. Gray is repeated in the three channels; transparent pixels are blended with white, since
      the colors under them are arbitrary; 16-bit values v become round(v / 257); an animation gives its first frame;
      color profiles are not applied, as in the common training pipelines.

    Raises:
      ImageError: the data are empty, not an image, cut off or damaged, announce more than `MAX_PIXELS` pixels (checked
        before decoding), or have 32-bit values, whose range no format defines. A damaged JPEG with a valid end
        cannot be told from a complete one.
    """
    image = _open(data)
    try:
        pixels = _decode(image, data)
        # After decoding: a PNG may keep its tag after the pixels. TIFF is turned by its decoders.
        turn = apply_exif and image.format != "TIFF"
        return _turn(pixels, image.getexif().get(ExifTags.Base.Orientation, 1)) if turn else pixels
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise exceptions of many types
        raise _damaged(image, error) from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """Reads an image's header and refuses what should not be decoded."""
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
    # Pillow's limit is a global that many programs switch off.
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the header announces {width} x {height} pixels, more than the {MAX_PIXELS} that are decoded; "
            "make a smaller copy of the image"
        )
    return image


def _decode(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """Decodes to (H, W, 3) uint8 RGB, not turned. `image` is `data`, opened by Pillow and not yet loaded.

    OpenCV decodes the gray and color JPEGs that data sets consist of, so that training, evaluation and a user's
    photograph see the same pixels, and 16-bit color, of which Pillow keeps only the high byte. Pillow, which knows
    palettes, CMYK, transparency and animation, decodes the rest; PNG is lossless, and both decode it the same.
    """
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        # decode_image turns the images of all formats.
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
    """Converts a Pillow image of any 8-bit mode to (H, W, 3) uint8 RGB, blended with white where it is transparent."""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an EXIF orientation of (H, W, 3) pixels: 5 to 8 give (W, H, 3), values beyond 1 to 8 change nothing."""
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
