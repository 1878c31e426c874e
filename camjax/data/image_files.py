"""Finding and reading the image files of a data set in folders."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from camjax.data.decoding import ImageError, decode_image
from camjax.errors import InputError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""The suffixes of image files, in upper or lower case; other files of a folder are ignored."""


def find_images(folder: Path) -> list[str]:
    """Finds the image files of a folder and all below it, except names that begin with a dot.

    Returns:
      Names relative to the folder, with forward slashes, sorted.
    """
    found = []
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        place = Path(directory).relative_to(folder)
        images = (name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))
        found += [(place / name).as_posix() for name in images]
    return sorted(found)


def check_files(folder: Path, names: Iterable[tuple[str, str]]) -> None:
    """Checks that listed files exist in a folder.

    Args:
      folder: what the names are relative to.
      names: of the files, each with the list and line that names it, for the message.

    Raises:
      FileNotFoundError: some are missing; the message says how many and names the first.
      ValueError: a name that leads out of the folder.
    """
    listings: dict[str, set[str]] = {}
    missing = []
    for name, where in names:
        if os.path.isabs(name) or ".." in name.split("/"):
            raise InputError(f"{where}: {name!r} leads out of {folder}: expected a name within it.")
        place, _, last = name.rpartition("/")
        # One listing of a directory instead of a check of each file, which takes long on network drives.
        if place not in listings:
            directory = folder / place
            listings[place] = set(os.listdir(directory)) if directory.is_dir() else set()
        if last not in listings[place]:
            missing.append((name, where))
    if missing:
        name, where = missing[0]
        raise FileNotFoundError(
            f"{where}: {folder / name} is missing, with {len(missing) - 1} others. Check the folder, or complete it."
        )


def read_stored_image(path: Path) -> np.ndarray:
    """Reads an image file's stored pixels, not turned by its EXIF tag: (H, W, 3) uint8 RGB.

    Raises:
      OSError: the file cannot be read.
      ImageError: it is not an image, or is damaged; the message names it.
    """
    try:
        return decode_image(path.read_bytes(), apply_exif=False)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def read_stored_size(path: Path) -> tuple[int, int]:
    """Reads the size (H, W) of an image file's stored pixels from its header.

    Raises:
      OSError: the file cannot be read.
      ImageError: the file is not an image; the message names it.
    """
    with path.open("rb") as file:
        try:
            with Image.open(file) as image:
                return image.height, image.width
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ImageError(f"{path} is not an image, or is damaged: {error}") from error
