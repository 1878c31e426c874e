"""The built-in data set *look_alikes*: classes that differ in one part, whose place is known.

An image shows two real handwritten digits in one ink on a piece of a photograph, made of the same material and by the
same means as `camjax.data.scenes`: a large one, and beside it, above it or below it a small one. The large digit is the
*family*, the small one the *part*, and both together are the class. So the classes of a family look alike: at the same
place, in the same ink and on the same ground, their images differ inside the part's square and nowhere else. That
square is the box, and the part's ink is the mask.

It asks what Finer-CAM asks of birds: where does a map lie that explains why this is a class and not another one of the
same family? The answer is known here, since the part was drawn at a known place. As composites, the images say nothing
about how well that works on photographs.
"""

from collections.abc import Iterator

import numpy as np

from camjax.data._tfds import tfds
from camjax.data.scenes import CLASS_NAMES as DIGIT_NAMES
from camjax.data.scenes import (
    INK,
    SIDE,
    SPLITS,
    TEXTURES,
    Composites,
    background,
    load_textures,
    painted,
    split_digits,
    split_texture,
)

FAMILIES = (3, 6, 7)
"""The large digits; none of them is a small one, too."""

PARTS = (0, 1, 4)
"""The small digits."""

CLASS_NAMES = tuple(f"{DIGIT_NAMES[family]} with {DIGIT_NAMES[part]}" for family in FAMILIES for part in PARTS)
"""In the order of the labels: family by family, so that class c is of family `c // len(PARTS)`."""

NUM_IMAGES = {"train": 6300, "validation": 630, "test": 630}

MARGIN = 4
"""Pixels around both digits: training may shift an image by as much, and cuts nothing off."""

_SEED = 20250624
_FAMILY_SIDES = (26, 32)
_PART_SIDES = (14, 18)

_DESCRIPTION = """\
Pairs of handwritten digits (scikit-learn's load_digits) on photographic textures (scikit-image's brick, grass and
gravel): a large one, the family, and beside it a small one, the part. The class is both together, so that classes of a
family differ in the part alone; its square is the box. These are composites, not photographs. Train, validation and
test share neither digits nor parts of the textures.
"""


def family_members(labels: np.ndarray) -> np.ndarray:
    """The classes of the same family, with the class itself: labels (...) -> (..., 3) class ids."""
    return np.asarray(labels)[..., None] // len(PARTS) * len(PARTS) + np.arange(len(PARTS))


def compose_pair(
    family: np.ndarray, part: np.ndarray, texture: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paints two digits beside each other over a piece of a texture.

    Args:
      family: (8, 8) float32 in 0..1, the fraction of ink of the large digit.
      part: the same of the small one.
      texture: (H, W) uint8 gray photograph, H and W at least 128.
      rng: draws sizes, places, ink, crop and tint, independently of the digits.

    Returns:
      image: (64, 64, 3) uint8 RGB.
      box: (4,) float32 [ymin, xmin, ymax, xmax] in 0..1, the square of the part. Another part changes nothing outside.
      mask: (64, 64) bool, the part's ink, as in `compose_scene`.
    """
    ground = background(texture, rng)
    large, small = (int(rng.integers(*sides, endpoint=True)) for sides in (_FAMILY_SIDES, _PART_SIDES))
    upright, first = rng.integers(2, size=2).tolist()
    start = int(rng.integers(MARGIN, SIDE - MARGIN - large - small, endpoint=True))
    across = int(rng.integers(MARGIN, SIDE - MARGIN - large, endpoint=True))
    of_family, of_part = start + small * first, start + large * (1 - first)
    beside = across + int(rng.integers(0, large - small, endpoint=True))  # its square is within the family's extent
    corners = [(of_family, across), (of_part, beside)]
    if not upright:
        corners = [corner[::-1] for corner in corners]
    ink = rng.uniform(*INK, size=3)
    image, _ = painted(ground, family, corners[0], large, ink)
    image, mask = painted(image, part, corners[1], small, ink)
    y, x = corners[1]
    box = np.array([y, x, y + small, x + small], np.float32) / SIDE
    return np.rint(255 * image).astype(np.uint8), box, mask


class LookAlikes(Composites):
    """tfds builder of the data set `look_alikes`.

    A file name, such as "test_00012_grass_family1523_part0007.png", has the texture and the positions of both digits in
    `camjax.data.scenes.load_digits`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (tfds declares it as a class variable)
    description = _DESCRIPTION
    class_names = CLASS_NAMES

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        digits, ids = split_digits(split)
        textures = {name: split_texture(texture, split) for name, texture in load_textures().items()}
        for number in range(NUM_IMAGES[split]):
            # One generator per image, as of scenes.
            rng = np.random.default_rng((_SEED, SPLITS.index(split), number))
            label = number % len(CLASS_NAMES)
            texture = TEXTURES[rng.integers(len(TEXTURES))]
            of_family, of_part = divmod(label, len(PARTS))
            family, part = (rng.choice(ids[digit]) for digit in (FAMILIES[of_family], PARTS[of_part]))
            image, box, mask = compose_pair(digits[family], digits[part], textures[texture], rng)
            filename = f"{split}_{number:05d}_{texture}_family{family:04d}_part{part:04d}.png"
            yield filename, LookAlikes.example(label, filename, image, box, mask)
