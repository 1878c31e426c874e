"""Image files to uint8 RGB pixels: which decoder, what is refused, and turning by the EXIF tag."""

import io
import warnings

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from camjax.data.tiff_files import TiffImage, to_8_bits
from camjax.errors import InputError, printable, reading

MAX_PIXELS = 178_956_970
"""The most pixels (H * W) that an image's header may announce: half a gigabyte as uint8 RGB, and Pillow's own limit."""

AnyImage = ImageFile.ImageFile | TiffImage


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
      color profiles are not applied, as in the common training pipelines. So an image of 16 bits gives what its twin
      of 8 bits gives.

    Raises:
      ImageError: the data are empty, not an image, cut off or damaged, announce more than `MAX_PIXELS` pixels (checked
        before decoding), or have values whose range no format defines (signed, floating-point, 32 bits). A damaged
        JPEG with a valid end cannot be told from a complete one.
    """
    return _decode_turned(data, apply_exif)[0]


def decode_upright(data: bytes) -> tuple[np.ndarray, int]:
    """Decodes an image and turns it as a viewer does, as `decode_image` with `apply_exif`; raises the same errors.

    Returns:
      The image, and its EXIF orientation, 1 to 8, by which `camjax.data.pixel_boxes.turn_boxes_back` brings boxes to
      the stored pixels.
    """
    return _decode_turned(data, apply_exif=True)


def _decode_turned(data: bytes, apply_exif: bool) -> tuple[np.ndarray, int]:
    image = open_image(data)
    try:
        if isinstance(image, TiffImage):
            return _turn(_over_white(image.read()), image.orientation), 1
        pixels = _decode(image, data)
        # After decoding: a PNG may keep its tag after the pixels.
        turned = orientation(image) if apply_exif else 1
        return _turn(pixels, turned), turned
    except (InputError, MemoryError) as error:
        raise error if isinstance(error, ImageError | MemoryError) else ImageError(str(error)) from error
    except Exception as error:  # Pillow's plugins raise exceptions of many types
        raise _damaged(image, error) from error


def decode_gray(data: bytes) -> np.ndarray:
    """Decodes an image whose values are levels of gray, such as a mask: (H, W) uint8.

    Raises:
      ImageError: it is not an image, or damaged.
    """
    with reading("the data", "an image", "Get a complete copy.", error=ImageError):
        gray = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if gray is None:
            raise ImageError("not an image, or damaged; get a complete copy of it")
        return gray


def open_image(data: bytes) -> AnyImage:
    """Reads an image's header and refuses what should not be decoded.

    Returns:
      The image, not decoded; `size` is its (W, H), which TIFF gives as it is after turning.

    Raises:
      ImageError: as `decode_image`.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes); get a complete copy of it")
    tiff = _read_tiff_tags(data)
    image: AnyImage
    try:
        # Of 16 bits, Pillow drops the lower ones.
        image = tiff if tiff is not None and 16 in tiff.bits else Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        if tiff is None:
            raise ImageError(
                f"not an image in a known format, or cut off within its header ({len(data)} bytes, beginning with "
                f"{bytes(data[:12])!r}); give a complete JPEG, PNG, GIF, WebP, BMP or TIFF file"
            ) from error
        image = tiff
    except Image.DecompressionBombError as error:
        raise ImageError(f"{error} Make a smaller copy of the image") from error
    except Exception as error:  # as in decode_image
        raise ImageError(
            f"the image's header cannot be read ({type(error).__name__}: {printable(error)}); get a complete copy of "
            "the file"
        ) from error
    width, height = image.size
    # Pillow's limit is a global that many programs switch off.
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"the header announces {width} x {height} pixels, more than the {MAX_PIXELS} that are decoded; "
            "make a smaller copy of the image"
        )
    return image


def _read_tiff_tags(data: bytes) -> TiffImage | None:
    """A TIFF image; None for other formats, and for tags that cannot be read.

    Raises:
      ImageError: values whose range is unknown.
    """
    if data[:4] not in TiffImagePlugin.PREFIXES:
        return None
    try:
        image = TiffImage.open(data)
        image.check_numbers()
        return image
    except InputError as error:
        raise ImageError(str(error)) from error
    except Exception:  # Pillow says what is wrong with the tags
        return None


def _decode(image: ImageFile.ImageFile, data: bytes) -> np.ndarray:
    """Decodes to (H, W, 3) uint8 RGB, not turned. `image` is `data`, opened by Pillow and not yet loaded.

    OpenCV decodes the gray and color JPEGs that data sets consist of, so that training, evaluation and a user's
    photograph see the same pixels, and PNG's 16-bit color, of which Pillow keeps only the high byte. Pillow, which
    knows palettes, CMYK, transparency and animation, decodes the rest; PNG is lossless, and both decode it the same.
    """
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
        # decode_image turns the images of all formats.
        return _decode_with_opencv(image, data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    raw_modes = " ".join(str(tile.args) for tile in image.tile)
    if image.format == "PNG" and image.mode in ("RGB", "RGBA", "LA") and ";16" in raw_modes:
        deep = _decode_with_opencv(image, data, cv2.IMREAD_UNCHANGED)
        to_rgb = cv2.COLOR_BGRA2RGBA if deep.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return _over_white(Image.fromarray(to_8_bits(cv2.cvtColor(deep, to_rgb))))
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        most = 4095 if ";12" in raw_modes else 65535
        return _over_white(_with_alpha(image, np.asarray(image), most))
    if image.mode in ("I", "F"):
        kind = "integer" if image.mode == "I" else "floating-point"
        raise ImageError(
            f"a {image.format} image with 32-bit {kind} values, whose range from black to white is unknown; "
            "scale it to 8 or 16 bits"
        )
    if image.format == "PNG" and image.mode == "L" and raw_modes in ("L;2", "L;4"):
        return _over_white(_with_alpha(image, np.asarray(image), 255, 85 if "2" in raw_modes else 17))
    return _over_white(image)


def _with_alpha(image: Image.Image, gray: np.ndarray, most: int, step: int = 1) -> Image.Image:
    """Gray values in 0..`most` as 8 bits; those of PNG's color key, in steps of `step`, are transparent."""
    scaled = Image.fromarray(to_8_bits(gray, most))
    key = image.info.get("transparency")
    if isinstance(key, int):
        scaled.putalpha(Image.fromarray(np.where(gray == key * step, 0, 255).astype(np.uint8)))
    return scaled


def _decode_with_opencv(image: Image.Image, data: bytes, flags: int) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if pixels is None:
        raise _damaged(image)
    return pixels


def _over_white(image: Image.Image) -> np.ndarray:
    """Converts a Pillow image of any 8-bit mode to (H, W, 3) uint8 RGB, blended with white where it is transparent."""
    if image.mode == "La":  # Pillow converts premultiplied gray to this only
        image = image.convert("LA")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def orientation(image: Image.Image) -> int:
    """How the decoded pixels of an open image have to be turned: its EXIF orientation, or 1 if it is none of 1 to 8."""
    if image.format == "TIFF":  # turned by its decoders
        return 1
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(tag) if tag in range(1, 9) else 1  # of a damaged file it may be a text
    except Exception as error:  # as in decode_image
        warnings.warn(f"EXIF tags that cannot be read ({printable(error)}): the image is not turned.", stacklevel=2)
        return 1


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes an orientation, 1 to 8, of (H, W, 3) pixels: 5 to 8 give (W, H, 3)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _damaged(image: Image.Image | TiffImage, error: Exception | None = None) -> ImageError:
    cause = f" ({type(error).__name__}: {printable(error)})" if error else ""
    return ImageError(
        f"the header announces a {image.format} image of {image.width} x {image.height} pixels, but what follows "
        f"is cut off or damaged{cause}; get a complete copy of the file"
    )
