"""A data set as the experiment on generic features needs it: images, labels, and the splits that it lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camjax.data.files import read_stored_image
from camjax.data.rows import RandomAccessSource
from camjax.data.sources import SourceInfo
from experiments.generic_splits import Split


@dataclass(frozen=True)
class Images:
    """A data set, opened.

    Attributes:
      source: its n images.
      labels: (n,) int32 classes; or (n, A) float32, the share of votes for each of A attributes, in 0..1.
      class_names: of the C classes, or the A attributes.
      listed: the splits that the data set itself lists; none where they are drawn at random.
    """

    source: RandomAccessSource
    labels: np.ndarray
    class_names: tuple[str, ...]
    listed: tuple[Split, ...] = ()


class Chosen:
    """Some of the images of a source.

    Args:
      source: the images.
      indices: (n,) of the chosen ones, in the order that they get.
    """

    def __init__(self, source: RandomAccessSource, indices: np.ndarray):
        self._source, self._indices, self.info = source, indices, source.info

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict:
        return self._source[int(self._indices[index])]


class ListedImages:
    """Image files of a folder that a list names, where their folders are not their classes.

    Args:
      folder: of the images.
      names: (n) of the files, relative to it.
      labels: (n,) int; zeros where they have none.
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


def without_class(source: RandomAccessSource, labels: np.ndarray, class_names: Sequence[str], name: str) -> Images:
    """The images of all classes but one, whose labels close up.

    Args:
      source: n images.
      labels: (n,) int.
      class_names: of all classes.
      name: of the one that is left out.
    """
    label = class_names.index(name)
    kept = np.flatnonzero(labels != label)
    labels = (labels - (labels > label))[kept].astype(np.int32)
    return Images(Chosen(source, kept), labels, tuple(other for other in class_names if other != name))


def list_lines(path: Path) -> list[str]:
    """The lines of a text file that say something, without the space around them."""
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]
