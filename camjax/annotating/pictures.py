"""The pictures of a folder, as a viewer shows them: the source that is annotated."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camjax.data.decoding import decode_upright
from camjax.data.image_files import IMAGE_SUFFIXES, find_images
from camjax.data.regular_files import read_regular
from camjax.errors import InputError, printable

UNREADABLE = 0
"""The label of a picture that can't be read; that of any other is its EXIF orientation, 1 to 8."""


class Pictures:
    """The image files of a folder and all below it, turned by their EXIF tags.

    A source for `camjax.data.eval_batches`. Nothing is known about classes: the label says how a picture was
    turned, which boxes need on their way back to the stored pixels. One that can't be read is black, and its label is
    `UNREADABLE`.

    Args:
      folder: of the pictures.
      names: relative to the folder, with forward slashes.
    """

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict:
        try:
            image, orientation = self.read(index)
        except (InputError, OSError):
            return {"image": np.zeros((1, 1, 3), np.uint8), "label": UNREADABLE}
        return {"image": image, "label": orientation}

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """An upright picture (H, W, 3) uint8 RGB, and its EXIF orientation; raises ValueError or OSError."""
        name = self.names[index]
        if not holdable(name):
            raise InputError(
                "its name has a backslash or a control character, or is not UTF-8: files of boxes can't hold it; "
                "rename the file"
            )
        return decode_upright(read_regular(self.folder / name))

    def why_unreadable(self, index: int) -> str:
        """The reason why a picture that was marked can't be read, without its path."""
        try:
            self.read(index)
        except OSError as error:
            return error.strerror or printable(error)
        except InputError as error:
            return printable(str(error).removeprefix(f"{self.folder / self.names[index]}: "))
        return "it could not be read the first time"


def holdable(name: str) -> bool:
    """Whether files of boxes can hold a name: XML has no control characters, and a backslash may be a slash."""
    return not any(unicodedata.category(char) in ("Cc", "Cs") or char in "\\\ufffe\uffff" for char in name)


def find_pictures(folder: Path) -> Pictures:
    """Finds the pictures of a folder.

    Raises:
      ValueError: it has no pictures.
    """
    names = find_images(folder)
    if not names:
        raise InputError(f"{folder} has no pictures: expected files that end in {', '.join(IMAGE_SUFFIXES)}.")
    return Pictures(folder, names)


class Places:
    """Where the files about a picture go in a folder of their own: its name without the suffix.

    It is the whole name for pictures that differ in their suffix alone, `a.jpg` and `a.png`, and for `a.jpg.png` beside
    `a.jpg`: each picture has a place of its own.
    """

    def __init__(self, names: Sequence[str]):
        counts = Counter(map(_stem, names))
        shared = {stem for stem, count in counts.items() if count > 1}
        self._taken = shared.union(name for name in names if name in counts)

    def __call__(self, name: str) -> str:
        """The place of a picture, by its name."""
        stem = _stem(name)
        return name if stem in self._taken else stem


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
