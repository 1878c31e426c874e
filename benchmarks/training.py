"""Measures a training step against PyTorch's, and the time that training spends outside its steps.

    python -m benchmarks.training [--quick] [--only wsol]

prints a table and then one JSON line. One run measures:

- The train step (forward, backward, SGD with Nesterov momentum and weight decay) of EfficientNet-Lite0 and ResNet-18,
  batch 32, 224 x 224, float32, against PyTorch's in its default layout, on the same images in memory. camjax takes
  uint8 images and moves them to the device; PyTorch gets normalized images. ResNet-18 is for comparison only: most of
  its time goes into 3x3 convolutions, where XLA's library is compared with PyTorch's.
- The whole loop of `camjax.training.fit` on images in memory (`FakeImages`): the share of its time spent outside the
  compiled step, for both networks and for a small one with short steps.
- The train step of ResNet-18 with a method for weakly supervised localization (HaS, CutMix, ADL) against the plain one,
  batch 8, in processor time; one thread with `XLA_FLAGS=--xla_cpu_multi_thread_eigen=false` and
  `taskset --cpu-list 0`. `--only wsol` measures this alone.
- Two thousand steps of `fit` on a small network, without the first hundred: the ratio of the last quarter's speed to
  the first's, and the growth of the process's memory.

`benchmarks.input_pipeline` measures the input without a model.
"""

import argparse
import functools
import json
import sys
import tempfile
import threading
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
from camjax.training.logs import metric_curve, read_metrics
from camjax.training.parallel import parallel_train_step, put_batch, replicate

BATCH = 32
WARM_UP = 100
"""Steps of a long run before its speed and memory are measured."""

PROMISES = {
    "efficientnet_lite0_step_vs_torch": (">=", 1.0),
    "resnet18_loop_outside_step": ("<=", 0.03),
    "efficientnet_lite0_loop_outside_step": ("<=", 0.1),
    "small_gap_loop_outside_step": ("<=", 0.1),
    **{f"{method}_step_vs_plain": ("<=", 1.05) for method in ("has", "cutmix", "adl")},
}
RECIPE = Recipe(steps=1000, batch_size=BATCH, learning_rate=0.01)


def camjax_step(name: str, images: np.ndarray, labels: np.ndarray, wsol: str = "cam"):
    """Returns a function that takes one step and waits for its loss."""
    model = camjax.create_model(name, rngs=nnx.Rngs(0), wsol=wsol)
    step = parallel_train_step(RECIPE)
    state = [replicate(TrainState.create(model, RECIPE))]
    batch = {"image": images, "label": labels}

    def run():
        state[0], metrics = step(state[0], batch)
        return jax.block_until_ready(metrics["loss"])

    return run


def torch_step(network, images: np.ndarray, labels: np.ndarray, mean, std):
    """Returns the same for a network of PyTorch."""
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


def steps_of_methods(add, rounds: int) -> None:
    """The train step with methods that change images or layers, against the plain one, in processor time."""
    images, labels = photographs(8), np.arange(8, dtype=np.int32)
    methods = ("cam", "has", "cutmix", "adl")
    steps = {method: camjax_step("resnet18", images, labels, method) for method in methods}
    times: dict[str, list[float]] = {method: [] for method in methods}
    for step in steps.values():
        step()
    for i in range(rounds):
        for method in methods if i % 2 == 0 else methods[::-1]:
            start = time.process_time()
            steps[method]()
            times[method].append(time.process_time() - start)
    plain = np.array(times["cam"])
    for method in methods[1:]:
        seconds = np.array(times[method])
        measured = f"{np.median(seconds):.3f} s, plain {np.median(plain):.3f} s of processor time"
        add(f"ResNet-18, train step with {method}", measured, f"{method}_step_vs_plain", ratio(seconds, plain))


def loop_beside_step(add, name: str, label: str, batch_size: int, steps: int, rounds: int) -> None:
    """Measures the time that `fit` spends outside the compiled step, on images of the right size in memory.

    Turns of `fit` alternate with turns of the bare step, which repeats the compiled step on a batch that is on the
    device. A round is one turn of `fit` between two of the bare step. The figure is the median over rounds of the share
    of the loop's time outside the step: input, transfer, dispatch, metrics and logs, as far as the devices wait for
    them or, on a CPU, share their cores with them.

    Args:
      add: takes the row.
      name: of the network.
      label: of the network, for the row.
      batch_size: images per step.
      steps: in a turn of the bare step, and between two lines of the log, which has the speed of the loop; a turn of
        `fit` has three times as many, and its first third, with the start, is left out.
      rounds: number of rounds.
    """
    model = camjax.create_model(name, rngs=nnx.Rngs(0))
    source = FakeImages(10 * batch_size, num_classes=model.head.num_classes, image_size=model.input_size)
    batch = [source[i] for i in range(batch_size)]
    images, labels = np.stack([e["image"] for e in batch]), np.array([e["label"] for e in batch], np.int32)
    recipe = Recipe(steps=3 * steps, batch_size=batch_size, learning_rate=0.01)
    step, state = parallel_train_step(recipe), replicate(TrainState.create(model, recipe))
    on_device = put_batch({"image": images, "label": labels})

    def bare() -> float:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, on_device))  # compilation, and caches after something else
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, on_device)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / steps

    def loop() -> float:
        with tempfile.TemporaryDirectory() as folder:
            fit(model, source, recipe, run_dir=folder, log_every=steps, progress=False)
            speeds = _speeds(Path(folder))
        return float(np.mean(batch_size / np.array(speeds[1:])))

    turns = [bare()] + [turn() for _ in range(rounds) for turn in (loop, bare)]
    steps_alone, loops = np.array(turns[::2]), np.array(turns[1::2])
    shares = 1 - (steps_alone[:-1] + steps_alone[1:]) / 2 / loops
    add(
        f"{label}, the loop of fit on ready data, share outside the step",
        f"{np.median(loops):.4f} s a step, bare {np.median(steps_alone):.4f} s; rounds from {shares.min():.3f} to "
        f"{shares.max():.3f}",
        f"{name}_loop_outside_step",
        float(np.median(shares)),
    )


def _speeds(run_dir: Path) -> list[float]:
    """Images per second between two lines of a run's log."""
    return metric_curve(read_metrics(run_dir), "train/images_per_second")[1]


class _Watched(FakeImages):
    """Records the memory of the process each time `every` more examples have been read."""

    def __init__(self, *args, every: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.memory: list[float] = []
        self._every, self._reads, self._lock = every, 0, threading.Lock()

    def __getitem__(self, index: int) -> dict:
        with self._lock:
            self._reads += 1
            if self._reads % self._every == 0:
                self.memory.append(_resident_megabytes())
        return super().__getitem__(index)


def long_run(add, steps: int) -> None:
    """Speed and memory of `fit` over many steps of a small network, from the hundredth step on."""
    batch_size, every = 8, 20
    model = camjax.create_model("small_gap", 10, rngs=nnx.Rngs(0))
    source = _Watched(512, num_classes=10, image_size=model.input_size, distinct=512, every=every * batch_size)
    recipe = Recipe(steps=steps, batch_size=batch_size, learning_rate=0.01)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, source, recipe, run_dir=folder, log_every=every, progress=False)
        speeds = _speeds(Path(folder))[WARM_UP // every :]
    quarter = len(speeds) // 4
    first, last = np.median(speeds[:quarter]) / batch_size, np.median(speeds[-quarter:]) / batch_size
    add(
        f"{steps} steps of fit after the first {WARM_UP}, speed of the last quarter over the first",
        f"{first:.1f} and {last:.1f} steps/s",
        "steps_flat",
        last / first,
    )
    # Reading is a few batches ahead of the steps, which does not matter over the hundreds between these two.
    before, after = source.memory[WARM_UP // every - 1], source.memory[-1]
    add(
        f"{steps} steps of fit, growth of memory after the first {WARM_UP}, MB",
        f"{before:.0f} and {after:.0f} MB",
        "memory_growth_mb",
        after - before,
    )


def _resident_megabytes() -> float:
    """The memory of this process; NaN if the system does not report it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), float("nan"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: a third of the time")
    parser.add_argument("--only", choices=["wsol"], help="measure only this")
    options = parser.parse_args()
    quick = options.quick
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}, {cpu_count()} cores, {cpu_count()} threads each")
    table = Table("what", "measured", "figure", "promised")
    figures: dict[str, float] = {}
    add = functools.partial(_add, table, figures)
    rounds = 1 if quick else 3
    with console.status("measuring"), tempfile.TemporaryDirectory() as cache:
        # Each call of fit compiles its step, for half a minute or more; with a cache, each step compiles only once.
        jax.config.update("jax_compilation_cache_dir", cache)
        steps_of_methods(add, 5 if quick else 15)
        if options.only:
            console.print(table)
            print(json.dumps(figures))
            return
        steps_beside_torch(add, 3 if quick else 7)
        loop_beside_step(add, "small_gap", "Small network", 16, 20 if quick else 50, 2 * rounds)
        long_run(add, 500 if quick else 2100)
        loop_beside_step(add, "efficientnet_lite0", "EfficientNet-Lite0", BATCH, 2, rounds)
        loop_beside_step(add, "resnet18", "ResNet-18", BATCH, 2, rounds)
    console.print(table)
    print(json.dumps(figures))


def _add(table: Table, figures: dict, what: str, measured: str, key: str = "", value: float = 0.0) -> None:
    """Adds a row and, with a key, a figure; prints it at once, too, because the whole takes many minutes."""
    print(f"{what}: {measured}", file=sys.stderr)
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
