"""Boxes and labels of a user's images in one CSV file."""

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path

from camjax.data.annotation import check_corners

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("filename", *_CORNERS)


@dataclass(slots=True)
class CsvImage:
    """What a CSV file says about one image.

    Attributes:
      name: file and line that name the image first.
      classes: its class's name; empty where the file has none.
      corners: xmin, ymin, xmax, ymax in pixels of each box.
      lines: file and line of each box.
    """

    name: str
    classes: tuple[str, ...]
    corners: list[tuple[float, float, float, float]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def check(self, size: tuple[int, int]) -> None:
        """Raises ValueError, with file and line, where a box does not lie in an image of H x W pixels."""
        for corners, line in zip(self.corners, self.lines, strict=True):
            check_corners(corners, size, line)


def read_box_csv(path: str | os.PathLike) -> dict[str, CsvImage]:
    """Reads a CSV file with a line for each box.

    The first line names the columns, in any order: filename, xmin, ymin, xmax, ymax, and label where images are not
    sorted into folders by class; other columns are not looked at. Pixels count from 0 in the stored image, not turned
    by an EXIF tag, and xmax, ymax name the last pixel of the box. Several boxes of an image are several lines; a line
    whose four numbers are empty is an image without boxes.

    Args:
      path: the file, comma-separated, UTF-8.

    Returns:
      filename -> what is known about it, in the file's order.

    Raises:
      OSError: the file can't be read.
      ValueError: a column that is missing, a line of another length, what is no number, two labels for one image; the
        message names file and line. Whether boxes lie in their images, only those know: see `CsvImage.check`.
    """
    images: dict[str, CsvImage] = {}
    with Path(path).expanduser().open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            header = [name.strip() for name in next(rows, [])]
            absent = [name for name in _COLUMNS if name not in header]
            if absent or len(set(header)) < len(header):
                raise ValueError(
                    f"{path}, line 1 names the columns {', '.join(header) or 'nothing'}: expected each of "
                    f"{', '.join(_COLUMNS)} once, and label where images are not sorted into folders by class."
                )
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                if len(row) not in (0, len(header)):
                    raise ValueError(f"{where} has {len(row)} fields: expected {len(header)}, as line 1 has.")
                if row:
                    _add(images, dict(zip(header, row, strict=True)), where)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, near line {rows.line_num + 1}, is no CSV in UTF-8: {error}.") from error
    if not images:
        raise ValueError(f"{path} lists no images: expected a line for each box below the names of the columns.")
    return images


def _add(images: dict[str, CsvImage], row: dict[str, str], where: str) -> None:
    filename = row["filename"].strip().replace("\\", "/")
    label = row.get("label", "").strip()
    if not filename:
        raise ValueError(f"{where} has no filename.")
    first = filename not in images
    image = images.setdefault(filename, CsvImage(where, (label,) if label else ()))
    if image.classes != ((label,) if label else ()):
        given = image.classes[0] if image.classes else ""
        raise ValueError(f"{where} gives {filename!r} the label {label!r}, and {image.name} {given!r}: expected one.")
    texts = [row[corner].strip() for corner in _CORNERS]
    if not any(texts):
        if not first:
            raise ValueError(f"{where} says that {filename!r} has no boxes, and {image.name} names it already.")
        return
    if not first and not image.corners:
        raise ValueError(f"{where} gives {filename!r} a box, and {image.name} says that it has none.")
    try:
        corners = tuple(float(text) for text in texts)
    except ValueError:
        raise ValueError(f"{where} has the box {', '.join(texts)}: expected four numbers of pixels, or none.") from None
    image.corners.append(corners)
    image.lines.append(where)
