"""Images of places (bathroom, street) with label maps, which give the object of each pixel.

The data sets say "scene". In camjax "scenes" is a data set of digits on textures, so the code here says "place".
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camjax.errors import InputError, printable, reading
from experiments.common.image_lists import ImageSource, list_lines

LEAST_IMAGES = 3
"""Of a place: each part of the cross-validation gets one."""

NO_PLACE = "misc"
"""The rest category of sceneCategories.txt, which is only taken if it is asked for."""


@dataclass(frozen=True)
class LabeledPlaces:
    """Images of some places.

    Attributes:
      source: n images; an example's label is its place.
      labels: (n,) int, the places.
      places: their names, in the order of the labels.
      object_names: id -> name; some objects have none.
      label_map: index -> (H, W) integers of the image's size, ids of objects, 0 for no object. Raises ValueError if the
        label map can't be read.
    """

    source: ImageSource
    labels: np.ndarray
    places: tuple[str, ...]
    object_names: Mapping[int, str]
    label_map: Callable[[int], np.ndarray]


def choose_places(
    place_of: Sequence[str], wanted: Sequence[str] | int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Chooses places, and their images.

    Args:
      place_of: the place of each of n images.
      wanted: names of places, or how many: those with the most images, equal ones in alphabetical order.

    Returns:
      The places in alphabetical order, the indices of their m images (m,) int, ascending, and the place of each (m,).

    Raises:
      ValueError: a place has no or too few images, or fewer than two places are wanted.
    """
    counts = Counter(place_of)
    if isinstance(wanted, int):
        ordered = sorted((place for place in counts if place != NO_PLACE), key=lambda place: (-counts[place], place))
        wanted = ordered[:wanted]
    if missing := [place for place in wanted if place not in counts]:
        most = ", ".join(f"{place} ({number})" for place, number in counts.most_common(10))
        raise InputError(f"no images of the scene {missing[0]!r}: expected some of {len(counts)}, such as {most}.")
    places = tuple(sorted(set(wanted)))
    if len(places) < 2:
        raise InputError(f"scenes {', '.join(places) or 'none'}: expected at least two, to tell them apart.")
    check_counts(places, [counts[place] for place in places])
    numbers = {place: label for label, place in enumerate(places)}
    indices = np.array([index for index, place in enumerate(place_of) if place in numbers])
    return places, indices, np.array([numbers[place_of[index]] for index in indices])


def check_counts(places: Sequence[str], counts: Iterable[int]) -> None:
    """Raises ValueError for places with fewer than `LEAST_IMAGES` images; the message names them."""
    short = [f"{place} ({count})" for place, count in zip(places, counts, strict=True) if count < LEAST_IMAGES]
    if short:
        raise InputError(
            f"too few images that can be read of {', '.join(short)}: expected at least {LEAST_IMAGES} of each scene. "
            "Complete the data set, or give --scenes without them."
        )


def read_place_list(path: Path) -> dict[str, str]:
    """Reads sceneCategories.txt: image -> place, in the order of the file.

    Raises:
      OSError: the file can't be read.
      ValueError: a line has another form, or names an image again.
    """
    found = {}
    for number, line in enumerate(list_lines(path), 1):
        parts = line.split()
        if len(parts) != 2 or parts[0] in found:
            raise InputError(f"{path}, line {number}: {line!r}; expected an image, once, and its scene.")
        found[parts[0]] = parts[1]
    return found


def read_object_names(path: Path) -> dict[int, str]:
    """Reads the names of objects; the first one where an object has several.

    Args:
      path: objects.csv, with the columns id and name; or objectInfo150.txt or instanceInfo100_train.txt, with columns
        Idx and Name or Object Names, separated by tabs.

    Raises:
      OSError: the file can't be read.
      ValueError: other columns; an id is not a number, or comes twice.
    """
    lines = list_lines(path)
    with reading(path, "a list of objects", "Get a complete copy of it."):
        rows = list(csv.reader(lines)) if path.suffix == ".csv" else [filter(None, line.split("\t")) for line in lines]
    rows = [[cell.strip() for cell in row] for row in rows]
    header = [cell.lower() for cell in rows[0]] if rows else []
    id_column, name_column = (
        next((column for column, cell in enumerate(header) if cell in titles), None)
        for titles in (("id", "idx"), ("name", "object names"))
    )
    if id_column is None or name_column is None:
        raise InputError(f"{path} begins with {header}: expected columns id and name, or Idx and Name.")
    found = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header) or not _is_id(row[id_column]) or int(row[id_column]) in found:
            raise InputError(f"{path}, line {number}: {printable(row)}; expected {header}, with an id that comes once.")
        found[int(row[id_column])] = row[name_column].partition(",")[0].strip()
    return found


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) < 10
