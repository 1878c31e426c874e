"""Pictures under their maps, with boxes: a figure for each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camjax.addresses import is_address
from camjax.annotating.pictures import Pictures
from camjax.annotating.records import Picture
from camjax.data.images import resize_image
from camjax.data.pixel_boxes import turn_boxes
from camjax.figure_saving import save_figure
from camjax.viz import explanation_figure

FOLDER = "overlays"
SIDE = 800
"""Pixels; larger pictures are drawn at this height or width."""


def write(
    path: Path,
    pictures: Pictures,
    place: int,
    record: Picture,
    maps: np.ndarray,
    names: Sequence[str],
    drawing: Mapping[str, Any],
) -> None:
    """Writes the figure of a picture, as a viewer shows it; the suffix is the format.

    Args:
      path: of the figure.
      pictures: all of them.
      place: of the picture among them.
      record: of the picture.
      maps: (N, h, w), raw.
      names: of all classes.
      drawing: arguments of `camjax.viz.explanation_figure`.
    """
    image, orientation = pictures.read(place)
    height, width = image.shape[:2]
    boxes = []
    for class_id, _ in record.classes:
        corners = [box.corners for box in record.boxes if box.class_id == class_id]
        stored = np.array(corners, int).reshape(-1, 4)[:, [1, 0, 3, 2]]
        boxes.append(turn_boxes(stored, orientation, record.size) / (height, width, height, width))
    scale = min(1.0, SIDE / max(height, width))
    shown = resize_image(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    figure = explanation_figure(
        [shown],
        [maps],
        [boxes],
        [[names[i] for i, _ in record.classes]],
        [[probability for _, probability in record.classes]],
        titles=[record.name.rpartition("/")[2]],
        **drawing,
    )
    if not is_address(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
