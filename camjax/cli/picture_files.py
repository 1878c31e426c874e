"""The pictures that a user names: files, and folders with all below them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from camjax.errors import InputError


class Picture(NamedTuple):
    """A picture's file.

    Attributes:
      path: of the file, as the user gave it, or below the folder that the user gave.
      name: what tells it from the others: the path with forward slashes below the folder that all have in common.
    """

    path: Path
    name: str


def find_pictures(given: Sequence[Path]) -> list[Picture]:
    """Finds the pictures that a user names: files in the order given, and those of each folder by name.

    A file that does not exist, or is no picture, is among them: reading it says so.

    Args:
      given: files and folders; of a folder all images in it and below it, see `find_images`.

    Raises:
      InputError: nothing is given, or a folder has no images.
      OSError: a folder cannot be read.
    """
    from camjax.data.image_files import IMAGE_SUFFIXES, find_images

    if not given:
        raise InputError("no image given: expected at least one file or folder of images.")
    paths: list[Path] = []
    roots = []
    for path in given:
        if path.is_dir():
            found = [path / name for name in find_images(path)]
            if not found:
                raise InputError(
                    f"{path}: no images in this folder or below it; expected names that end in one of "
                    f"{', '.join(IMAGE_SUFFIXES)}."
                )
            paths += found
            roots.append(os.path.abspath(path))
        else:
            paths.append(path)
            roots.append(os.path.abspath(path.parent))
    root = os.path.commonpath(roots)
    return [Picture(path, Path(os.path.relpath(os.path.abspath(path), root)).as_posix()) for path in paths]
