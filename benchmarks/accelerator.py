"""Everything worth knowing about camjax on one NVIDIA GPU, in one run of a few minutes.

    python -m benchmarks.accelerator --minutes 8 [--sections cam,train] [--out FILE]
    python -m benchmarks.accelerator --dry-run

The machine needs JAX for the GPU, flax, optax, orbax-checkpoint, OpenCV and PyTorch for the GPU with torchvision; no
network, and none of camjax's other dependencies. With timm, EfficientNet-Lite0 is compared, too; with pytorch-grad-cam,
its maps; with Grain, `fit` also reads single examples. What is missing is named.

Each figure is a line of its own as soon as it is there, the most important first, and a line of JSON in the file that
`--out` names. The ratios come again at the end. Sections that the minutes have no room for are named. A section that
fails, crashes or takes too long does not stop those after it.

- A RATIO is the other's time over camjax's: above 1, camjax is faster. It is the median over rounds in which both take
  turns. "In flight" means that ten calls are started before the last one is waited for: the time of the device alone,
  where that is longer than starting a call takes. Otherwise each call is waited for.
- Both sides compute the same from the same weights, from uint8 images that are on the device, which they normalize. The
  differences of their results are in the line. PyTorch runs through `torch.compile` in channels_last: for maps with
  mode="reduce-overhead" (CUDA graphs), for training with the default mode and a fused optimizer.
- float32 is what both do by default on a GPU: convolutions may round to TF32; heads and maps do not.
- bfloat16 means convolutions in bfloat16. In training, weights are kept in float32 on both sides.
- The share of the peak counts the operations of the network alone, three times those of a forward pass.

`--dry-run` runs every section tiny, on the CPU.
"""

import argparse
import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.accelerator_report import Report

MARK = "@section "
START = 150  # seconds in which a worker has to begin its first section
NAMES = (
    *("environment", "peak", "cam", "localize", "components", "train", "lite0", "lite0_train"),
    *("fit", "profile", "convolutions", "variants"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="for everything; default: 8")
    parser.add_argument("--sections", default=",".join(NAMES), help="names with commas; default: all of them, in order")
    parser.add_argument("--out", type=Path, help="a file to which each figure is added as a line of JSON")
    parser.add_argument("--dry-run", action="store_true", help="every section tiny, on the CPU")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.sections.split(",")
    if unknown := set(names) - set(NAMES):
        parser.error(f"--sections: no section {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    deadline = time.monotonic() + 60 * arguments.minutes
    if arguments.worker:
        return work(names, deadline, arguments)
    ratios: list[str] = []
    try:
        return supervise(names, deadline, arguments, ratios)
    finally:
        print("", *ratios, sep="\n", flush=True)


def work(names: list[str], deadline: float, arguments: argparse.Namespace) -> None:
    """Runs sections one after the other; lines that begin with `MARK` tell the supervisor where it is."""
    from benchmarks.accelerator_sections import FULL, SECTIONS, guarded, jax, tiny

    if jax.default_backend() == "cpu" and not arguments.dry_run:
        raise SystemExit("JAX sees no accelerator. To try the script on a CPU: --dry-run")
    for name in names:
        run, least, most = SECTIONS[name]
        left = deadline - time.monotonic()
        if arguments.dry_run:
            least, most = 0, left
        report = Report(arguments.out, time.monotonic() + min(left, most), name)
        if left < least:
            report.line(name, f"left out: it takes about {least} s, and {max(0, left):.0f} s are left")
            continue
        print(f"{MARK}{name} {min(left, most) + 10}", flush=True)
        start = time.monotonic()
        guarded(report, name, lambda: run(report, tiny(name) if arguments.dry_run else FULL))  # noqa: B023
        report.line(f"section {name}", f"{time.monotonic() - start:.0f} s")
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def supervise(names: list[str], deadline: float, arguments: argparse.Namespace, ratios: list[str]) -> None:
    """Has sections run in a process of their own; starts another one where it hangs or dies. Collects the ratios."""
    report = Report(arguments.out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worker ends, too
    while names:
        if (left := deadline - time.monotonic()) < 5:
            report.line(", ".join(names), "left out: the time is over")
            return
        command = [sys.executable, "-m", "benchmarks.accelerator", "--worker", "--sections", ",".join(names)]
        command += ["--minutes", str(left / 60)]
        command += ["--dry-run"] if arguments.dry_run else []
        command += ["--out", str(arguments.out)] if arguments.out else []
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, errors="replace", env=_environment(arguments.dry_run),
            start_new_session=True,
        )  # fmt: skip
        try:
            running, code = _follow(worker, min(START, left), ratios)
        finally:
            _end(worker)
        if code == 0:
            return
        if running is None:
            raise SystemExit(f"the measuring process ended before its first section ({code}).")
        report.section = running
        report.line(running, f"FAILED: {'it took too long' if code is None else f'its process ended with {code}'}")
        names = names[names.index(running) + 1 :]


def _environment(dry_run: bool) -> dict[str, str]:
    """The worker's: memory for both libraries, and what is compiled kept for the next run on the same machine."""
    kept = Path(tempfile.gettempdir(), "camjax-accelerator")
    own = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.55", "JAX_COMPILATION_CACHE_DIR": str(kept), "PYTHONUNBUFFERED": "1"}
    if dry_run:
        own = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return own | dict(os.environ) | ({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""} if dry_run else {})


def _follow(worker: subprocess.Popen, seconds: float, ratios: list[str]) -> tuple[str | None, int | None]:
    """Prints a worker's lines until it ends or its section is over time: the last section, the exit code or None.

    Args:
      worker: prints `MARK`, a section's name and the seconds that it may take, and then its figures.
      seconds: until the first section.
      ratios: gets the ratios, each with what it is of.
    """
    lines: queue.Queue[str | None] = queue.Queue()

    def read():
        for line in worker.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    running, until = None, time.monotonic() + seconds
    while True:
        try:
            line = lines.get(timeout=max(0, until - time.monotonic()))
        except queue.Empty:
            return running, None
        if line is None:
            return running, worker.wait()
        if line.startswith(MARK):
            running, allowed = line.removeprefix(MARK).split()
            until = time.monotonic() + float(allowed)
        else:
            print(line, end="", flush=True)
            if "RATIO" in line:
                ratios.append(line.partition(";")[0])


def _end(worker: subprocess.Popen) -> None:
    """Ends a worker with the processes that it started, such as PyTorch's compilers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


if __name__ == "__main__":
    main()
