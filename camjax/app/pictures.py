"""Pictures that people give to the page: their limits, and keeping them for a while."""

import hashlib
import io
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image

from camjax.app.cache import Cache
from camjax.data.decoding import ImageError, decode_upright, open_image
from camjax.data.images import shrink_image
from camjax.errors import InputError, printable

MAX_BYTES = 32 << 20
"""Of a picture's file."""
MAX_PIXELS = 50_000_000
"""Of a picture; decoding takes three bytes for each."""
SHOWN_SIDE = 800
"""The longer side of a picture as the page shows it, in pixels."""
_KEPT_BYTES = 256 << 20
_DECODING = threading.Lock()
"""One picture at a time, for the sake of memory."""


class Gone(InputError):
    """A picture is not kept any longer; the page sends it again."""


@dataclass(frozen=True)
class Picture:
    """A picture that can be decoded.

    Attributes:
      name: of its file, for messages and downloads.
      data: the file's content.
      size: (H, W) in pixels, turned by its EXIF tag.
      orientation: what that tag says, 1 to 8.
      shown: the picture as the page shows it, a JPEG file.
    """

    name: str
    data: bytes
    size: tuple[int, int]
    orientation: int
    shown: bytes

    def pixels(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        return _decoded(self.name, self.data)[0]


class Pictures:
    """The pictures used last. Whoever has the same file has the same picture: nothing else of people is kept."""

    def __init__(self):
        self._kept: Cache[Picture] = Cache(_KEPT_BYTES)

    def add(self, name: str, data: bytes) -> str:
        """Keeps a picture, and returns the key that finds it again.

        Raises:
          ImageError: more bytes or pixels than the limits, or no image; with the sentence of the command line.
        """
        name = printable(name, 100) or "picture"
        key = hashlib.sha256(name.encode() + b"\0" + data).hexdigest()
        if self._kept.get(key) is None:
            check_bytes(name, len(data))
            pixels, orientation = _decoded(name, data)
            picture = Picture(name, data, pixels.shape[:2], orientation, jpeg(shrink_image(pixels, SHOWN_SIDE)))
            self._kept.put(key, picture, len(data) + len(picture.shown))
        return key

    def __getitem__(self, key: str) -> Picture:
        """The picture; raises `Gone` if it is not kept."""
        picture = self._kept.get(key)
        if picture is None:
            raise Gone("The picture is not kept any longer: give it again.")
        return picture


def check_bytes(name: str, number: int) -> None:
    """Raises `ImageError` if a file has more bytes than the page takes."""
    if number > MAX_BYTES:
        raise ImageError(
            f"{printable(name, 100)}: {number / 2**20:.1f} MiB; expected at most {MAX_BYTES >> 20} MiB. "
            "Make a smaller copy of the image."
        )


def jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def _decoded(name: str, data: bytes) -> tuple[np.ndarray, int]:
    """The pixels, turned by the EXIF tag, and what it says."""
    try:
        width, height = open_image(data).size
        if width * height > MAX_PIXELS:
            raise ImageError(
                f"{width} x {height} pixels, more than the {MAX_PIXELS:,} that the page takes; make a smaller copy of "
                "the image"
            )
        with _DECODING:
            return decode_upright(data)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
