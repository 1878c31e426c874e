"""`camjax explain` from the start of its process to the written figure, compared with pytorch-grad-cam.

    python -m benchmarks.explain_start [--rounds N]

prints a table for EfficientNet-Lite0 and for ResNet-50 with torchvision's random weights, both by the clock and in
processor time, and one JSON line of the ratios.

Each start is a process of its own: a cold one with an empty compilation cache, a warm one with the cache that the
cold one left, and `benchmarks.explain_with_torch`. What they share, files in the system's memory and Python's
compiled modules, is warm for all of them.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

from benchmarks.peers import import_torchvision, missing

CAMJAX = "camjax.cli.main"
TORCH = "benchmarks.explain_with_torch"

# Runs a module as `python -m` does, and writes what JAX tells its listeners: how many programs it made ready in all,
# and how many of these came from the persistent cache.
_COUNTED = """
import json, pathlib, runpy, sys
import jax
module, counts_file, *sys.argv[1:] = sys.argv[1:]
counts = {"programs": 0, "from_cache": 0}
def made_ready(event, seconds, **_):
    counts["programs"] += event == "/jax/core/compile/backend_compile_duration"
def happened(event, **_):
    counts["from_cache"] += event == "/jax/compilation_cache/cache_hits"
jax.monitoring.register_event_duration_secs_listener(made_ready)
jax.monitoring.register_event_listener(happened)
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    pathlib.Path(counts_file).write_text(json.dumps(counts))
"""


def start_times(rounds: int, with_torch: bool, resnet50: Path | None = None) -> dict[str, np.ndarray]:
    """Seconds from start to figure, in interleaved rounds.

    Args:
      rounds: number of starts of each.
      with_torch: whether pytorch-grad-cam is here to compare with.
      resnet50: weights of ResNet-50, to explain this in place of EfficientNet-Lite0.

    Returns:
      name -> (rounds, 2), by the clock and of the processor: "camjax, cold", "camjax, warm" and, with_torch,
      "pytorch-grad-cam".

    Raises:
      RuntimeError: a process failed; the message holds its stderr.
    """
    times = {name: [] for name in ("camjax, cold", "camjax, warm", *(["pytorch-grad-cam"] if with_torch else []))}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photo = _photo(folder)
        our_network = ["--model", "resnet50", "--weights", resnet50] if resnet50 else []
        their_network = ["--resnet50", resnet50] if resnet50 else []
        # Once without measuring, which reads the files of both from the disk.
        _run(["-m", CAMJAX, "explain", photo, *our_network, "--out", folder / "figure.png"], folder / "unmeasured")
        if with_torch:
            _run(["-m", TORCH, photo, *their_network, "--out", folder / "figure.png"], folder)
        for i in range(rounds):
            ours = ["-m", CAMJAX, "explain", photo, *our_network, "--out", folder / f"camjax{i}.png"]
            times["camjax, cold"].append(_run(ours, folder / f"cache{i}"))
            times["camjax, warm"].append(_run(ours, folder / f"cache{i}"))
            if with_torch:
                theirs = ["-m", TORCH, photo, *their_network, "--out", folder / f"torch{i}.png"]
                times["pytorch-grad-cam"].append(_run(theirs, folder))
    return {name: np.array(seconds) for name, seconds in times.items()}


def compiled_programs() -> tuple[int, int]:
    """The number of programs that XLA compiles at the first start of `camjax explain`, and at the second.

    Raises:
      RuntimeError: a process failed, or the first start compiled nothing, so that nothing was counted.
    """
    compiled = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        photo = _photo(folder)
        for i in range(2):
            counts_file = folder / f"counts{i}.json"
            arguments = ["explain", photo, "--out", folder / "figure.png"]
            _run(["-c", _COUNTED, CAMJAX, counts_file, *arguments], folder / "cache")
            counts = json.loads(counts_file.read_text())
            compiled.append(counts["programs"] - counts["from_cache"])
    if compiled[0] == 0:
        raise RuntimeError("The first start of `camjax explain` compiled nothing: JAX's events have other names now.")
    return compiled[0], compiled[1]


def _photo(folder: Path) -> Path:
    path = folder / "cat.png"
    Image.fromarray(data.chelsea()).save(path)
    return path


def _run(arguments: list, cache: Path) -> tuple[float, float]:
    """Seconds that a Python process with these arguments takes, by the clock and of the processor.

    Raises:
      RuntimeError: it fails.
    """
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode != 0:
        raise RuntimeError(f"`python {' '.join(map(str, arguments[:2]))} ...` failed:\n{result.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if reason := missing("torch", "torchvision", "efficientnet_lite_pytorch", "pytorch_grad_cam"):
        raise SystemExit(f"skipped: {reason}")
    from safetensors.torch import save_file

    table, figures = Table("from start to figure", "by the clock", "of the processor"), {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "resnet50.safetensors")
        save_file(import_torchvision().models.resnet50().state_dict(), weights)
        for network, path in (("EfficientNet-Lite0", None), ("ResNet-50", weights)):
            times = start_times(rounds, with_torch=True, resnet50=path)
            for name, seconds in times.items():
                table.add_row(f"{network}, {name}", *(f"{value:.1f} s" for value in np.median(seconds, 0)))
            for start in ("cold", "warm"):
                ratios = np.median(times["pytorch-grad-cam"] / times[f"camjax, {start}"], 0)
                table.add_row(f"{network}, ratio, {start}", *(f"{value:.2f}" for value in ratios))
                key = f"{network.lower().replace('-', '_')}_explain_{start}_vs_grad_cam"
                figures |= {key: round(float(ratios[0]), 3), f"{key}_processor": round(float(ratios[1]), 3)}
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
