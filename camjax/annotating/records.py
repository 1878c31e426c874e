"""What is known about one picture, from the devices to the files that are written."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from camjax.data.pixel_boxes import turn_boxes_back, whole_pixels
from camjax.json_files import read_json


class Box(NamedTuple):
    """A box of one class.

    Attributes:
      class_id: of the class.
      score: the class's probability times the box's peak, see `camjax.boxes.ScoredBoxes`; 0..1.
      threshold: the share of the map's maximum that gave the box.
      corners: xmin, ymin, xmax, ymax: whole pixels of the stored picture, half-open.
    """

    class_id: int
    score: float
    threshold: float
    corners: tuple[int, int, int, int]


class Picture(NamedTuple):
    """An annotated picture; in JSON, as all named tuples, a list.

    Attributes:
      name: its file, relative to the folder of pictures, with forward slashes.
      size: (H, W) as stored; zeros if it can't be read.
      classes: ids and probabilities, in the order of the maps.
      boxes: by class, in the order of `classes`; then by threshold and falling score.
      unreadable: why it can't be read; "" if it can.
    """

    name: str
    size: tuple[int, int] = (0, 0)
    classes: Sequence[tuple[int, float]] = ()
    boxes: Sequence[Box] = ()
    unreadable: str = ""


class Found(NamedTuple):
    """What the devices found in B pictures, for N classes, T thresholds and up to K boxes each.

    Attributes:
      class_ids: (B, N) int32.
      probabilities: (B, N) float32.
      boxes: (B, N, T, K, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1 of the upright picture.
      peaks: (B, N, T, K) float32.
      valid: (B, N, T, K) bool.
      maps: (B, N, h, w) float32 raw maps; None where nobody needs them.
    """

    class_ids: jax.Array
    probabilities: jax.Array
    boxes: jax.Array
    peaks: jax.Array
    valid: jax.Array
    maps: jax.Array | None


def picture_record(
    name: str,
    upright_size: tuple[int, int],
    orientation: int,
    found: Found,
    row: int,
    thresholds: tuple[float, ...],
    min_score: float,
) -> Picture:
    """The record of a picture.

    Args:
      name: of the file.
      upright_size: (H, W) in pixels.
      orientation: its EXIF orientation.
      found: in its batch.
      row: its place there.
      thresholds: T shares.
      min_score: the least score of a box.
    """
    ids, probabilities = found.class_ids[row].tolist(), found.probabilities[row].tolist()
    edges = turn_boxes_back(whole_pixels(np.asarray(found.boxes[row]), upright_size), orientation, upright_size)
    boxes = []
    for n, t, k in np.argwhere(found.valid[row]).tolist():
        score = round(probabilities[n] * float(found.peaks[row, n, t, k]), 6)
        if score >= min_score:
            ymin, xmin, ymax, xmax = edges[n, t, k].tolist()
            boxes.append(Box(ids[n], score, thresholds[t], (xmin, ymin, xmax, ymax)))
    size = upright_size[::-1] if orientation >= 5 else upright_size
    return Picture(name, size, [(i, round(p, 6)) for i, p in zip(ids, probabilities, strict=True)], boxes)


def read_part(path: Path, advice: str) -> list[Picture]:
    """Reads the records of a finished part."""
    return read_json(path, list[Picture], advice=advice)
