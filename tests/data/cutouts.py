"""A miniature of CUB-200-2011 that a network can learn: cut-outs of real photographs on real textures.

Each class is one object, cut out of a photograph that scikit-image or scikit-learn ships. Its size, place, side and
brightness vary, and so does what is behind it; textures of training images are not those of test images. These are
composites, not photographs: boxes and masks follow from placement.
"""

from collections.abc import Callable

import cv2
import numpy as np
from skimage import data, io
from sklearn.datasets import load_sample_image

from camjax.data.scenes import tight_box
from tests.data.miniatures import Bird

_SIDES = (96, 128)
"""Least and greatest height and width of an image, in pixels; one does not tell the other."""

_OBJECT_SIDES = (0.3, 0.6)
"""Longer side of an object, as a share of the image's shorter side: smaller than any one box fits well."""

_BRIGHTNESS = (0.8, 1.2)
_TINT = (0.7, 1.0)


def _polygon(points: str) -> np.ndarray:
    """An outline of corners "x,y x,y ...", as in SVG: (n, 2) int32."""
    return np.array([corner.split(",") for corner in points.split()], np.int32)


def _ellipse(x: int, y: int, across: int, down: int) -> np.ndarray:
    """The outline of an ellipse around (x, y), by its semi-axes: (n, 2) int32."""
    return cv2.ellipse2Poly((x, y), (across, down), 0, 0, 360, 5)


# Name -> the photograph and the outline in it, (x, y) in pixels, drawn by hand.
_OBJECTS: dict[str, tuple[Callable[[], np.ndarray], np.ndarray]] = {
    "Coffee_Cup": (
        data.coffee,
        _polygon(
            "172,90 185,55 230,25 290,17 350,28 395,65 424,75 420,110 455,150 476,200 478,240 455,310 400,360 330,385 "
            "260,385 180,360 115,310 82,250 76,200 92,150 130,105"
        ),
    ),
    "Dahlia": (lambda: load_sample_image("flower.jpg"), _ellipse(307, 222, 137, 135)),
    "Retina": (data.retina, _ellipse(704, 704, 680, 680)),
    "Cat": (
        data.chelsea,
        _polygon("45,2 330,2 350,60 355,130 330,200 300,260 250,285 180,270 120,230 60,190 30,140 25,60"),
    ),
    "Astronaut": (
        data.astronaut,
        _polygon(
            "155,80 175,30 220,15 270,30 300,80 295,120 265,140 265,170 300,210 300,260 345,290 365,340 300,365 "
            "275,420 280,510 10,510 30,420 20,340 55,270 115,215 115,170 150,150 185,160 180,130 160,120"
        ),
    ),
    "Motorcycle": (
        lambda: io.imread(f"{data.data_dir}/motorcycle_left.png"),
        _polygon(
            "92,200 150,160 200,165 270,185 350,185 420,165 470,165 470,100 520,100 585,125 565,180 570,260 640,290 "
            "685,370 680,420 640,450 590,440 540,390 515,320 470,340 440,375 350,380 340,435 320,435 320,375 270,365 "
            "230,398 180,395 135,350 122,300 125,245 95,240"
        ),
    ),
    "Pagoda": (
        lambda: load_sample_image("china.jpg"),
        _polygon(
            "198,32 216,32 218,62 270,100 320,118 300,140 295,160 330,175 322,235 350,255 340,315 372,335 360,360 "
            "320,385 220,385 160,345 75,340 80,290 62,268 110,235 108,195 85,185 120,160 120,130 95,115 160,95 198,62"
        ),
    ),
    "Coin": (data.coins, _ellipse(349, 187, 31, 31)),
}

CLASSES = tuple(_OBJECTS)
"""What the images show, in the order of their labels."""


def composites(num_train: int, num_test: int, seed: int = 0) -> list[Bird]:
    """Images of all `CLASSES` in turn, for `tests.data.miniatures.write_birds`.

    Args:
      num_train: training images.
      num_test: test images.
      seed: of everything that varies.
    """
    objects = [_cut_out(*_OBJECTS[name]) for name in CLASSES]
    images = []
    for split, count in (("train", num_train), ("test", num_test)):
        textures = _textures()[split]
        for i in range(count):
            rng = np.random.default_rng((seed, split == "train", i))
            label = i % len(CLASSES)
            pixels, votes = _compose(*objects[label], textures[rng.integers(len(textures))], rng)
            number = len(images) + 1
            name = CLASSES[label]
            ymin, xmin, ymax, xmax = tight_box(votes >= 128) * np.tile(votes.shape, 2)
            images.append(
                Bird(
                    number=number,
                    name=f"{label + 1:03}.{name}/{name}_{i // len(CLASSES) + 1:04}_{number}.jpg",
                    label=label,
                    train=split == "train",
                    box=(float(xmin), float(ymin), float(xmax - xmin), float(ymax - ymin)),
                    pixels=pixels,
                    votes=votes,
                )
            )
    return images


def _textures() -> dict[str, list[np.ndarray]]:
    """Split -> pieces of photographs without the objects, (H, W, 3) uint8."""
    return {
        "train": [_rgb(data.brick()), _rgb(data.gravel()), data.immunohistochemistry()],
        "test": [_rgb(data.grass()), load_sample_image("flower.jpg")[:380, 460:], _rgb(data.camera()[256:420, 370:])],
    }


def _rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)


def _cut_out(photo: Callable[[], np.ndarray], outline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a photograph around an outline, no larger than the largest image, and how much of a pixel is inside.

    Returns:
      (h, w, 3) uint8, and (h, w) float32 in 0..1.
    """
    pixels = photo()
    pixels = pixels if pixels.ndim == 3 else _rgb(pixels)
    inside = np.zeros(pixels.shape[:2], np.float32)
    cv2.fillPoly(inside, [outline], 1.0)
    x, y, width, height = cv2.boundingRect(outline)
    shrink = min(1.0, _SIDES[1] / max(width, height))  # once, and not for each image
    size = (round(shrink * width), round(shrink * height))
    return tuple(
        cv2.resize(part[y : y + height, x : x + width], size, interpolation=cv2.INTER_AREA) for part in (pixels, inside)
    )


def _compose(
    pixels: np.ndarray, inside: np.ndarray, texture: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An object somewhere on a texture: (H, W, 3) uint8, and votes in CUB's gray levels, (H, W) uint8."""
    size = rng.integers(*_SIDES, size=2, endpoint=True)
    image = _background(texture, size, rng)

    share = rng.uniform(*_OBJECT_SIDES) * size.min() / max(inside.shape)
    height, width = (max(1, round(share * extent)) for extent in inside.shape)
    y, x = (rng.integers(0, extent, endpoint=True) for extent in size - (height, width))
    step = rng.choice((-1, 1))  # -1 mirrors
    paint, coverage = (
        cv2.resize(np.ascontiguousarray(part[:, ::step]), (width, height), interpolation=cv2.INTER_AREA)
        for part in (pixels, inside)
    )
    place = slice(y, y + height), slice(x, x + width)
    image[place] += coverage[..., None] * (paint * rng.uniform(*_BRIGHTNESS) - image[place])
    votes = np.zeros(size, np.uint8)
    votes[place] = np.rint(5 * coverage) * 51
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), votes


def _background(texture: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random piece of a texture in the size given, (H, W, 3) float64: mirrored, tinted, brighter or darker."""
    height, width = size
    y, x = (rng.integers(0, extent, endpoint=True) for extent in np.array(texture.shape[:2]) - size)
    piece = texture[y : y + height, x : x + width][:, :: rng.choice((-1, 1))]
    return piece * rng.uniform(*_TINT, size=3) * rng.uniform(*_BRIGHTNESS)
