"""The cost of pooled features and of linear classifiers on them: speed next to `cam_fn`, and memory.

    python -m benchmarks.generic_features [--quick]

prints a table and, last, one JSON line of the figures.

- Speed: `extract_features` of EfficientNet-Lite0, from decoded images of the network's size to shards on disk, next to
  the bare function of `make_cam_fn` on the same images in the same batches of 32. They take turns
  (`benchmarks.timing`); the figure is the median over the rounds of cam_fn's time divided by the extraction's.
- Memory of the extraction of some images, and of four times as many, each in its own process: the peak after the
  network was compiled and has seen a few images, and how much of it was added since then.
- Support vector machines: `fit_linear_svm` on 100,000 x 1,024 made-up float32 features of a few overlapping classes,
  with the penalty chosen by cross-validation, in its own process, whose peak memory counts everything: Python,
  libraries and the features (0.41 GB) as well.

Memory is read from Linux's /proc; on other systems these figures are left out. Run it on an idle machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import camjax
from benchmarks.timing import cpu_count, cpu_name, interleaved, ratio
from camjax.data.fake import FakeImages
from camjax.features import extract_features

BATCH = 32
SHARD = 256
SPEED, GROWTH, GIGABYTES = 0.9, 1.1, 4.0
EXAMPLES, CHANNELS = 100_000, 1024

_MEMORY = """
from pathlib import Path

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
"""

_EXTRACT = """
import sys, tempfile
import camjax
from camjax.data.fake import FakeImages
from camjax.features import extract_features

batch, shard, images = map(int, sys.argv[1:])
model = camjax.load_model("efficientnet_lite0")

def extract(images):
    with tempfile.TemporaryDirectory() as folder:
        source = FakeImages(images, image_size=model.input_size)
        extract_features(model, source, folder, batch_size=batch, shard_size=shard)

extract(4 * batch)
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
extract(images)
print(memory("VmHWM") - before, memory("VmHWM"))
"""

_FIT = """
import sys, time
import numpy as np
from camjax.features.svm import fit_linear_svm

examples, channels, classes = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
labels = np.arange(examples) % classes
features = rng.standard_normal((examples, channels), np.float32)
features += 0.1 * rng.standard_normal((classes, channels), np.float32)[labels]
start = time.perf_counter()
svm = fit_linear_svm(features, labels, classes)
print(memory("VmHWM"), time.perf_counter() - start, max(svm.cross_validation.values()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds and images, two classes: minutes")
    quick = parser.parse_args().quick
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}, {cpu_count()} cores; JAX {jax.__version__} on {jax.devices()[0].device_kind}")
    table, figures = Table("what", "measured", "figure", "promised"), {}
    with console.status("measuring the speed"):
        speed(table, figures, images=640 if quick else 1920, rounds=3 if quick else 8)
    if not Path("/proc/self/clear_refs").exists():
        table.add_row("Memory", "[yellow]skipped: it is read from Linux's /proc", "", "")
    else:
        with console.status("measuring the memory of the extraction"):
            extraction_memory(table, figures, images=512 if quick else 2048)
        with console.status("fitting support vector machines"):
            fitting(table, figures, classes=2 if quick else 5)
    console.print(table)
    print(json.dumps(figures))


def speed(table: Table, figures: dict[str, float], *, images: int, rounds: int) -> None:
    """Images/s of the extraction and of the bare `cam_fn`."""
    model = camjax.load_model("efficientnet_lite0")
    source = FakeImages(images, image_size=model.input_size)
    batches = [np.stack([source[i]["image"] for i in range(start, start + BATCH)]) for start in range(0, images, BATCH)]
    cam_fn = camjax.make_cam_fn(model)

    def extract() -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract_features(model, source, folder, batch_size=BATCH, shard_size=SHARD)

    times = interleaved({"cam_fn": lambda: [cam_fn(batch) for batch in batches], "extract": extract}, rounds)
    value = ratio(times["cam_fn"], times["extract"])
    for name, what in (("extract", "extract_features"), ("cam_fn", "make_cam_fn")):
        measured = f"{what} {images / np.median(times[name]):.1f} images/s"
        table.add_row("EfficientNet-Lite0, batch 32" if name == "extract" else "", measured, "", "")
    add(table, figures, "", "speed of the extraction over that of cam_fn", "extract_vs_cam_fn", value, (">=", SPEED))
    table.add_section()


def extraction_memory(table: Table, figures: dict[str, float], *, images: int) -> None:
    """Peak memory of the extraction of some images and of four times as many."""
    peaks = []
    for count in (images, 4 * images):
        rise, peak = run_child(_EXTRACT, BATCH, SHARD, count)
        peaks.append(peak)
        table.add_row(
            f"extract_features, {count} images", f"{peak / 1e6:.0f} MB, {rise / 1e6:.0f} MB of it new", "", ""
        )
    value = peaks[1] / peaks[0]
    add(table, figures, "", "four times the images", "extract_memory_growth", value, ("<=", GROWTH))
    table.add_section()


def fitting(table: Table, figures: dict[str, float], *, classes: int) -> None:
    """Peak memory and seconds of support vector machines on many features."""
    peak, seconds, accuracy = run_child(_FIT, EXAMPLES, CHANNELS, classes)
    what = f"fit_linear_svm, {EXAMPLES:,} x {CHANNELS:,}, {classes} classes"
    table.add_row(what, f"{seconds:.0f} s, accuracy {accuracy:.1%} in cross-validation", "", "")
    figures["svm_seconds"] = round(seconds, 1)
    add(table, figures, "", "peak memory of the process, GB", "svm_peak_gb", peak / 1e9, ("<=", GIGABYTES))


def run_child(code: str, *arguments: int) -> list[float]:
    """The numbers that a Python process of its own prints last; raises RuntimeError if it fails."""
    result = subprocess.run(
        [sys.executable, "-c", _MEMORY + code, *map(str, arguments)], capture_output=True, text=True
    )
    if result.returncode != 0:
        raise RuntimeError(f"The process failed:\n{result.stderr}")
    return [float(number) for number in result.stdout.splitlines()[-1].split()]


def add(table: Table, figures: dict, what: str, measured: str, key: str, value: float, promise: tuple[str, float]):
    """Adds a row with a figure and whether it is what is promised: (">=" or "<=", bound)."""
    kept = value >= promise[1] if promise[0] == ">=" else value <= promise[1]
    verdict = f"{promise[0]} {promise[1]:g} {'[green]kept' if kept else '[red]not kept'}"
    table.add_row(what, measured, f"{value:.3g}", verdict)
    figures[key] = round(value, 4)


if __name__ == "__main__":
    main()
