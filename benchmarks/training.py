"""What a training step costs beside PyTorch's, and what training spends outside of it.

    python -m benchmarks.training [--quick]

prints a table and, last, one JSON line. Each is measured in one run:

- The train step (forward, backward, SGD with Nesterov momentum and weight decay) of EfficientNet-Lite0 and ResNet-18,
  batch 32, 224 x 224, float32, against PyTorch's in its default layout, on the same images in memory. camjax's takes
  uint8 images and moves them to the device; PyTorch's gets them normalized. ResNet-18 is for comparison only: its cost
  is the 3x3 convolutions, which are XLA's library beside PyTorch's.
- The same step inside the whole loop of `camjax.training.fit`, fed by a source that costs nothing (`FakeImages`): the
  share of the loop's time that is not the bare step.
- Two thousand steps of a small network: the speed of the last quarter over that of the second, and the growth of the
  process's memory after the first hundred steps.

`benchmarks.input_pipeline` measures the input without a model.
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
from flax import nnx
from rich.console import Console
from rich.table import Table

import camjax
from benchmarks.cam_throughput import photographs
from benchmarks.peers import import_torchvision, missing
from benchmarks.timing import cpu_count, cpu_name, interleaved, ratio
from camjax.data.fake import FakeImages
from camjax.training import Recipe, TrainState, fit
from camjax.training.parallel import parallel_train_step, replicate

BATCH = 32
PROMISES = {"efficientnet_lite0_step_vs_torch": (">=", 1.0), "resnet18_loop_outside_step": ("<=", 0.03)}
RECIPE = Recipe(steps=1000, batch_size=BATCH, learning_rate=0.01)


def camjax_step(name: str, images: np.ndarray, labels: np.ndarray):
    """A function that takes one step and waits for its loss."""
    model = camjax.create_model(name, rngs=nnx.Rngs(0))
    step = parallel_train_step(RECIPE)
    state = [replicate(TrainState.create(model, RECIPE))]
    batch = {"image": images, "label": labels}

    def run():
        state[0], metrics = step(state[0], batch)
        return jax.block_until_ready(metrics["loss"])

    return run


def torch_step(network, images: np.ndarray, labels: np.ndarray, mean, std):
    """The same of PyTorch's network."""
    import torch

    network.train()
    optimizer = torch.optim.SGD(
        network.parameters(), RECIPE.learning_rate, momentum=0.9, nesterov=True, weight_decay=RECIPE.weight_decay
    )
    x = torch.from_numpy((images - np.float32(mean)) / np.float32(std)).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(labels.astype(np.int64))

    def run():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def steps_beside_torch(add, rounds: int) -> None:
    """The train step of two networks."""
    if reason := missing("torch", "torchvision", "efficientnet_lite_pytorch"):
        add("train steps", f"[yellow]skipped: {reason}")
        return
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    torch.set_num_threads(cpu_count())
    networks = {
        "efficientnet_lite0": lambda: EfficientNet.from_name("efficientnet-lite0"),
        "resnet18": lambda: import_torchvision().models.resnet18(),
    }
    images, labels = photographs(BATCH), np.arange(BATCH, dtype=np.int32)
    for name, build in networks.items():
        functions = {
            "camjax": camjax_step(name, images, labels),
            "PyTorch": torch_step(build(), images, labels, 127, 128),
        }
        times = interleaved(functions, rounds)
        measured = ", ".join(f"{who} {BATCH / np.median(seconds):.1f} images/s" for who, seconds in times.items())
        add(f"{name}, train step", measured, f"{name}_step_vs_torch", ratio(times["PyTorch"], times["camjax"]))


def loop_beside_step(add, steps: int) -> None:
    """What `fit` adds to the step of ResNet-18."""
    source = FakeImages(10 * BATCH, image_size=(224, 224))
    batch = [source[i] for i in range(BATCH)]
    images, labels = np.stack([e["image"] for e in batch]), np.array([e["label"] for e in batch], np.int32)
    run = camjax_step("resnet18", images, labels)
    bare = [_seconds_a_step(run, steps)]
    recipe = Recipe(steps=4 * steps, batch_size=BATCH, learning_rate=0.01)
    model = camjax.create_model("resnet18", rngs=nnx.Rngs(0))
    with tempfile.TemporaryDirectory() as folder:
        fit(model, source, recipe, run_dir=folder, log_every=steps, progress=False)
        lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    speeds = [line["train/images_per_second"] for line in lines if "train/images_per_second" in line]
    bare.append(_seconds_a_step(run, steps))
    loop = BATCH / float(np.median(speeds[1:]))  # the first holds the compilation
    measured = f"{loop:.3f} s a step; bare {bare[0]:.3f} s before and {bare[1]:.3f} s after"
    add(
        "ResNet-18, the loop of fit, share outside the step",
        measured,
        "resnet18_loop_outside_step",
        1 - np.mean(bare) / loop,
    )


def _seconds_a_step(run, steps: int) -> float:
    run()
    start = time.perf_counter()
    for _ in range(steps):
        run()
    return (time.perf_counter() - start) / steps


def long_run(add, steps: int) -> None:
    """Speed and memory over many steps of a small network."""
    from camjax.data.loader import train_batches

    source = FakeImages(512, num_classes=10, image_size=(32, 32), distinct=512)
    recipe = Recipe(steps=steps, batch_size=16, learning_rate=0.01)
    model = camjax.create_model("small_gap", 10, rngs=nnx.Rngs(0))
    step, state = parallel_train_step(recipe), replicate(TrainState.create(model, recipe))
    batches = train_batches(source, batch_size=16, seed=0)
    marks, memory = [], []
    for i in range(steps):
        state, metrics = step(state, next(batches))
        if (i + 1) % (steps // 20) == 0:
            jax.block_until_ready(metrics)
            marks.append(time.perf_counter())
            memory.append(_resident_megabytes())
    batches.close()
    seconds = np.diff(marks)
    quarters = np.median(seconds[4:9]), np.median(seconds[-5:])
    add(f"{steps} steps, speed at the end over before", "", "steps_flat", quarters[0] / quarters[1])
    growth = memory[-1] - memory[1]
    add(
        f"{steps} steps, growth of memory after {steps // 10}, MB",
        f"{memory[1]:.0f} MB then",
        "memory_growth_mb",
        growth,
    )


def _resident_megabytes() -> float:
    """Of this process; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), float("nan"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: three minutes instead of ten")
    quick = parser.parse_args().quick
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}, {cpu_count()} cores, {cpu_count()} threads each")
    table = Table("what", "measured", "figure", "promised")
    figures: dict[str, float] = {}
    add = functools.partial(_add, table, figures)
    with console.status("measuring"):
        steps_beside_torch(add, 3 if quick else 7)
        loop_beside_step(add, 3 if quick else 10)
        long_run(add, 400 if quick else 2000)
    console.print(table)
    print(json.dumps(figures))


def _add(table: Table, figures: dict, what: str, measured: str, key: str = "", value: float = 0.0) -> None:
    """A row and, with a key, a figure."""
    verdict = ""
    if key in PROMISES:
        relation, bound = PROMISES[key]
        kept = value >= bound if relation == ">=" else value <= bound
        verdict = f"{relation} {bound:g} {'[green]kept' if kept else '[red]not kept'}"
    table.add_row(what, measured, f"{value:.3g}" if key else "", verdict)
    if key:
        figures[key] = round(value, 4)


if __name__ == "__main__":
    main()
