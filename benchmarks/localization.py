"""The cost of localization: five classes' maps and boxes, against pytorch-grad-cam; evaluation, against a forward pass.

    python -m benchmarks.localization [--quick]

prints a table and, last, one JSON line. Each is measured in one run:

- `localize_fn` with five classes, its boxes included, against pytorch-grad-cam's maps of the same five classes, without
  boxes, on the same network and weights. pytorch-grad-cam takes one class for each image of a batch, so it gets each
  image five times, in one batch, with the classes given. The maps are compared first: on a network that ends in global
  average pooling Grad-CAM is CAM's positive part, scaled.
- `evaluate_localization` with the ILSVRC metrics over JPEG files of 500 x 375 pixels in memory, against the forward
  pass alone over as many batches in memory: the share of its time outside the forward pass, which goes into decoding,
  resizing, maps, a box an image, metrics and bookkeeping. The time of an evaluation of a few images is subtracted, with
  which that of making its program goes. By the clock, and in processor time.
- Boxes at many thresholds have a benchmark of their own, `benchmarks.contours`.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import camjax
from benchmarks.cam_throughput import photographs
from benchmarks.grad_cam import check_maps, grad_cam
from benchmarks.peers import import_torchvision, missing
from benchmarks.timing import cpu_count, cpu_name, interleaved, ratio
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.fake import FakeImages
from camjax.evaluation.runner import evaluate_localization
from camjax.inference import BoundFunction

CLASSES = 5
BATCH = 4
EVALUATION_BATCH = 20


class FakeAnnotated(AnnotatedSource):
    """Random photographs as JPEG, each with a box in its middle."""

    has_boxes = True

    def __init__(self, number: int):
        self._images = FakeImages(number, jpeg=True)
        self.info = self._images.info

    def __getitem__(self, index: int) -> dict:
        return {**self._images[index], "filename": f"{index}.jpg"}

    def annotation(self, index: int) -> Annotation:
        """The box in the middle."""
        boxes = np.array([[0.25, 0.25, 0.75, 0.75]], np.float32)
        return Annotation(f"{index}.jpg", index % self.info.num_classes, boxes)


def networks() -> dict:
    """By name: camjax's model, PyTorch's with the same weights, and a function to the layer that Grad-CAM looks at."""
    from efficientnet_lite_pytorch import EfficientNet
    from safetensors.torch import save_file

    from camjax.models.efficientnet_lite import packaged_file

    torchvision = import_torchvision()
    import torch

    lite0 = EfficientNet.from_name("efficientnet-lite0")
    lite0.load_state_dict(torch.load(packaged_file(0), weights_only=True))
    resnet50 = torchvision.models.resnet50()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "resnet50.safetensors")
        save_file(resnet50.state_dict(), path)
        ours = camjax.load_model("resnet50", weights=path)
    return {
        # The activation after this BatchNorm is a module that the network calls twice, which a hook cannot tell apart.
        "efficientnet_lite0": (camjax.load_model("efficientnet_lite0"), lite0.eval(), lambda n: n._bn1),
        "resnet50": (ours, resnet50.eval(), lambda n: n.layer4[-1]),
    }


def five_maps(console: Console, table: Table, figures: dict, rounds: int) -> None:
    """`localize_fn` compared with pytorch-grad-cam."""
    if reason := missing("torch", "torchvision", "efficientnet_lite_pytorch", "pytorch_grad_cam"):
        table.add_row("five classes' maps", f"[yellow]skipped: {reason}", "", "")
        return
    import torch

    torch.set_num_threads(cpu_count())
    for name, (model, network, layer) in networks().items():
        for batch in (1, BATCH):
            images = photographs(batch)
            localize_fn = camjax.make_localize_fn(model, top_k=CLASSES)
            on_device = jax.device_put(images)
            out = jax.device_get(localize_fn(on_device))
            mean, std = (np.array(constant, np.float32) for constant in (model.mean, model.std))
            x = torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2).contiguous()
            run_grad_cam, maps = grad_cam(network, layer(network), x, out.class_ids)
            if name == "resnet50":
                check_maps(out.maps, maps)
            functions = {"camjax": functools.partial(localize_fn, on_device), "grad-cam": run_grad_cam}
            times = interleaved(functions, rounds)
            value = ratio(times["grad-cam"], times["camjax"])
            figures[f"{name}_b{batch}_five_maps_vs_grad_cam"] = round(value, 3)
            measured = ", ".join(f"{who} {1e3 * np.median(seconds):.0f} ms" for who, seconds in times.items())
            table.add_row(f"{name}, {batch} images, {CLASSES} classes", measured, f"{value:.2f}", _promise(value, 5))


def evaluation(table: Table, figures: dict, images: int, repeats: int) -> None:
    """`evaluate_localization` compared with the bare forward pass."""
    networks = {
        "efficientnet_lite0": camjax.load_model("efficientnet_lite0"),
        "resnet50": camjax.create_model("resnet50"),
    }
    few = 2 * EVALUATION_BATCH
    for name, model in networks.items():
        model.eval()
        source = FakeAnnotated(images + few)
        forward = BoundFunction(model, lambda model, images, _: model(images), model.head.num_classes)
        batch = jax.device_put(photographs(EVALUATION_BATCH))
        evaluate = functools.partial(evaluate_localization, model, source, batch_size=EVALUATION_BATCH)
        evaluate(limit=few)
        jax.block_until_ready(forward(batch))
        times = []
        for _ in range(repeats):
            without = _seconds(functools.partial(_run_times, images // EVALUATION_BATCH, forward, batch))
            times.append((without, _seconds(evaluate) - _seconds(functools.partial(evaluate, limit=few))))
        without, whole = np.median(times, 0)
        shares = np.median([1 - forward / evaluation for forward, evaluation in times], 0)
        value, of_processor = map(float, shares)
        figures[f"{name}_evaluation_outside_forward"] = round(value, 4)
        figures[f"{name}_evaluation_outside_forward_processor"] = round(of_processor, 4)
        measured = f"{images / whole[0]:.1f} images/s; without: {images / without[0]:.1f}"
        verdict = f"<= 0.2 {'[green]kept' if value <= 0.2 else '[red]not kept'}"
        what = f"{name}, evaluation of {images} images, share outside forward, by the clock and in processor time"
        table.add_row(what, measured, f"{value:.3f}, {of_processor:.3f}", verdict)


def _run_times(number: int, forward, batch) -> None:
    for _ in range(number):
        forward(batch).block_until_ready()


def _seconds(function) -> np.ndarray:
    """(2,) seconds of a call, by the clock and of the processor."""
    before = np.array([time.perf_counter(), time.process_time()])
    function()
    return np.array([time.perf_counter(), time.process_time()]) - before


def _promise(value: float, least: float) -> str:
    return f">= {least:g} {'[green]kept' if value >= least else '[red]not kept'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 images in place of 1,000, and few rounds")
    quick = parser.parse_args().quick
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}, {cpu_count()} cores, {cpu_count()} threads each")
    table = Table("what", "measured", "figure", "promised")
    figures: dict[str, float] = {}
    with console.status("measuring"):
        five_maps(console, table, figures, 3 if quick else 9)
        table.add_section()
        evaluation(table, figures, 200 if quick else 1000, 1 if quick else 3)
    console.print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
