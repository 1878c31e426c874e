"""Reading .mat files of MATLAB in a process of their own: a damaged one can crash SciPy's reader."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np

from camjax.errors import InputError, printable, reading

_ADVICE = "Fetch it again."
# Cell arrays of strings become arrays of strings, so that no pickle comes back.
_READER = """
import io, sys
import numpy as np
from scipy.io import loadmat

try:
    found = loadmat(sys.argv[1], variable_names=[sys.argv[2]])[sys.argv[2]]
    if found.dtype == object:
        found = np.array([str(cell.item()) for cell in found.ravel()], str)
    saved = io.BytesIO()  # NumPy asks a file for its position, which a pipe does not always have
    np.save(saved, found, allow_pickle=False)
    sys.stdout.buffer.write(saved.getvalue())
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def read_mat(path: Path, variable: str) -> np.ndarray:
    """Reads a variable of a .mat file.

    Args:
      path: of the file.
      variable: its name.

    Returns:
      The array; of a cell array of strings (n,) str.

    Raises:
      ValueError: the file is damaged, or has no such variable.
    """
    done = subprocess.run([sys.executable, "-c", _READER, path, variable], capture_output=True, check=False)
    if done.returncode:
        told = printable(done.stderr.decode(errors="replace").strip())
        reason = told if done.returncode > 0 else f"it crashed the reader, signal {-done.returncode}"
        raise InputError(f"{path} is not a .mat file with {variable!r}, or damaged ({reason}). {_ADVICE}")
    with reading(path, f"a .mat file with {variable!r}", _ADVICE):
        return np.load(io.BytesIO(done.stdout), allow_pickle=False)
