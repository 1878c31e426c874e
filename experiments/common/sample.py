"""A few real photographs, which scikit-image and scikit-learn ship, for `--sample`: a trial without a data set.

A trial shows that an experiment runs and what it draws. Its numbers mean nothing: training and test images are views of
the same few photographs.
"""

from collections.abc import Callable, Sequence

import numpy as np
from skimage import data, io
from sklearn.datasets import load_sample_image

from camjax.data.images import resize_image
from camjax.data.sources import SourceInfo
from camjax.terminal import Console

NAME = "sample"
"""What tables and figures call the data set."""

SIDE = 256
"""Pixels on the shorter side of a view."""


def _shipped(name: str) -> Callable[[], np.ndarray]:
    return lambda: io.imread(f"{data.data_dir}/{name}")


PHOTOGRAPHS: dict[str, Callable[[], np.ndarray]] = {
    "astronaut": data.astronaut,
    "brick wall": data.brick,
    "cat": data.chelsea,
    "Chinese temple": lambda: load_sample_image("china.jpg"),
    "clock": _shipped("clock_motion.png"),
    "coffee": data.coffee,
    "coins": data.coins,
    "dahlia": lambda: load_sample_image("flower.jpg"),
    "grass": data.grass,
    "gravel": data.gravel,
    "handwriting": data.text,
    "motorcycle": _shipped("motorcycle_left.png"),
    "photographer": data.camera,
    "printed page": data.page,
    "rocket": data.rocket,
}
"""What a photograph shows -> a function that reads it: (H, W) or (H, W, 3) uint8."""


def photograph(name: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB of one of `PHOTOGRAPHS`; gray ones have three equal colors."""
    pixels = PHOTOGRAPHS[name]()
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


def announce(console: Console, what: str) -> None:
    """Prints that this is a trial.

    Args:
      console: to print to.
      what: its images are.
    """
    console.print(f"This is a {NAME}: {what}. Its numbers mean nothing.\n", soft_wrap=True)


def random_part(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """A random box in 0..1, `[ymin, xmin, ymax, xmax]`, with half to all of the height and of the width."""
    extent = rng.uniform(0.5, 1, 2)
    corner = rng.uniform(0, 1 - extent)
    return (*corner, *(corner + extent))


def part_of_image(pixels: np.ndarray, part: Sequence[float], side: int = SIDE) -> np.ndarray:
    """The part `[ymin, xmin, ymax, xmax]` of an image, its shorter side resized to `side` pixels."""
    ymin, xmin, ymax, xmax = part
    height, width = (ymax - ymin) * pixels.shape[0], (xmax - xmin) * pixels.shape[1]
    scale = side / min(height, width)
    return resize_image(pixels, (round(height * scale), round(width * scale)), box=(ymin, xmin, ymax, xmax))


def views(name: str, count: int, seed: int = 0) -> list[np.ndarray]:
    """Random views of a photograph: half to all of its height and width, mirrored or not, brighter or darker.

    Args:
      name: of `PHOTOGRAPHS`.
      count: of views.
      seed: of the choices; other seeds give other views.

    Returns:
      `count` images, each with 256 pixels on its shorter side, (H, W, 3) uint8.
    """
    pixels = photograph(name)
    rng = np.random.default_rng([seed, *name.encode()])
    found = []
    for _ in range(count):
        view = part_of_image(pixels, random_part(rng))
        view = view[:, ::-1] if rng.random() < 0.5 else view
        found.append(np.clip(view * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8))
    return found


class SampleImages:
    """Images in memory as a data set.

    Args:
      images: n images, (H, W, 3) uint8.
      labels: (n,) int.
      class_names: of the labels.
      split: name of the split.

    Attributes:
      info: name, split and class names.
      labels: (n,) int.
    """

    def __init__(self, images: Sequence[np.ndarray], labels: np.ndarray, class_names: Sequence[str], split: str):
        self._images, self.labels = images, labels
        self.info = SourceInfo(NAME, split, tuple(class_names), len(images), ("image", "label"))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict:
        return {"image": self._images[index], "label": int(self.labels[index])}


class Views(SampleImages):
    """Views of photographs: an image's class is its photograph.

    Args:
      names: of `PHOTOGRAPHS`, in the order of their labels.
      count: views of each.
      split: its name; each split has other views.
    """

    def __init__(self, names: Sequence[str], count: int, split: str):
        images = [view for name in names for view in views(name, count, sum(split.encode()))]
        super().__init__(images, np.repeat(np.arange(len(names)), count), names, split)
