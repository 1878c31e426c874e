"""Data sets of some of the images of another one, and of the image files that a list names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from camjax.data.image_files import read_stored_image
from camjax.data.rows import RandomAccessSource
from camjax.data.sources import SourceInfo
from camjax.data.text_files import read_lines


class ImageSource(RandomAccessSource, Protocol):
    """Images of a data set with a name.

    Attributes:
      info: name, split and class names.
    """

    info: SourceInfo


class Chosen:
    """Some of the images of a source.

    Args:
      source: the images.
      indices: (n,) of the chosen images, in their new order.
    """

    def __init__(self, source: ImageSource, indices: np.ndarray):
        self._source, self._indices, self.info = source, indices, source.info

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict:
        return self._source[int(self._indices[index])]


class ListedImages:
    """Image files of a folder that a list names; their sub-folders are not their classes.

    Args:
      folder: of the images.
      names: n file names, relative to the folder.
      labels: (n,) int; zeros if the images have no labels.
      info: name, split and class names.
    """

    def __init__(self, folder: Path, names: Sequence[str], labels: np.ndarray, info: SourceInfo):
        self._folder, self._names, self._labels, self.info = folder, names, labels, info

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict:
        name = self._names[index]
        image = read_stored_image(self._folder / name)
        return {"image": image, "label": int(self._labels[index]), "filename": name}


def list_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped."""
    return [line.strip() for _, line in read_lines(path) if line.strip()]
