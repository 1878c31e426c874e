"""Training batches from JPEGs, compared with a PyTorch DataLoader with torchvision's transforms.

    python -m benchmarks.input_pipeline [--quick]

prints a table and, last, one JSON line of the figures. Both sides have the same photographs in memory as JPEGs of
500 x 375 pixels, decode them, crop a random part, resize it to 224 x 224, mirror half of them and make batches of 64,
in the same number of worker processes (one a core). Nothing is done with the batches. PyTorch is measured twice: with
uint8 batches, as in camjax, whose models normalize on the device; and with what its users mostly write, `ToTensor` and
`Normalize`, whose batches are float32. The promise is about the first.

Each turn starts new processes, and is timed only after it has used up the batches that were made ahead. Turns go
A B C, C B A, ...; a ratio is the median over the rounds of PyTorch's time per image divided by camjax's.

Measured without a comparison: camjax with threads alone; and with fake data, images that are decoded already and have
the right size, which shows what the loader itself costs.
"""

import argparse
import contextlib
import io
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers import import_torchvision, missing
from benchmarks.timing import cpu_count, cpu_name, ratio
from camjax.data.decoding import decode_image
from camjax.data.fake import FakeImages
from camjax.data.images import resize_image
from camjax.data.loader import train_batches
from camjax.data.transforms import compose, random_horizontal_flip, random_resized_crop

PROMISE = 1.4
BATCH_SIZE = 64
SIZE = 224
DISTINCT = 60
LENGTH = 1_000_000  # of an epoch, so that none ends within a turn


class Photographs:
    """JPEGs in memory, again and again: a source for camjax."""

    def __init__(self, jpegs: list[bytes]):
        self.jpegs = jpegs

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict:
        data = self.jpegs[index % len(self.jpegs)]
        return {"image": decode_image(data, apply_exif=False), "label": index % 1000}


class TorchPhotographs:
    """The same as a data set for PyTorch, with its transforms."""

    def __init__(self, jpegs: list[bytes], as_float: bool):
        self.jpegs = jpegs
        self.as_float = as_float
        self._transform = None

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> tuple:
        from PIL import Image

        if self._transform is None:  # in the worker, because torchvision cannot be unpickled everywhere (see peers)
            self._transform = _torch_transform(self.as_float)
        data = self.jpegs[index % len(self.jpegs)]
        return self._transform(Image.open(io.BytesIO(data)).convert("RGB")), index % 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: one minute instead of five")
    quick = parser.parse_args().quick
    console = Console(width=None if sys.stdout.isatty() else 120)
    workers = cpu_count()
    jpegs = photographs()
    kilobytes = np.mean([len(data) for data in jpegs]) / 1000
    console.print(f"{cpu_name()}, {workers} cores; {len(jpegs)} JPEGs of 500 x 375 pixels, {kilobytes:.0f} kB each")
    pipelines = {
        "camjax, worker processes": lambda: camjax_batches(Photographs(jpegs), num_workers=workers),
        "camjax, threads": lambda: camjax_batches(Photographs(jpegs), num_threads=workers),
        "camjax, fake data, threads": lambda: camjax_batches(
            FakeImages(LENGTH, image_size=(SIZE, SIZE)), num_threads=workers, augment=None
        ),
    }
    reason = missing("torch", "torchvision")
    if reason:
        console.print(f"[yellow]without PyTorch: {reason}")
    else:
        for name, as_float in (("PyTorch, uint8", False), ("PyTorch, float32", True)):
            pipelines[name] = lambda as_float=as_float: torch_batches(TorchPhotographs(jpegs, as_float), workers)
    with console.status("measuring"):
        times = image_times(pipelines, rounds=2 if quick else 8, batches=10 if quick else 30, workers=workers)

    table = Table("what", "measured", "figure", "promised")
    for name, seconds in times.items():
        table.add_row(name, f"{1 / np.median(seconds):.0f} images/s", "", "")
    figures = {"input_images_per_second": round(1 / float(np.median(times["camjax, worker processes"])), 1)}
    for name, key in (("PyTorch, uint8", "input_vs_torch"), ("PyTorch, float32", "input_vs_torch_float")):
        if name not in times:
            continue
        value = ratio(times[name], times["camjax, worker processes"])
        figures[key] = round(value, 4)
        promise = ""
        if key == "input_vs_torch":
            promise = f">= {PROMISE} {'[green]kept' if value >= PROMISE else '[red]not kept'}"
        table.add_row("", f"time of {name} over that of camjax, {workers} processes each", f"{value:.3g}", promise)
    console.print(table)
    print(json.dumps(figures))


def photographs() -> list[bytes]:
    """`DISTINCT` JPEGs of 500 x 375 pixels: parts of photographs that come with scikit-image and scikit-learn."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    originals = [data.astronaut(), data.chelsea(), data.coffee(), *load_sample_images().images]
    rng = np.random.default_rng(0)
    jpegs = []
    for i in range(DISTINCT):
        y, x = rng.uniform(0, 0.3, 2)
        part = resize_image(originals[i % len(originals)], (375, 500), box=(y, x, y + 0.7, x + 0.7))
        _, encoded = cv2.imencode(".jpg", part[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        jpegs.append(encoded.tobytes())
    return jpegs


def camjax_batches(source, **options) -> Iterator:
    """Training batches as a recipe makes them."""
    augment = compose(random_resized_crop(SIZE), random_horizontal_flip)
    return train_batches(source, **{"batch_size": BATCH_SIZE, "seed": 0, "size": SIZE, "augment": augment, **options})


def torch_batches(dataset: TorchPhotographs, workers: int) -> Iterator:
    """The batches of a DataLoader; closing the iterator ends its workers."""
    from torch.utils.data import DataLoader

    # Spawned: this process has JAX's threads, which a fork does not survive.
    loader = DataLoader(
        dataset, BATCH_SIZE, shuffle=True, num_workers=workers, drop_last=True, multiprocessing_context="spawn"
    )
    iterator = iter(loader)
    try:
        yield from iterator
    finally:
        iterator._shutdown_workers()


def image_times(
    pipelines: dict[str, Callable[[], Iterator]], *, rounds: int, batches: int, workers: int
) -> dict[str, np.ndarray]:
    """Seconds per image of each pipeline.

    Args:
      pipelines: name -> a function that starts one.
      rounds: turns that each gets.
      batches: batches that a turn is timed over.
      workers: processes that may have made batches ahead.

    Returns:
      name -> (rounds,).
    """
    times = {name: np.zeros(rounds) for name in pipelines}
    for i in range(rounds):
        for name in pipelines if i % 2 == 0 else reversed(pipelines):
            with contextlib.closing(pipelines[name]()) as iterator:
                for _ in itertools.islice(iterator, 4 * workers + 4):
                    pass
                start = time.perf_counter()
                for _ in itertools.islice(iterator, batches):
                    pass
                times[name][i] = (time.perf_counter() - start) / (batches * BATCH_SIZE)
    return times


def _torch_transform(as_float: bool):
    transforms = import_torchvision().transforms
    last = [transforms.PILToTensor()]
    if as_float:
        last = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    return transforms.Compose([transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), *last])


if __name__ == "__main__":
    main()
