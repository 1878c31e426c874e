"""Reads weights from `.safetensors` files, by the `safetensors` library."""

from os import PathLike

import ml_dtypes  # noqa: F401 (importing it teaches NumPy the name "bfloat16", by which the library asks)
import numpy as np
from safetensors import safe_open

from camjax.errors import reading
from camjax.weights.errors import WeightsError, check_weights_file, describe_start

# The library knows float8 and float4 too, which NumPy has no names for.
_DTYPES = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64")


def read_safetensors(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every tensor of a safetensors file.

    The arrays are writable, aligned, and independent of the file. bfloat16 becomes `ml_dtypes.bfloat16`.

    Args:
      path: a `.safetensors` file, written by any framework.

    Returns:
      The arrays by tensor name, each in the shape and dtype that the file says.

    Raises:
      FileNotFoundError: the file does not exist.
      WeightsError: it is not a valid safetensors file (the library refuses one that is cut short, whose tensors
        overlap or leave gaps, or whose sizes and offsets disagree), or NumPy lacks a dtype (float8, float4).
    """
    path = check_weights_file(path)
    with path.open("rb") as file:
        start = file.read(32)
    arrays: dict[str, np.ndarray] = {}
    advice = f"It {describe_start(start)}. If it should be one, download or copy it again."
    with (
        reading(path, "a whole safetensors file", advice, error=WeightsError),
        # "pread" reads the file. Whoever cut a mapped file short would end this process by a signal (SIGBUS).
        safe_open(path, framework="numpy", backend="pread") as file,
    ):
        for name in file.keys():  # noqa: SIM118 (the library's handle is no mapping)
            dtype = file.get_slice(name).get_dtype()
            if dtype not in _DTYPES:
                raise WeightsError(
                    f"{path}: tensor {name!r} has dtype {dtype}, which is not read here. "
                    f"Convert it to one of {', '.join(_DTYPES)} first."
                )
            arrays[name] = file.get_tensor(name)
    return arrays
