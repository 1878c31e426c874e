"""Batches of Grain, of a PyTorch DataLoader or of tf.data feed `cam_fn`: NumPy arrays (B, H, W, 3), uint8 RGB, suffice.

    python examples/input_pipelines.py photographs --loader torch

Grain comes with "camjax[data]". Networks of camjax normalize images themselves, so no loader should.
"""

import argparse
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import camjax
from camjax.data.image_files import find_images


class Photographs:
    """What Grain and PyTorch take alike: a length, and an image (H, W, 3) uint8 for each index."""

    def __init__(self, paths: list[Path], size: tuple[int, int]):
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return camjax.load_images(self.paths[index], self.size)[0]


def grain_batches(photographs: Photographs, batch_size: int) -> Iterator[np.ndarray]:
    """Batches by Grain, read in threads."""
    import grain

    return iter(grain.MapDataset.source(photographs).batch(batch_size).to_iter_dataset())


def torch_batches(photographs: Photographs, batch_size: int) -> Iterator[np.ndarray]:
    """Batches by PyTorch. With num_workers, give multiprocessing_context="spawn": a fork copies the locks of JAX."""
    from torch.utils.data import DataLoader

    return iter(DataLoader(photographs, batch_size, collate_fn=np.stack))


def tf_batches(photographs: Photographs, batch_size: int) -> Iterator[np.ndarray]:
    """Batches by tf.data, with TensorFlow kept from the accelerator."""
    import tensorflow as tf

    def read(path):
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.cast(tf.round(tf.image.resize(image, photographs.size, antialias=True)), tf.uint8)

    tf.config.set_visible_devices([], "GPU")
    paths = tf.data.Dataset.from_tensor_slices(list(map(str, photographs.paths)))
    return paths.map(read).batch(batch_size).as_numpy_iterator()


LOADERS = {"grain": ("grain", grain_batches), "torch": ("torch", torch_batches), "tf": ("tensorflow", tf_batches)}


def main(arguments: list[str] | None = None) -> dict[str, str]:
    """The class of each photograph in a folder, by its name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--loader", choices=LOADERS, default="grain")
    options = parser.parse_args(arguments)
    package, batches = LOADERS[options.loader]
    if importlib.util.find_spec(package) is None:
        print(f"Skipped: --loader {options.loader} needs the package {package}, which is not installed.")
        return {}
    model = camjax.load_model("efficientnet_lite0")
    photographs = Photographs([options.folder / name for name in find_images(options.folder)], model.input_size)
    found = [i for images in batches(photographs, 8) for i in camjax.cam_fn(model, images).class_ids[:, 0].tolist()]
    return {path.name: model.class_names[i] for path, i in zip(photographs.paths, found, strict=True)}


if __name__ == "__main__":
    print(main())
