"""The cost of `camjax annotate`: its speed against `make_cam_fn`, and its memory over many pictures.

    python -m benchmarks.annotate [--quick] [--network NAME ...]

prints a table and, last, one JSON line of the figures:

- Pictures a second of `annotate_folder` over JPEG files of 500 x 375 pixels on disk, boxes and all files included,
  divided by those of `make_cam_fn` fed from as many decoded arrays, in batches of the same size. They take turns, and
  each counts from its second batch on, since the first one compiles. Also the ratio of processor time, which other load
  on the machine hardly changes: where a CPU is also the device, reading takes time from the network.
- The same from pictures of the network's own size, which show what boxes and files cost where reading costs little.
- The most memory that a process has while it annotates 10,000 small pictures, divided by that with 1,000.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import camjax
from benchmarks.input_pipeline import photographs
from benchmarks.timing import cpu_count, cpu_name
from camjax.annotating import Options, annotate_folder
from camjax.data.decoding import decode_image
from camjax.data.images import resize_image

BATCH = 32
SPEED, MEMORY = 0.9, 1.05
FEW, MANY = 1000, 10_000

_MEMORY_PROGRAM = r"""
import re, sys
from pathlib import Path
from flax import nnx
import camjax
from camjax.annotating import Options, annotate_folder

model = camjax.create_model("small_gap", 10, rngs=nnx.Rngs(0))
model.eval()
annotate_folder(model, sys.argv[1], sys.argv[2], Options())
# Not `ru_maxrss`, which the process that started this one passes on.
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def write_pictures(folder: Path, jpegs: list[bytes], number: int) -> Path:
    """Writes pictures, again and again the same."""
    folder.mkdir()
    for i in range(number):
        (folder / f"{i:06}.jpg").write_bytes(jpegs[i % len(jpegs)])
    return folder


class Cost(NamedTuple):
    """Seconds for each picture: of the clock, and of processors."""

    clock: float
    processors: float


def now() -> np.ndarray:
    """The two clocks of `Cost`."""
    return np.array([time.perf_counter(), time.process_time()])


def annotate_cost(model, pictures: Path, workers: int) -> Cost:
    """Of `annotate_folder`, from the second batch on."""
    moments = []
    with tempfile.TemporaryDirectory() as out:
        manifest = annotate_folder(
            model,
            pictures,
            Path(out, "out"),
            Options(batch_size=BATCH),
            num_workers=workers,
            progress=lambda done, total: moments.append((done, now())),
        )
        end = now()
    done, start = next((done, moment) for done, moment in moments if done >= BATCH)
    return Cost(*(end - start) / (manifest["pictures"] - done))


def cam_cost(cam_fn, batches: list[np.ndarray], number: int) -> Cost:
    """Of a function by `make_cam_fn` over decoded arrays, one batch ahead of the one that is waited for."""
    count, waiting = number // BATCH - 1, cam_fn(batches[0])
    start = now()
    for i in range(count):
        out = cam_fn(jax.device_put(batches[i % len(batches)]))
        jax.device_get(waiting)
        waiting = out
    jax.device_get(waiting)
    return Cost(*(now() - start) / (count * BATCH))


def speed(table: Table, figures: dict, folder: Path, names: list[str], number: int, rounds: int, workers: int) -> None:
    """`annotate_folder` compared with `make_cam_fn`."""
    jpegs = photographs()
    pixels = [decode_image(jpeg, apply_exif=False) for jpeg in jpegs]
    files = write_pictures(folder / "photographs", jpegs, number)
    for name in names:
        model = camjax.load_model(name) if name.startswith("efficientnet") else camjax.create_model(name)
        model.eval()
        small = [resize_image(image, model.input_size) for image in pixels]
        encoded = [cv2.imencode(".jpg", image[..., ::-1])[1].tobytes() for image in small]
        own_size = write_pictures(folder / f"{name}-pictures", encoded, number)
        batches = [np.stack([small[(BATCH * b + i) % len(small)] for i in range(BATCH)]) for b in range(4)]
        cam_fn = camjax.make_cam_fn(model)
        jax.block_until_ready(cam_fn(batches[0]))
        functions = {
            "cam_fn": lambda cam_fn=cam_fn, batches=batches: cam_cost(cam_fn, batches, number),
            "photographs": lambda model=model: annotate_cost(model, files, workers),
            "own_size": lambda model=model, own_size=own_size: annotate_cost(model, own_size, workers),
        }
        costs: dict[str, list[Cost]] = {key: [] for key in functions}
        for turn in range(rounds):
            for key in functions if turn % 2 == 0 else reversed(functions):
                costs[key].append(functions[key]())
        cam = np.array(costs.pop("cam_fn"))
        for key, of_turns in costs.items():
            clock, processors = np.median(cam / of_turns, axis=0)
            figures[f"{name}_{key}_vs_cam_fn"] = round(float(clock), 4)
            figures[f"{name}_{key}_vs_cam_fn_processors"] = round(float(processors), 4)
            measured = "{:.1f} against {:.1f} pictures/s".format(*(1 / np.median(c, 0)[0] for c in (of_turns, cam)))
            table.add_row(f"{name}, {key}", measured, f"{clock:.3f}", _promise(clock >= SPEED, f">= {SPEED}"))
            table.add_row("", "the same in processor time", f"{processors:.3f}", "")


def most_memory(folder: Path, number: int, repeats: int = 3) -> int:
    """The most memory in kB of a process that annotates a number of small pictures: the least of some processes.

    Others need some percent more, by the moments at which threads ask for memory while programs are compiled.
    """
    random = np.random.default_rng(0)
    jpegs = [cv2.imencode(".jpg", random.integers(0, 256, (48, 64, 3), np.uint8))[1].tobytes() for _ in range(50)]
    pictures = write_pictures(folder / f"{number}", jpegs, number)
    most = []
    for i in range(repeats):
        command = [sys.executable, "-c", _MEMORY_PROGRAM, str(pictures), str(folder / f"out{number}-{i}")]
        most.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return min(most)


def memory(table: Table, figures: dict, folder: Path) -> None:
    """The most memory with few and with many pictures, each in a process of its own."""
    few, many = (most_memory(folder, number) for number in (FEW, MANY))
    value = many / few
    figures["annotate_memory_10000_vs_1000"] = round(value, 4)
    measured = f"{few / 1024:.0f} MB with {FEW}, {many / 1024:.0f} MB with {MANY} pictures"
    table.add_row("most memory", measured, f"{value:.3f}", _promise(value <= MEMORY, f"<= {MEMORY}"))


def _promise(kept: bool, text: str) -> str:
    return f"{text} {'[green]kept' if kept else '[red]not kept'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer pictures and rounds")
    parser.add_argument("--network", nargs="+", default=["resnet50", "efficientnet_lite0"], metavar="NAME")
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}, {cpu_count()} cores; {jax.devices()[0].device_kind}")
    table = Table("what", "measured", "figure", "promised")
    figures: dict[str, float] = {}
    number, rounds = (160, 1) if arguments.quick else (640, 5)
    with tempfile.TemporaryDirectory() as folder, console.status("measuring"):
        speed(table, figures, Path(folder), arguments.network, number, rounds, arguments.workers)
        memory(table, figures, Path(folder))
    console.print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
