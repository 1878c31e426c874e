"""A few real photographs, for trials of experiments without a data set: what scikit-image and scikit-learn ship.

A trial shows that an experiment runs and what it draws. Its numbers say nothing: training and test images are views of
the same few photographs.
"""

from collections.abc import Callable, Sequence

import numpy as np
from skimage import data, io
from sklearn.datasets import load_sample_image

from camjax.data.images import resize_image
from camjax.data.sources import SourceInfo

NAME = "sample"
"""What tables and figures call the data set."""

_SIDE = 256


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
        extent = rng.uniform(0.5, 1, 2)
        corner = rng.uniform(0, 1 - extent)
        height, width = extent * pixels.shape[:2]
        scale = _SIDE / min(height, width)
        view = resize_image(pixels, (round(height * scale), round(width * scale)), box=(*corner, *(corner + extent)))
        view = view[:, ::-1] if rng.random() < 0.5 else view
        found.append(np.clip(view * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8))
    return found


class Views:
    """Views of photographs as a data set: an image's class is its photograph.

    Args:
      names: of `PHOTOGRAPHS`, in the order of their labels.
      count: views of each.
      split: its name; each has other views.

    Attributes:
      info: name, split and class names.
      labels: (n,) int.
    """

    def __init__(self, names: Sequence[str], count: int, split: str):
        seed = sum(split.encode())
        self._views = [view for name in names for view in views(name, count, seed)]
        self.labels = np.repeat(np.arange(len(names)), count)
        self.info = SourceInfo(NAME, split, tuple(names), len(self._views), ("image", "label"))

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, index: int) -> dict:
        return {"image": self._views[index], "label": int(self.labels[index])}
