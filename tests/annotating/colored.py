"""Pictures whose boxes are known, a network that finds them, and annotations in processes that tests may kill."""

import multiprocessing
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from camjax.annotating import Options, annotate_folder
from camjax.annotating import parts as parts_module
from camjax.models import CamModel, PooledHead
from tests import processes

SIDE = 16
NAMES = ("red", "green", "blue, azure")


class Colors(CamModel):
    """The map of a class is where its color is: features are the channels above 127, and the head takes them as is."""

    def __init__(self, names=NAMES):
        super().__init__(input_size=(SIDE, SIDE), stride=1, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.head = PooledHead(3, 3, rngs=nnx.Rngs(0))
        self.head.kernel[...] = 40 * jnp.eye(3)
        self.head.bias[...] = jnp.zeros(3)
        self.class_names = names
        self.eval()

    def backbone(self, x):
        return nnx.relu(x)


def save(path: Path, rectangles, size=(SIDE, SIDE), orientation=1) -> None:
    """Writes a black picture (H, W) with rectangles [(channel, y0, x0, y1, x1, value), ...]."""
    image = np.zeros((*size, 3), np.uint8)
    for channel, y0, x0, y1, x1, *value in rectangles:
        image[y0:y1, x0:x1, channel] = value[0] if value else 255
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(image).save(path, exif=exif)


def random_folder(folder: Path, number: int) -> Path:
    """Pictures of three sizes in folders and sub-folders, some turned, with one that is torn and one that is empty."""
    rng = np.random.default_rng(0)
    for i in range(number):
        height, width = ((16, 16), (32, 20), (9, 40))[i % 3]
        y, x = rng.integers(0, height // 2), rng.integers(0, width // 2)
        place = ("", "a b/", "a b/ü/")[i % 3]
        rectangle = (i % 3, y, x, y + height // 3 + 1, x + width // 3 + 1)
        save(folder / f"{place}{i:03}.png", [rectangle, ((i + 1) % 3, 0, 0, 3, 3, 150)], (height, width), i % 8 + 1)
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (folder / "a b/empty.png").touch()
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder, by their names in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(options: dict) -> None:
    """Annotates; the program of a process."""
    wait = options.pop("wait", 0)
    write = parts_module.Parts.write

    def slowly(self, part, pictures):
        time.sleep(wait)
        write(self, part, pictures)
        time.sleep(wait)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("camjax.annotating.loop.PICTURES", options.pop("part", 8))
        patch.setattr(parts_module.Parts, "write", slowly)
        if "joined" in options:
            processes.join({"preemption": False, **options})
        for name in ("joined", "devices", "heartbeat_seconds"):
            options.pop(name, None)
        chosen = Options(batch_size=4, maps=True, **options.pop("options", {}))
        annotate_folder(Colors(), options.pop("folder"), options.pop("out"), chosen, num_threads=1, **options)


def start(options: dict, log: Path) -> multiprocessing.Process:
    """Starts `run` in a process of its own."""
    return processes.start(run, options, log)
