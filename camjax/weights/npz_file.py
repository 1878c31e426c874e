"""Reads weights from `.npz` files by `numpy.load`, after checking how much memory the file would take."""

import io
import math
import zipfile
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from camjax.errors import reading
from camjax.weights.errors import WeightsError, check_weights_file, describe_start

# Trained weights compress to about nine tenths, and to a tenth if most were pruned to zero. Deflate can compress to a
# thousandth, which a zip bomb would use. Small files may be all zeros.
_MAX_RATIO = 16
_SMALL = 1_000_000

_MAX_RANK = 32

# In bytes; NumPy's for 32 dimensions are below. Its own limit, 10,000, lets a header take megabytes to parse.
_MAX_HEADER = 1_000


def read_npz(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every array of a file by `numpy.savez` or `numpy.savez_compressed`.

    Args:
      path: a `.npz` file.

    Returns:
      The arrays by name, in the file's order.

    Raises:
      FileNotFoundError: the file does not exist.
      WeightsError: it is damaged or not an `.npz`; an array holds anything but numbers (pickled objects are never
        loaded); or its arrays are far larger than the file, as in a zip bomb.
    """
    path = check_weights_file(path)
    data = path.read_bytes()
    if not data.startswith(b"PK\x03\x04"):
        raise WeightsError(
            f"{path}: not an .npz file; it {describe_start(data[:32])}. numpy.savez(path, **arrays) writes one."
        )
    with reading(path, "a whole .npz file", "Download or copy it again.", error=WeightsError):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _checked_members(path, archive, len(data))
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name.removesuffix(".npy"): arrays[name] for name in members}


def _checked_members(path: Path, archive: zipfile.ZipFile, size: int) -> list[str]:
    """Returns the names of the members, after checking that each is an array of numbers and none is too large.

    `size` is that of the file in bytes.
    """
    members = archive.infolist()
    declared = sum(member.file_size for member in members)
    if declared > _MAX_RATIO * size + _SMALL:
        raise WeightsError(
            f"{path}: {declared:,} bytes of arrays are declared in a file of {size:,}. Weights do not compress that "
            "far; if the file is right, save the arrays by numpy.savez."
        )
    if not members or len({member.filename for member in members}) < len(members):
        raise WeightsError(f"{path}: the archive is empty, or two of its arrays have the same name. Save it again.")
    for member in members:
        name = member.filename
        if not name.endswith(".npy") or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{path}: member {name[:80]!r} is not an array by numpy.savez or savez_compressed.")
        with archive.open(member) as file:
            version = npy.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise WeightsError(f"{path}: array {name[:80]!r} has a header of version {version}. Save it again.")
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read_header(file, max_header_size=_MAX_HEADER)
            if dtype.kind not in "biufc":
                raise WeightsError(f"{path}: array {name[:80]!r} is of dtype {dtype}. Save numbers, such as float32.")
            if len(shape) > _MAX_RANK or min(shape, default=0) < 0:
                raise WeightsError(f"{path}: array {name[:80]!r} has the impossible shape {shape[:_MAX_RANK]}.")
            count = member.file_size - file.tell()
            if math.prod(shape) * dtype.itemsize != count:
                raise WeightsError(
                    f"{path}: array {name[:80]!r} should have the shape {shape}, but has {count:,} bytes of numbers. "
                    "Download or copy the file again."
                )
    return [member.filename for member in members]
