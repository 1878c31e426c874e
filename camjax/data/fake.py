"""Random images, to measure a model without its input, or the input without a disk."""

import cv2
import numpy as np

from camjax.data.decoding import decode_image
from camjax.data.source_info import SourceInfo
from camjax.errors import InputError

# Smooth color with fine noise on top, so that a JPEG of it takes the bytes and the time of a photograph's.
_BLOB = 16
_CONTRAST = 50.0
_NOISE = 12.0
_JPEG_QUALITY = 90


class FakeImages:
    """A source of random images, for benchmarks: a network learns nothing from them.

    A few distinct images stay in memory and take turns, so that an example costs next to nothing or, with `jpeg`, its
    decoding alone. 500 x 375 pixels then take about 90 kB, as ImageNet's photographs do.

    Args:
      num_examples: length of the source.
      num_classes: labels are 0..num_classes-1, in turn.
      image_size: (H, W) in pixels.
      jpeg: keep JPEG bytes and decode them at each access, as a data set does; otherwise keep decoded images.
      distinct: number of different images.
      seed: of the images.

    Raises:
      ValueError: a number below 1.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        num_classes: int = 1000,
        image_size: tuple[int, int] = (375, 500),
        jpeg: bool = False,
        distinct: int = 16,
        seed: int = 0,
    ):
        height, width = image_size
        if min(num_examples, num_classes, height, width, distinct) < 1:
            raise InputError(
                f"num_examples={num_examples}, num_classes={num_classes}, image_size={image_size}, "
                f"distinct={distinct}: expected numbers of at least 1"
            )
        rng = np.random.default_rng(seed)
        images = [_random_image(rng, height, width) for _ in range(min(distinct, num_examples))]
        self._jpeg = jpeg
        self._stored: list[bytes] | list[np.ndarray] = [_to_jpeg(image) for image in images] if jpeg else images
        self.info = SourceInfo(
            name="fake",
            split="train",
            class_names=tuple(map(str, range(num_classes))),
            num_examples=num_examples,
            keys=("image", "label"),
        )

    def __len__(self) -> int:
        return self.info.num_examples

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {self!r} has {len(self)} examples")
        stored = self._stored[index % len(self._stored)]
        image = decode_image(stored, apply_exif=False) if isinstance(stored, bytes) else stored
        return {"image": image, "label": index % self.info.num_classes}

    def __repr__(self) -> str:
        return f"FakeImages({len(self)}, num_classes={self.info.num_classes}, jpeg={self._jpeg})"


def _random_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8."""
    blobs = rng.normal(127.5, _CONTRAST, (height // _BLOB + 2, width // _BLOB + 2, 3)).astype(np.float32)
    smooth = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, _NOISE, (height, width, 1)).astype(np.float32)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def _to_jpeg(image: np.ndarray) -> bytes:
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return data.tobytes()
