"""Small changes to valid files, for readers that must either read the result or refuse it."""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from camjax.weights.errors import WeightsError

SOON = 10
"""Seconds of the processor within which a damaged file has to be refused: the bound is there against reading forever,
on whatever machine, and says nothing of speed."""


def mutated(data: bytes, seed: int, large: bytes = b"\xff") -> bytes:
    """Bytes changed, cut out, doubled, or overwritten by `large` ones, in one or two places; or the end cut off."""
    random = np.random.default_rng(seed)
    result = bytearray(data)
    for _ in range(random.integers(1, 3)):
        place = int(random.integers(len(result)))
        length = int(random.integers(1, 9))
        match random.integers(6):
            case 0:
                result[place] ^= 1 << int(random.integers(8))
            case 1:
                result[place] = int(random.integers(256))
            case 2:
                del result[place : place + length]
            case 3:
                result[place:place] = result[place : place + length]
            case 4:
                result[place : place + length] = large * length
            case 5:
                del result[max(place, 1) :]
    return bytes(result)


def fuzz(
    read: Callable[[Path], dict[str, np.ndarray]], path: Path, data: bytes, seeds: range, large: bytes = b"\xff"
) -> None:
    """Reads mutations of a file's data: each gives arrays that are whole, or a WeightsError.

    `large` is the byte that makes numbers large in this format.
    """
    count = 0
    for seed in seeds:
        path.write_bytes(mutated(data, seed, large))
        try:
            arrays = read(path)
        except WeightsError:
            continue
        count += 1
        # Touches every byte of every array.
        assert all(isinstance(array, np.ndarray) and len(array.tobytes()) == array.nbytes for array in arrays.values())
    # Neither extreme would test much.
    assert 0 < count < len(seeds)


def refusal(read: Callable[[Path], object], path: Path, data: bytes) -> str:
    """The message of the WeightsError, after seeing that it came soon, cost little memory, and names the file."""
    path.write_bytes(data)
    tracemalloc.start()
    start = time.thread_time()
    try:
        read(path)
    except WeightsError as error:
        assert time.thread_time() - start < SOON
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + 1_000_000
        assert str(path) in str(error)
        return str(error)
    finally:
        tracemalloc.stop()
    raise AssertionError(f"{path.name} was read")
