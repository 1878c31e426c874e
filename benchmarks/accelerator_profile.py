"""A trace of `jax.profiler` as lines: which kernels the device's time goes into, and what each of them computes."""

import collections
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax

from benchmarks.accelerator_report import Report

CALLS = 5
SHOWN = 16

KINDS = {
    "moves between layouts": r"nchwto|nhwcto|transpose",
    "convolutions and products": r"conv|gemm|xmma|cutlass|cudnn|wgrad|dgrad|fprop|nvjet|sm\d\d_|dot|implicit",
    "copies": r"memcpy|memset|copy",
    "reductions": r"reduce",
    "other fusions": r"fusion|wrapped",
}


def print_kernels(report: Report, what: str, run: Callable[[], object]) -> None:
    """Prints the kernels of some calls by their share of the device's time, first by kind, then one by one."""
    jax.block_until_ready((run(), run()))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                out = run()
            jax.block_until_ready(out)
        events = [event for path in Path(folder).rglob("*.xplane.pb") for event in events_of(path)]
    if not events:
        return report.line(f"profile of {what}", "the trace has no kernels: the profiler may not be allowed here")
    times: collections.Counter = collections.Counter()
    counts: collections.Counter = collections.Counter()
    kinds: collections.Counter = collections.Counter()
    for name, nanoseconds in events:
        times[name] += nanoseconds
        counts[name] += 1
        kinds[_kind(name)] += nanoseconds
    total = sum(times.values())
    report.line(
        f"profile of {what}",
        f"{total / CALLS / 1e6:.3f} ms of kernels a call; "
        + ", ".join(f"{kind} {share / total:.1%}" for kind, share in kinds.most_common()),
        **{kind: share / total for kind, share in kinds.items()},
    )
    computes = instructions({*times})
    for name, nanoseconds in times.most_common(SHOWN):
        report.line(
            f"  {nanoseconds / total:6.1%} {nanoseconds / CALLS / 1e6:8.3f} ms x{counts[name] / CALLS:<5.3g}",
            " | ".join([name[:100], *_short(*computes[name])] if name in computes else [name[:100]]),
        )
    return None


def events_of(path: Path) -> list[tuple[str, float]]:
    """Name and nanoseconds of each kernel: on a GPU, what its streams ran; on a CPU, what has an HLO operation."""
    found = []
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        on_device = plane.name.startswith("/device:")
        for line in plane.lines:
            if on_device and not line.name.startswith("Stream"):
                continue  # summaries of the same
            for event in line.events:
                if on_device or "hlo_op" in dict(event.stats):
                    found.append((event.name, event.duration_ns))
    return found


def _kind(name: str) -> str:
    return next((kind for kind, words in KINDS.items() if re.search(words, name.lower())), "other")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _short(shape: str, place: str) -> tuple[str, str]:
    return shape[:60], place[-90:]


def instructions(kernels: set[str]) -> dict[str, tuple[str, str]]:
    """Kernels' names -> the shape and the place in the model of the instruction of that name, where there is one.

    XLA does not say the place of all. The program is the one with the most instructions of these names: others have
    some, too.
    """
    programs = []
    for executable in jax.devices()[0].client.live_executables():
        for module in executable.hlo_modules():
            found = _INSTRUCTION.findall(module.to_string())
            programs.append({_plain(name): (shape, place) for name, shape, place in found})
    names = {name: _plain(name) for name in kernels}
    program = max(programs, key=lambda program: len({*names.values()} & program.keys()), default={})
    return {name: program[plain] for name, plain in names.items() if plain in program}


_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (\S+) .*?(?:op_name="([^"]*)".*)?$', re.MULTILINE)
