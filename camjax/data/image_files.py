"""Finding and reading the image files of a data set in folders."""

import contextlib
import os
import posixpath
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

from camjax.data.decoding import ImageError, decode_image, open_image, orientation
from camjax.data.regular_files import check_regular, read_regular
from camjax.errors import InputError, reading

IMAGE_SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".mpo"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp"),
)
"""The suffixes of image files, in upper or lower case."""

_NOTES = (".csv", ".db", ".html", ".ini", ".json", ".mat", ".md", ".txt", ".xml", ".yaml", ".yml")


def find_images(folder: Path) -> list[str]:
    """Finds the image files of a folder and all below it, except names that begin with a dot.

    Files of other suffixes than `IMAGE_SUFFIXES` are left out; a warning counts those that are no notes or lists.

    Returns:
      Names relative to the folder, with forward slashes, sorted.
    """
    names = find_files(folder)
    found = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    others = Counter(os.path.splitext(name)[1].lower() for name in names) if len(found) < len(names) else Counter()
    others = Counter({suffix: n for suffix, n in others.items() if suffix not in (*IMAGE_SUFFIXES, *_NOTES)})
    if others:
        kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in others.most_common(5))
        warnings.warn(
            f"{folder}: {others.total()} files are left out, since their names do not end as those of images do "
            f"({kinds}). Convert them, or rename them if they are images.",
            stacklevel=2,
        )
    return found


def find_files(folder: Path) -> list[str]:
    """Finds the files of a folder and all below it, except names that begin with a dot.

    Links to folders are followed, but for those to a folder that they lie in: all that is there is found already.

    Returns:
      Names relative to the folder, with forward slashes, sorted.
    """
    found = []
    pending = [("", frozenset[tuple[int, int]]())]
    while pending:
        place, above = pending.pop()
        status = os.stat(folder / place)
        if (here := (status.st_dev, status.st_ino)) in above:
            continue
        with os.scandir(folder / place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    pending.append((f"{place}{entry.name}/", above | {here}))
                else:
                    found.append(f"{place}{entry.name}")
    return sorted(found)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say: reading it as a file says so
        return False


def spelling(name: str, folder: Path | None = None) -> str:
    r"""One form of a relative file name that may be written in several ways.

    "./bird/a.jpg", "bird//a.jpg" and "bird\a.jpg" become "bird/a.jpg"; an accent is one character with its letter,
    where macOS writes two. With `folder`, an absolute name becomes relative to it, if it lies there.
    """
    name = posixpath.normpath(name.replace("\\", "/"))
    if folder is not None and posixpath.isabs(name):
        relative = os.path.relpath(name, folder.absolute())
        name = name if relative.startswith("..") else relative
    return unicodedata.normalize("NFC", name)


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
    data = read_regular(path, error=ImageError)
    with _naming(path):
        return decode_image(data, apply_exif=False)


def read_stored_size(path: Path) -> tuple[int, int]:
    """Reads the size (H, W) of an image file's stored pixels from its header.

    Raises:
      OSError: the file cannot be read.
      ImageError: the file is not an image; the message names it.
    """
    check_regular(path, error=ImageError)
    with path.open("rb") as file:
        if file.read(4) in TiffImagePlugin.PREFIXES:
            with _naming(path):
                width, height = open_image(path.read_bytes()).size
        else:
            file.seek(0)
            with reading(path, "an image", "Get a complete copy of it.", error=ImageError), Image.open(file) as image:
                width, height = image.size
    return height, width


def read_orientation(path: Path) -> int:
    """Reads how stored pixels are turned for a viewer: the EXIF orientation, or 1 if it is none of 1 to 8.

    Raises:
      OSError: the file cannot be read.
      ImageError: the file is not an image; the message names it.
    """
    check_regular(path, error=ImageError)
    with reading(path, "an image", "Get a complete copy of it.", error=ImageError), Image.open(path) as image:
        return orientation(image)


def names_on_disk(folder: Path, names: Iterable[str]) -> dict[str, str | None]:
    """Finds listed files in a folder, also where disk and list write an accent as one character or as two.

    Each directory is listed once, which is faster than a check of each file on network drives.

    Args:
      folder: what the names are relative to.
      names: of the files, with forward slashes, in the form of `spelling`.

    Returns:
      Each name -> the name as it is on the disk; None for a file that is not there.
    """
    listings: dict[str, dict[str, str]] = {}
    places: dict[str, str | None] = {"": ""}

    def find(name: str) -> str | None:
        place, _, last = name.rpartition("/")
        if place not in places:
            places[place] = find(place)
        if (above := places[place]) is None:
            return None
        if above not in listings:
            directory = folder / above
            found = os.listdir(directory) if directory.is_dir() else []
            # The exact name comes last, and stays.
            listings[above] = {unicodedata.normalize("NFC", entry): entry for entry in found} | {e: e for e in found}
        entry = listings[above].get(last)
        return None if entry is None else posixpath.join(above, entry)

    return {name: find(name) for name in names}


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
