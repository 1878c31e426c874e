"""The built-in data set *scenes*: handwritten digits on photographic textures, with exact boxes and masks.

A scene is one real handwritten digit (scikit-learn's `load_digits`, 8x8 pixels), enlarged to a random size and painted
in a bright random ink at a random place over a random piece of a real photograph (scikit-image's brick, grass or
gravel, all CC0), darkened, tinted, turned and flipped at random. The label is the digit; box and mask are exact, since
the digit was drawn at a known place. The digit is whole, alone, upright and brighter than its surroundings: a score on
scenes says that a method finds and names objects, not how well it works on natural images.

Class, texture, place, size and ink are drawn independently of each other. Train, validation and test share no digit
and no texture pixel: each takes its own range of `load_digits` and its own third of each photograph.
"""

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import ClassVar

import cv2
import numpy as np

from camjax.data._tfds import tfds
from camjax.errors import require_extra

SIDE = 64
"""Height and width of a scene, in pixels."""

VISIBLE = 0.25
"""A pixel belongs to the digit (mask and box) where ink covers at least this fraction of the background."""

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEXTURES = ("brick", "grass", "gravel")
NUM_SCENES = {"train": 6000, "validation": 600, "test": 600}

SPLITS = tuple(NUM_SCENES)
_SEED = 20160627
# Ranges, not a random draw: digits that one person wrote stand near each other in load_digits.
_DIGIT_RANGES = {"train": (0.0, 0.6), "validation": (0.6, 0.8), "test": (0.8, 1.0)}
_DIGIT_SIDES = (round(0.28 * SIDE), round(0.60 * SIDE))
_CROP_SIDES = (SIDE, 2 * SIDE)
# Bright ink on darker ground, never the reverse: with both, a small network learned nothing in the time that it needs
# for these.
INK = (0.75, 1.0)
_LEVEL = (0.2, 0.45)
_CONTRAST = (0.3, 0.6)

_DESCRIPTION = """\
Handwritten digits (scikit-learn's load_digits) in random size, place and bright ink on photographic textures
(scikit-image's brick, grass and gravel). These are composites, not photographs: the box and the mask follow
from placement. Train, validation and test share neither digits nor parts of the textures.
"""
_CITATION = """\
@misc{alpaydin1998optdigits,
  author = {Alpaydin, Ethem and Kaynak, Cenk},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  publisher = {UCI Machine Learning Repository},
}
"""


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads scikit-learn's digits: (1797, 8, 8) float32, the share of ink in each cell, and (1797,) int64 in 0..9."""
    digits = _imported("sklearn.datasets").load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


def load_textures() -> dict[str, np.ndarray]:
    """Reads scikit-image's photographs of brick, grass and gravel: name -> (512, 512) uint8, gray."""
    data = _imported("skimage.data")
    return {name: getattr(data, name)() for name in TEXTURES}


def split_digit_ids(split: str, num_digits: int) -> range:
    """The positions in `load_digits` that belong to a split ("train", "validation" or "test")."""
    start, stop = _DIGIT_RANGES[split]
    return range(round(start * num_digits), round(stop * num_digits))


def split_digits(split: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """All digits, (1797, 8, 8) as `load_digits` has them, and for each of 0..9 the positions of those of a split."""
    digits, labels = load_digits()
    ids = np.array(split_digit_ids(split, len(digits)))
    return digits, [ids[labels[ids] == label] for label in range(10)]


def split_texture(texture: np.ndarray, split: str) -> np.ndarray:
    """The third of a texture that belongs to a split: the strip on the left (for "train"), the middle, or the right."""
    return np.array_split(texture, len(SPLITS), axis=1)[SPLITS.index(split)]


def compose_scene(digit: np.ndarray, texture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paints a digit over a piece of a texture.

    Args:
      digit: (8, 8) float32 in 0..1, the fraction of ink.
      texture: (H, W) uint8 gray photograph, H and W at least 128.
      rng: draws size, place, ink, crop and tint, independently of the digit.

    Returns:
      image: (64, 64, 3) uint8 RGB.
      mask: (64, 64) bool, where ink covers at least a quarter (`VISIBLE`) of the background.
    """
    ground = background(texture, rng)
    side = int(rng.integers(*_DIGIT_SIDES, endpoint=True))
    y, x = rng.integers(0, SIDE - side, size=2, endpoint=True)
    image, mask = painted(ground, digit, (y, x), side, rng.uniform(*INK, size=3))
    return np.rint(255 * image).astype(np.uint8), mask


def painted(
    ground: np.ndarray, digit: np.ndarray, corner: tuple[int, int], side: int, ink: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Paints a digit on a ground.

    Args:
      ground: (64, 64, 3) float in 0..1.
      digit: (8, 8) float32 in 0..1, the fraction of ink.
      corner: row and column of the pixel at the top left of the square that the digit fills.
      side: of the square, in pixels.
      ink: (3,) its color, in 0..1.

    Returns:
      The image, as the ground, and the mask: (64, 64) bool, where ink covers at least a quarter of the ground.
    """
    y, x = corner
    coverage = np.zeros((SIDE, SIDE), np.float32)
    enlarged = cv2.resize(digit, (side, side), interpolation=cv2.INTER_CUBIC)
    coverage[y : y + side, x : x + side] = np.clip(enlarged, 0, 1)
    return ground + coverage[..., None] * (ink - ground), coverage >= VISIBLE


def tight_box(mask: np.ndarray) -> np.ndarray:
    """The smallest box around a mask's true pixels, at least one: (H, W) bool -> (4,) float32, half-open, in 0..1."""
    height, width = mask.shape
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [ys[0] / height, xs[0] / width, (ys[-1] + 1) / height, (xs[-1] + 1) / width]
    return np.array(box, np.float32)


class Composites(tfds.core.GeneratorBasedBuilder):
    """What the tfds builders of such images share: features with the names and units of `caltech_birds2011`.

    Preparing needs the extra `experiments` (scikit-learn and scikit-image). It works offline, and without TensorFlow
    with `file_format="array_record"`.

    Attributes:
      description: of the data set, in words.
      class_names: in the order of the labels.
    """

    description: ClassVar[str]
    class_names: ClassVar[tuple[str, ...]]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=self.class_names),
            "label_name": tfds.features.Text(),
            "bbox": tfds.features.BBoxFeature(),
            "segmentation_mask": tfds.features.Image(
                shape=(SIDE, SIDE, 1), encoding_format="png", doc="255 on the digit, 0 elsewhere."
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        del dl_manager  # nothing is downloaded: digits and textures are part of their packages
        return {split: self._generate_examples(split) for split in SPLITS}

    @classmethod
    def example(cls, label: int, filename: str, image: np.ndarray, box: np.ndarray, mask: np.ndarray) -> dict:
        """An image as tfds stores it, with its class, its box in 0..1 and its mask."""
        return {
            "image": _png(image[..., ::-1]),
            "image/filename": filename,
            "label": label,
            "label_name": cls.class_names[label],
            "bbox": tfds.features.BBox(*box.tolist()),
            "segmentation_mask": _png(np.where(mask, 255, 0).astype(np.uint8)),
        }


class Scenes(Composites):
    """tfds builder of the data set `scenes`.

    A file name, such as "test_00012_grass_digit1523.png", has the texture and the digit's position in `load_digits`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (tfds declares it as a class variable)
    description = _DESCRIPTION
    class_names = CLASS_NAMES

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        digits, ids = split_digits(split)
        textures = {name: split_texture(texture, split) for name, texture in load_textures().items()}
        for number in range(NUM_SCENES[split]):
            # One generator per scene: a scene does not depend on the number of scenes.
            rng = np.random.default_rng((_SEED, SPLITS.index(split), number))
            label = number % len(CLASS_NAMES)
            texture = TEXTURES[rng.integers(len(TEXTURES))]
            digit_id = rng.choice(ids[label])
            image, mask = compose_scene(digits[digit_id], textures[texture], rng)
            filename = f"{split}_{number:05d}_{texture}_digit{digit_id:04d}.png"
            yield filename, Scenes.example(label, filename, image, tight_box(mask), mask)


def background(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random piece of a texture, turned, flipped, tinted, darkened: (64, 64, 3) float64 in 0..1."""
    side = rng.integers(*_CROP_SIDES, endpoint=True)
    y, x = (rng.integers(0, extent - side, endpoint=True) for extent in texture.shape)
    crop = np.rot90(texture[y : y + side, x : x + side], k=int(rng.integers(4)))
    crop = crop[:, :: rng.choice((-1, 1))]
    crop = cv2.resize(np.ascontiguousarray(crop), (SIDE, SIDE), interpolation=cv2.INTER_AREA) / 255
    gray = rng.uniform(*_LEVEL) + rng.uniform(*_CONTRAST) * (crop - crop.mean())
    tint = rng.uniform(0.8, 1.2, size=3)
    return np.clip(gray[..., None] * tint / tint.mean(), 0, 1)


def _png(image: np.ndarray) -> bytes:
    """Encodes a gray or BGR image without TensorFlow, which tfds would use for an array."""
    return cv2.imencode(".png", image)[1].tobytes()


def _imported(module: str) -> ModuleType:
    require_extra("experiments", "Preparing a built-in data set", module.partition(".")[0])
    return importlib.import_module(module)
