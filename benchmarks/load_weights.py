"""The time to load ResNet-50 from a safetensors file, compared with torch and torchvision.

    python -m benchmarks.load_weights [--quick]

prints a table and, last, one JSON line of the figures. Each load is a process of its own, timed from its start to its
end, imports included: `camjax.load_model("resnet50", weights=FILE)` until every array is ready, and
`torchvision.models.resnet50()` filled from the same file by `safetensors.torch.load_file` and `load_state_dict`, ready
to classify. They take turns: A B, B A, A B, ...; the ratio is the median over the rounds of camjax's time over
PyTorch's. The file is in the system's cache and Python's modules are compiled for both.

PyTorch is also measured in a faster way that few use: the network is built without drawing the random weights that the
file overwrites.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.peers import import_torchvision, missing
from benchmarks.timing import cpu_count, cpu_name, ratio

PROMISE = 1.5

_CAMJAX = """
import sys
import jax
import camjax
jax.block_until_ready(camjax.load_model("resnet50", weights=sys.argv[1]))
"""

_TORCH = """
import sys
import torch
from safetensors.torch import load_file
from benchmarks.peers import import_torchvision
model = import_torchvision().models.resnet50()
model.load_state_dict(load_file(sys.argv[1]))
model.eval()
"""

_TORCH_EMPTY = """
import sys
import torch
from safetensors.torch import load_file
from benchmarks.peers import import_torchvision
torchvision = import_torchvision()
with torch.device("meta"):
    model = torchvision.models.resnet50()
model.load_state_dict(load_file(sys.argv[1]), assign=True)
model.eval()
"""

PROCESSES = {"camjax": _CAMJAX, "PyTorch": _TORCH, "PyTorch, built empty": _TORCH_EMPTY}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: half a minute instead of two")
    quick = parser.parse_args().quick
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{cpu_name()}, {cpu_count()} cores")
    if reason := missing("torch", "torchvision"):
        console.print(f"[yellow]skipped: {reason}")
        print(json.dumps({}))
        return
    with console.status("measuring"):
        times = load_times(rounds=3 if quick else 12)
    table = Table("what", "measured", "figure", "promised")
    figures = {}
    for name, seconds in times.items():
        table.add_row(f"ResNet-50 from safetensors, {name}", f"{np.median(seconds):.2f} s", "", "")
    for name, key in (("PyTorch", "load_resnet50_vs_torch"), ("PyTorch, built empty", "load_resnet50_vs_torch_empty")):
        value = ratio(times["camjax"], times[name])
        figures[key] = round(value, 4)
        promise = ""
        if name == "PyTorch":
            promise = f"<= {PROMISE} {'[green]kept' if value <= PROMISE else '[red]not kept'}"
        table.add_row("", f"camjax's time over that of {name}", f"{value:.3g}", promise)
    console.print(table)
    print(json.dumps(figures))


def load_times(rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each process, in interleaved rounds.

    Args:
      rounds: number of processes of each kind.

    Returns:
      name in `PROCESSES` -> (rounds,).

    Raises:
      RuntimeError: a process failed; the message holds its stderr.
    """
    times = {name: np.zeros(rounds) for name in PROCESSES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "resnet50.safetensors")
        _write_weights(path)
        for name in PROCESSES:  # once without measuring, which reads the files of both from the disk
            _run(name, path)
        for i in range(rounds):
            for name in PROCESSES if i % 2 == 0 else reversed(PROCESSES):
                times[name][i] = _run(name, path)
    return times


def _write_weights(path: Path) -> None:
    """ResNet-50 with the random weights that torchvision draws."""
    from safetensors.torch import save_file

    save_file(import_torchvision().models.resnet50().state_dict(), path)


def _run(name: str, path: Path) -> float:
    """Seconds that a Python process takes from its start to its end; raises RuntimeError if it fails."""
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", PROCESSES[name], str(path)], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if result.returncode != 0:
        raise RuntimeError(f"Loading by {name} failed:\n{result.stderr}")
    return seconds


if __name__ == "__main__":
    main()
