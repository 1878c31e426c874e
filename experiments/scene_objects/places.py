"""Images of scenes with label maps, which say of every pixel what object it belongs to."""

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from camjax.data.rows import RandomAccessSource
from experiments.common.image_lists import list_lines

LEAST_IMAGES = 3
"""Of a scene: each part of the cross-validation gets one."""

NO_SCENE = "misc"
"""The category of sceneCategories.txt that is none, which is not chosen by itself."""


@dataclass(frozen=True)
class LabeledScenes:
    """Images of some scenes.

    Attributes:
      source: n images; an example's label is its scene.
      labels: (n,) int, the scenes.
      scenes: their names, in the order of the labels.
      object_names: id -> name, of those that have one.
      label_map: index -> (H, W) integers of the image's size, ids of objects, 0 where there is none. ValueError for one
        that can't be read.
    """

    source: RandomAccessSource
    labels: np.ndarray
    scenes: tuple[str, ...]
    object_names: Mapping[int, str]
    label_map: Callable[[int], np.ndarray]


def choose_scenes(
    scene_of: Sequence[str], wanted: Sequence[str] | int
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Chooses scenes, and their images.

    Args:
      scene_of: the scene of each of n images.
      wanted: names of scenes, or how many: those with the most images, of equally many the first in the alphabet.

    Returns:
      The scenes in alphabetical order, the indices of their m images (m,) int, ascending, and the scene of each (m,).

    Raises:
      ValueError: a scene that is not there, or that has too few images; or fewer than two.
    """
    counts = Counter(scene_of)
    if isinstance(wanted, int):
        ordered = sorted((scene for scene in counts if scene != NO_SCENE), key=lambda scene: (-counts[scene], scene))
        wanted = ordered[:wanted]
    if missing := [scene for scene in wanted if scene not in counts]:
        most = ", ".join(f"{scene} ({number})" for scene, number in counts.most_common(10))
        raise ValueError(f"no images of the scene {missing[0]!r}: expected some of {len(counts)}, such as {most}.")
    scenes = tuple(sorted(set(wanted)))
    if len(scenes) < 2:
        raise ValueError(f"scenes {', '.join(scenes) or 'none'}: expected at least two, to tell them apart.")
    check_counts(scenes, [counts[scene] for scene in scenes])
    numbers = {scene: label for label, scene in enumerate(scenes)}
    indices = np.array([index for index, scene in enumerate(scene_of) if scene in numbers])
    return scenes, indices, np.array([numbers[scene_of[index]] for index in indices])


def check_counts(scenes: Sequence[str], counts: Sequence[int]) -> None:
    """Raises ValueError for scenes with fewer than `LEAST_IMAGES` images; the message names them."""
    short = [f"{scene} ({count})" for scene, count in zip(scenes, counts, strict=True) if count < LEAST_IMAGES]
    if short:
        raise ValueError(
            f"too few images that can be read of {', '.join(short)}: expected at least {LEAST_IMAGES} of each scene. "
            "Complete the data set, or give --scenes without them."
        )


def read_scene_list(path: Path) -> dict[str, str]:
    """Reads sceneCategories.txt: image -> scene, in the order of the file.

    Raises:
      OSError: the file can't be read.
      ValueError: a line of another form, or an image twice.
    """
    found = {}
    for number, line in enumerate(list_lines(path), 1):
        parts = line.split()
        if len(parts) != 2 or parts[0] in found:
            raise ValueError(f"{path}, line {number}: {line!r}; expected an image, once, and its scene.")
        found[parts[0]] = parts[1]
    return found


def read_object_names(path: Path) -> dict[int, str]:
    """Reads the names of objects; of several for one object the first.

    Args:
      path: objects.csv, with the columns id and name; or objectInfo150.txt or instanceInfo100_train.txt, with columns
        between tabs, of which one is called Idx and one Name or Object Names.

    Raises:
      OSError: the file can't be read.
      ValueError: other columns, an id that is no number or comes twice.
    """
    lines = list_lines(path)
    rows = list(csv.reader(lines)) if path.suffix == ".csv" else [filter(None, line.split("\t")) for line in lines]
    rows = [[cell.strip() for cell in row] for row in rows]
    header = [cell.lower() for cell in rows[0]] if rows else []
    id_column, name_column = (
        next((column for column, cell in enumerate(header) if cell in titles), None)
        for titles in (("id", "idx"), ("name", "object names"))
    )
    if id_column is None or name_column is None:
        raise ValueError(f"{path} begins with {header}: expected columns id and name, or Idx and Name.")
    found = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header) or not row[id_column].isdecimal() or int(row[id_column]) in found:
            raise ValueError(f"{path}, line {number}: {row}; expected {header}, with an id that comes once.")
        found[int(row[id_column])] = row[name_column].partition(",")[0].strip()
    return found
