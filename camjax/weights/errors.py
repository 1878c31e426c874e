"""The error that every reader of weight files raises, and the first checks of each of them."""

from os import PathLike
from pathlib import Path

from camjax.errors import InputError


class WeightsError(InputError):
    """A file of weights cannot be read, is of another kind or for another model, or holds more than tensors."""


# What people give to a reader by mistake, by the file's first bytes.
_STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer: `git lfs pull` fetches the file itself"),
    (b"<", "a web page or XML: a download that failed?"),
    (b"PK\x03\x04", "a zip archive, which is what torch.save writes"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "a file by torch.save of PyTorch before 1.6"),
    (b"\x80", "a Python pickle"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"{", "JSON"),
)


def check_weights_file(path: str | PathLike[str]) -> Path:
    """Returns `path` as a Path if it is a file with something in it.

    Raises:
      FileNotFoundError: the file does not exist.
      WeightsError: it is a directory, a device or a pipe, or an empty file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"Weight file {path} not found. Check the path, or download the file first.")
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "not a regular file"
        raise WeightsError(f"{path}: this is {kind}. Give the path of the weight file itself.")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: the file is empty. Download or copy it again.")
    return path


def describe_start(start: bytes) -> str:
    """Says in words what a file seems to be.

    Args:
      start: the file's first bytes; 16 are enough.

    Returns:
      Such as "begins with b'<!DOCTYPE html>', it looks like a web page".
    """
    looks_like = next((words for magic, words in _STARTS if start.startswith(magic)), None)
    if looks_like is None and start[8:9] == b"{":
        looks_like = "a safetensors file"
    if looks_like is None and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        looks_like = "text"
    begins = f"begins with {start[:16]!r}"
    return f"{begins}, it looks like {looks_like}" if looks_like else begins
