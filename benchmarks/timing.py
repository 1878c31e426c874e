"""Timing several functions against each other on a machine that is never quite at rest."""

import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

# A turn this long, in seconds, is well above the clock's and the scheduler's grain.
TURN = 0.1

# Before each turn. The thread pools of the turn before spin for a while before they sleep, on the same cores.
PAUSE = 0.02


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds per call of each function, measured in turns: A B C, C B A, A B C, ...

    What slows the machine for a while slows all of them, so that ratios within a round are steadier than times.
    A function is called twice beforehand (compilation, caches), and in its turn as often as fits into `TURN`
    seconds, at least once. Each call is waited for: JAX arrays in the result are ready when it counts as done. A
    function that starts work elsewhere (on a GPU through PyTorch, say) has to wait for it by itself.

    Args:
      functions: by name; without arguments.
      rounds: number of turns that each gets.

    Returns:
      name -> (rounds,) mean seconds per call in that round.
    """
    calls = {}
    for name, function in functions.items():
        jax.block_until_ready(function())
        calls[name] = max(1, math.floor(TURN / max(_seconds(function, 1), 1e-6)))
    times = {name: np.zeros(rounds) for name in functions}
    names = list(functions)
    for i in range(rounds):
        for name in names if i % 2 == 0 else reversed(names):
            time.sleep(PAUSE)
            times[name][i] = _seconds(functions[name], calls[name]) / calls[name]
    return times


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """The median over rounds of one function's time over another's in the same round."""
    return float(np.median(numerator / denominator))


def cpu_name() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_count() -> int:
    """Number of cores that this process may use, which is the number of threads that XLA starts."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _seconds(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function())
    return time.perf_counter() - start
