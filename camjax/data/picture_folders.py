"""The classes and splits of one's own pictures, by the folders that they lie in."""

from collections import Counter
from collections.abc import Sequence, Sized
from pathlib import Path

from camjax.data.annotations.label_csv import SPLITS, TEST, TRAIN, UNREADABLE, VALIDATION, ListedPicture
from camjax.data.image_files import IMAGE_SUFFIXES, find_images
from camjax.errors import InputError, few

ADVICE = "Sort the pictures into a folder for each class, or list them in a CSV file with the columns file,label."


def pictures_of_folder(folder: Path) -> tuple[list[ListedPicture], str, list[str]]:
    """The pictures of a folder with their splits, if there are any; a sentence about them, and notes.

    Raises:
      InputError: it is not clear what the classes are.
    """
    names = find_images(folder)
    if not names:
        raise InputError(
            f"{folder} has no pictures: expected a folder for each class with files that end in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    folders = _folders(folder)
    by_split: dict[str, list[str]] = {}
    for name in folders:
        if (split := SPLITS.get(name.lower(), UNREADABLE)) != UNREADABLE:
            by_split.setdefault(split, []).append(name)
    if TRAIN not in by_split or len(by_split) == 1:
        notes = _check_folders(folder, names)
        pictures = [ListedPicture(name, name.partition("/")[0]) for name in names]
        return pictures, f"One folder for each class in {folder}.", notes
    used = {TRAIN: TRAIN, VALIDATION: VALIDATION} if VALIDATION in by_split else {TRAIN: TRAIN, TEST: VALIDATION}
    pictures, notes, chosen = [], [], []
    for kind, split in used.items():
        if len(by_split[kind]) > 1:
            raise InputError(
                f"{folder} has the folders {' and '.join(by_split[kind])}: expected one to {kind}. Merge them, or move "
                "one away."
            )
        (side,) = by_split[kind]
        chosen.append(side)
        own = [name.removeprefix(f"{side}/") for name in names if name.startswith(f"{side}/")]
        if not own:
            raise InputError(f"{folder / side} has no pictures: expected a folder for each class with some.")
        notes += _check_folders(folder / side, own)
        pictures += [ListedPicture(f"{side}/{name}", name.partition("/")[0], split) for name in own]
    rest = Counter(name.partition("/")[0] for name in names if name.partition("/")[0] not in chosen)
    unused = [f"{name} ({number(count, 'picture', 'pictures')})" for name, count in sorted(rest.items())]
    notes += [f"Not used, beside {' and '.join(chosen)}: {few(unused)}."] * bool(unused)
    return pictures, f"The folders {' and '.join(chosen)} of {folder}.", notes


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _check_folders(folder: Path, names: Sequence[str]) -> list[str]:
    """Raises InputError unless the classes of a folder's pictures are clear; returns notes on its folders."""
    loose = [name for name in names if "/" not in name]
    if loose:
        some = "all" if len(loose) == len(names) else str(len(loose))
        raise InputError(
            f"{folder} has pictures that lie in no folder of a class ({some} of {len(names)}, such as {loose[0]}). "
            f"{ADVICE}"
        )
    deep = [name for name in names if name.count("/") > 1]
    below: dict[str, set[str]] = {}
    for name in deep:
        above, inner = name.split("/")[:2]
        below.setdefault(above, set()).add(inner)
    if len(deep) == len(names):
        tops = sorted(below)
        if len(tops) == 1:
            raise InputError(
                f"{folder} has pictures in one folder only, {tops[0]}, which has {few(sorted(below[tops[0]]))} in it. "
                f"If these are the classes, or train and val, give {folder / tops[0]}."
            )
        if max(map(len, below.values())) > 1:
            places = [f"{top}/{inner}" for top in tops for inner in sorted(below[top])]
            raise InputError(
                f"{folder} has all pictures in folders of folders: {few(places)}. It is not clear which are the "
                f"classes: {few(tops[:3])}, or what is in them? Give a folder with a folder for each class, which has "
                "pictures itself; one with train and val, which have such folders; or a CSV file with the columns "
                "file,label."
            )
    notes = []
    if deep and len(deep) < len(names):
        deeper = few([f"{top}/{inner}" for top in sorted(below) for inner in sorted(below[top])])
        notes.append(f"Pictures in deeper folders of {folder} belong to the class of the upper one: {deeper}.")
    if empty := sorted(set(_folders(folder)) - {name.partition("/")[0] for name in names}):
        notes.append(f"Folders of {folder} without pictures, which are no classes: {few(empty)}.")
    return notes


def number(things: int | Sized, one: str, several: str) -> str:
    """A number of things, in words: "1 picture", "2 pictures"."""
    count = things if isinstance(things, int) else len(things)
    return f"{count} {one if count == 1 else several}"
