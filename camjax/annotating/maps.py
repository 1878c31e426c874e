"""Raw maps as sharded arrays: a file for each part of the pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camjax.annotating.parts import Parts
from camjax.annotating.records import Picture
from camjax.files import whole_file

FOLDER = "maps"


def write_part(parts: Parts, part: int, pictures: Sequence[Picture], maps: Sequence[np.ndarray]) -> None:
    """Writes the maps of a part's readable pictures.

    `np.load` gives the arrays `files` (n,), `class_ids` (n, N), `probabilities` (n, N) and `maps` (n, N, h, w) float32,
    raw: neither clipped nor scaled, over the whole picture as a viewer shows it.

    Args:
      parts: of the annotation.
      part: its number.
      pictures: its pictures.
      maps: (N, h, w) of each picture that can be read.
    """
    readable = [picture for picture in pictures if not picture.unreadable]
    arrays = {
        "files": np.array([picture.name for picture in readable], str),
        "class_ids": np.array([[i for i, _ in picture.classes] for picture in readable], np.int32),
        "probabilities": np.array([[p for _, p in picture.classes] for picture in readable], np.float32),
        "maps": np.array(maps, np.float32),
    }
    with whole_file(_path(parts.out, part), make_parent=True) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # for NumPy, any may be `allow_pickle`


def index(parts: Parts) -> list[dict]:
    """The files, with the places of the pictures that each covers: from `first` on, `pictures` of them."""
    ranges = ((part, parts.pictures_of(part)) for part in range(parts.count))
    return [
        {"file": _path(Path(), part).as_posix(), "first": places.start, "pictures": len(places)}
        for part, places in ranges
    ]


def _path(out: Path, part: int) -> Path:
    return out / FOLDER / f"maps-{part:06}.npz"
