"""TIFF files by their samples: the kinds that Pillow does not open, and those of 16 bits, whose low bytes it drops."""

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import OPEN_INFO, ImageFileDirectory_v2

from camjax.errors import InputError

_COLORS = {0: "gray from white to black", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
_NUMBERS = {1: "unsigned integer", 2: "signed integer", 3: "floating-point"}
# None, LZW, two numbers for Deflate, PackBits, LZMA, Zstandard. The others compress images, not bytes.
_COMPRESS_BYTES = {1, 5, 8, 32946, 32773, 34925, 50000}
_WITH_DIFFERENCES = {5, 8, 32946, 34925, 50000}  # of these; for the others the tag means nothing
_OFFSETS = {273, 279, 324, 325}  # of strips and their lengths, of tiles and their lengths


@dataclass(frozen=True)
class TiffImage:
    """The first image of a TIFF file, known from its tags.

    Attributes:
      data: the file's bytes.
      tags: of the image, by their numbers.
      prefix: the byte order, b"II" or b"MM".
      bits: of each band.
      extra: what each band beyond the color is: 0 unspecified, 1 premultiplied alpha, 2 alpha.
    """

    data: bytes
    tags: dict[int, Any]
    prefix: bytes
    bits: tuple[int, ...]
    extra: tuple[int, ...]
    format = "TIFF"

    @classmethod
    def open(cls, data: bytes) -> "TiffImage":
        """Reads the tags. Raises exceptions of many types if they cannot be read."""
        file = io.BytesIO(data)
        if 43 in data[2:4]:  # BigTIFF, which Pillow recognizes in one byte order only
            directory = ImageFileDirectory_v2(b"II+\0" + data[4:16], prefix=data[:2])
        else:
            directory = ImageFileDirectory_v2(data[:8])
        file.seek(directory.next)
        directory.load(file)
        tags = dict(directory)
        bits, extra = tuple(tags.get(258, (1,))), tuple(tags.get(338, ()))
        bands = int(tags.get(277, 1))
        bits = (bits * min(bands, 999) if len(bits) == 1 else bits)[:bands]
        # The rule by which Pillow reads the twins of 8 bits.
        if tags.get(284) == 2 and extra and max(extra) == 0:
            bits, extra = bits[: -len(extra)], ()
        image = cls(data, tags, directory.prefix, bits, extra)
        if min(image.size) < 1:
            raise InputError(f"a TIFF image of {image.width} x {image.height} pixels; get a complete copy of the file")
        return image

    @property
    def width(self) -> int:
        """Of the stored rows, in pixels."""
        return int(self.tags[256])

    @property
    def height(self) -> int:
        """The number of stored rows."""
        return int(self.tags[257])

    @property
    def orientation(self) -> int:
        """How the rows are stored, as in EXIF."""
        return int(self.tags.get(274, 1))

    @property
    def size(self) -> tuple[int, int]:
        """(W, H) in pixels, after turning."""
        return (self.height, self.width) if self.orientation in (5, 6, 7, 8) else (self.width, self.height)

    def __str__(self) -> str:
        bits = "and ".join(dict.fromkeys(f"{bits} " for bits in self.bits))
        color = _COLORS.get(self._color, f"photometric interpretation {self._color}")
        extra = f", of them {len(self.extra)} beyond the color" if self.extra else ""
        packed = self.tags.get(259, 1)
        how = "" if packed in _COMPRESS_BYTES else f", compressed by method {packed}"
        return f"a TIFF image of {len(self.bits)} bands of {bits}bits ({color}{extra}{how})"

    @property
    def _color(self) -> int:
        return self.tags.get(262, 0)

    def check_numbers(self) -> None:
        """Raises ValueError for values without a standard range: signed, floating-point, or of 32 and more bits."""
        formats = tuple(self.tags.get(339, (1,)))
        if set(formats) != {1} or max(self.bits, default=1) > 16:
            kind = next((_NUMBERS.get(number, "unknown") for number in formats if number != 1), _NUMBERS[1])
            raise InputError(
                f"a TIFF image with {max(self.bits, default=1)}-bit {kind} values, whose range from black to white is "
                "unknown; scale it to 8 or 16 bits, from 0 for black to 255 or 65535 for white"
            )

    def read(self) -> Image.Image:
        """Decodes to a Pillow image of 8 bits, not turned: the image that Pillow makes of the twin of 8 bits.

        Raises:
          ValueError: a kind of image that has no such twin; the message says which.
        """
        color, deep = self._color, 16 in self.bits
        most = 65535 if deep else 255
        # Pillow knows WhiteIsZero without further bands only; turned around it is the common kind.
        inverted = color == 0
        kind = (b"II", 1 if inverted else color, (1,), 1, (8,) * len(self.bits), self.extra)
        whole = set(self.bits) == {16 if deep else 8} and self.tags.get(259, 1) in _COMPRESS_BYTES
        if kind not in OPEN_INFO or not whole:
            raise InputError(f"{self}, a kind that is not read; save it as gray or RGB of 8 or 16 bits")
        samples = self._samples(16 if deep else 8)
        if inverted:
            samples[..., 0] = most - samples[..., 0]
        mode, raw_mode = OPEN_INFO[kind]
        return Image.frombytes(mode, (self.width, self.height), to_8_bits(samples, most).tobytes(), "raw", raw_mode)

    def _samples(self, bits: int) -> np.ndarray:
        """(H, W, bands) unsigned integers as stored.

        Pillow reads the bands of a row side by side as one gray image, as wide as all of them: its decoders unpack
        strips and tiles of any compression of bytes.
        """
        planar = self.tags.get(284, 1) == 2
        planes, step = (len(self.bits), 1) if planar else (1, len(self.bits))
        parts = [self._gray(bits, step, plane).reshape(self.height, self.width, step) for plane in range(planes)]
        native = np.dtype(np.uint16 if bits == 16 else np.uint8)
        samples = (np.concatenate(parts, -1) if planar else parts[0]).astype(native, copy=False)
        if self.tags.get(317, 1) == 2 and self.tags.get(259, 1) in _WITH_DIFFERENCES:  # to the left, in each tile
            tile = self.tags.get(322, self.width)
            for left in range(0, self.width, tile):
                part = samples[:, left : left + tile]
                np.cumsum(part, axis=1, dtype=native, out=part)
        return samples

    def _gray(self, bits: int, step: int, plane: int) -> np.ndarray:
        """(H, W * step): a plane as a gray image."""
        tags = {256: self.width * step, 257: self.height, 258: bits, 259: self.tags.get(259, 1), 262: 1, 277: 1}
        tags |= {key: self.tags[key] for key in (266, 278, 323) if key in self.tags}
        tags |= {322: self.tags[322] * step} if 322 in self.tags else {}
        planes = int(self.tags.get(277, 1)) if self.tags.get(284) == 2 else 1
        for key in _OFFSETS & self.tags.keys():
            count = len(self.tags[key]) // planes
            tags[key] = self.tags[key][plane * count : (plane + 1) * count]
        with TiffImagePlugin.TiffImageFile(io.BytesIO(self._with_tags(tags))) as image:
            # Pillow's limit would count each band as pixels, and comes with memory that is not there yet.
            image.im = Image.core.new(image.mode, image.size)
            return np.array(image)

    def _with_tags(self, tags: dict[int, Any]) -> bytes:
        """The file with other tags, whole numbers, at its end."""
        order = "<" if self.prefix == b"II" else ">"
        start = len(self.data) + len(self.data) % 2
        after = start + 2 + 12 * len(tags) + 4
        entries, more = struct.pack(order + "H", len(tags)), b""
        for key, value in sorted(tags.items()):
            values = value if isinstance(value, tuple) else (value,)
            packed = struct.pack(f"{order}{len(values)}I", *values)
            place = packed if len(values) == 1 else struct.pack(order + "I", after + len(more))
            entries += struct.pack(order + "HHI", key, 4, len(values)) + place
            more += b"" if len(values) == 1 else packed
        head = self.prefix + struct.pack(order + "HI", 42, start)
        return head + self.data[8:].ljust(start - 8, b"\0") + entries + bytes(4) + more


def to_8_bits(values: np.ndarray, most: int = 65535) -> np.ndarray:
    """Values in 0..`most`, in any integer type, to the nearest in 0..255."""
    if most == 255:
        return values.astype(np.uint8)
    scaled = np.empty(values.shape, np.uint8)
    for start in range(0, len(values), 256):  # some rows at a time: 32 bits of all would take gigabytes
        rows = slice(start, start + 256)
        scaled[rows] = (values[rows].astype(np.uint32) * 255 + most // 2) // most
    return scaled
