"""Pictures under their maps, with boxes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from camjax.annotating.pictures import Pictures, Places
from camjax.annotating.records import Picture
from camjax.data.decoding import stored_edges
from camjax.data.images import resize_image
from camjax.viz import overlay

FOLDER = "overlays"
SIDE = 800
"""Pixels; larger pictures are drawn at this height or width."""

_INVERSE = {6: 8, 8: 6}  # of an EXIF orientation; the others are their own


def write_all(
    out: Path,
    pictures: Pictures,
    places: Places,
    drawn: Sequence[tuple[int, Picture, np.ndarray]],
    num_threads: int,
) -> None:
    """Writes `overlays/NAME.jpg`, as a viewer shows the picture; with N maps a picture `NAME.1.jpg` to `NAME.N.jpg`.

    Args:
      out: the folder of results.
      pictures: all of them.
      places: of the files.
      drawn: place among the pictures, record and maps (N, h, w) of each picture to draw.
      num_threads: threads that draw.
    """

    def write(item: tuple[int, Picture, np.ndarray]) -> None:
        place, record, maps = item
        image, orientation = pictures.read(place)
        upright = image.shape[:2]
        scale = min(1.0, SIDE / max(upright))
        height, width = (max(1, round(side * scale)) for side in upright)
        image = resize_image(image, (height, width))
        for number, (heat, (class_id, _)) in enumerate(zip(maps, record.classes, strict=True), 1):
            name = places(record.name) + (f".{number}" if len(maps) > 1 else "")
            path = out / FOLDER / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            figure = Image.fromarray(overlay(image, heat))
            for box in record.boxes:
                if box.class_id == class_id:
                    xmin, ymin, xmax, ymax = box.corners
                    stored = np.array([ymin, xmin, ymax, xmax])
                    edges = stored_edges(stored, record.size, _INVERSE.get(orientation, orientation))
                    _draw(figure, edges * ([height / upright[0], width / upright[1]] * 2))
            figure.save(path, quality=90)

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(write, drawn))


def _draw(figure: Image.Image, edges: np.ndarray) -> None:
    """A white line on a dark one along the outer pixels of a box."""
    y0, x0, y1, x1 = np.rint(edges).astype(int).tolist()
    draw = ImageDraw.Draw(figure)
    corners = (x0, y0, max(x1 - 1, x0), max(y1 - 1, y0))
    draw.rectangle(corners, outline=(32, 32, 32), width=4)
    if min(corners[2] - x0, corners[3] - y0) > 2:
        draw.rectangle((x0 + 1, y0 + 1, corners[2] - 1, corners[3] - 1), outline="white", width=2)
