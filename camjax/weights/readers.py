"""Reads a file of weights, by the reader for its suffix."""

from os import PathLike
from pathlib import Path

import numpy as np

from camjax.weights.npz_file import read_npz
from camjax.weights.safetensors_file import read_safetensors
from camjax.weights.torch_file import read_torch_file

# The usual names of a model's weights in repositories on the Hugging Face Hub, in order of preference.
HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")


def read_tensors(path: str | PathLike[str], name: str | None = None) -> dict[str, np.ndarray]:
    """Reads the tensors of a file of weights.

    Args:
      path: of the file.
      name: its suffix, in upper or lower case, tells the format: `.safetensors`, `.npz` (NumPy) or `.caffemodel`. Any
        other file is read as one by `torch.save`: `.pth` and `.pt`, but also `.pth.tar`, `.bin` and `.ckpt`. None for
        the path's own name.

    Returns:
      The arrays by their names in the file.

    Raises:
      FileNotFoundError: the file does not exist.
      WeightsError: the file is damaged, or of another kind than its suffix says.
    """
    match Path(path if name is None else name).suffix.lower():
        case ".safetensors":
            return read_safetensors(path)
        case ".npz":
            return read_npz(path)
        case ".caffemodel":
            # Protobuf is imported only where it is needed.
            from camjax.weights.caffe_file import read_caffemodel

            return read_caffemodel(path)
    return read_torch_file(path)
