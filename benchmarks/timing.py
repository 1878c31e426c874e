"""Times several functions against each other on a machine that is never quite idle."""

import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

# In seconds: well above the resolution of the clock and the scheduler.
TURN = 0.1

# In seconds, before each turn, because the thread pools of the turn before keep spinning on the same cores for a while.
PAUSE = 0.02


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds per call of each function, measured in turns: A B C, C B A, A B C, ...

    Other load slows all functions alike, so that ratios within a round vary less than times. A function is called twice
    beforehand (compilation, caches), and in its turn as often as fits into `TURN` seconds, at least once. A call ends
    when all JAX arrays in its result are ready. A function that starts work elsewhere, as on a GPU through PyTorch, has
    to wait for it itself.

    Args:
      functions: by name; called without arguments.
      rounds: number of turns of each function.

    Returns:
      name -> (rounds,) mean seconds per call in each round.
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
    """The median over rounds of the ratio of one function's time to another's in the same round."""
    return float(np.median(numerator / denominator))


def cpu_name() -> str:
    """The processor's model name, or its architecture if the system does not report the name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cpu_count() -> int:
    """The number of cores that this process may use; XLA starts as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _seconds(function: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function())
    return time.perf_counter() - start
