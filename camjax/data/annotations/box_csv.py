"""A folder of images with boxes, and labels if need be, in a CSV file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from camjax.data.annotations._format import Format
from camjax.data.annotations.class_folders import open_folder
from camjax.data.image_files import spelling
from camjax.data.pixel_boxes import ListedImage
from camjax.data.text_files import read_table
from camjax.errors import InputError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = ("filename", *_CORNERS)


def read_box_csv(path: str | os.PathLike[str]) -> dict[str, ListedImage]:
    """Reads a CSV file, in UTF-8 and with commas, with a line for each box.

    The first line names the columns, in any order: filename, xmin, ymin, xmax, ymax, and label where images are not
    sorted into folders by class; other columns are ignored. Pixels count from 0 in the stored image, not turned by an
    EXIF tag, and xmax, ymax name the last pixel of the box. Several boxes of an image are several lines; a line whose
    four numbers are empty is an image without boxes.

    Returns:
      filename (see `camjax.data.image_files.spelling`) -> what is known about it, in the file's order;
      `ListedImage.check` checks its boxes against the image.

    Raises:
      OSError: the file cannot be read.
      ValueError: a missing column, a line of another length, an invalid number, two labels for one image, or no box
        that leaves 0..1, as shares of the image; the message names the file, and the line where there is one.
    """
    images: dict[str, ListedImage] = {}
    for where, row in read_table(path, _COLUMNS, ", and label where images are not sorted into folders by class"):
        _add(images, row, where)
    if not images:
        raise InputError(f"{path} lists no images: expected a line for each box below the names of the columns.")
    corners = [value for image in images.values() for box in image.corners for value in box]
    if corners and min(corners) >= 0 and max(corners) <= 1:
        raise InputError(
            f"{path}: all boxes lie in 0..1, as shares of the image do: expected pixels. Multiply xmin and xmax by the "
            "image's width, ymin and ymax by its height."
        )
    return images


def _add(images: dict[str, ListedImage], row: dict[str, str], where: str) -> None:
    label = row.get("label", "").strip()
    if not row["filename"].strip():
        raise InputError(f"{where} has no filename.")
    filename = spelling(row["filename"].strip())
    classes = (label,) if label else ()
    first = filename not in images
    image = images.setdefault(filename, ListedImage(where, classes))
    if image.classes != classes:
        given = image.classes[0] if image.classes else ""
        raise InputError(
            f"{where} gives {filename!r} the label {label!r}, but {image.where} gives {given!r}: expected one label."
        )
    texts = [row[corner].strip() for corner in _CORNERS]
    if not any(texts):
        if not first:
            raise InputError(f"{where} says that {filename!r} has no boxes, but {image.where} names it already.")
        return
    if not first and not image.corners:
        raise InputError(f"{where} gives {filename!r} a box, but {image.where} says that it has none.")
    try:
        xmin, ymin, xmax, ymax = map(float, texts)
    except ValueError:
        raise InputError(f"{where} has the box {', '.join(texts)}: expected four numbers of pixels, or none.") from None
    image.corners.append((xmin, ymin, xmax, ymax))
    image.lines.append(where)


def read_boxes(path: Path, root: Path, names: Sequence[str]) -> Mapping[str, ListedImage]:
    """Reads the boxes of the images of a folder, see `camjax.data.annotations.class_folders.open_folder`."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a CSV file or a folder of XML files with boxes.")
    present = {spelling(name): name for name in names}
    found: dict[str, ListedImage] = {}
    for written, image in read_box_csv(path).items():
        name = present.get(spelling(written, root))
        if name is None:
            path = root / written
            if path.exists():
                raise InputError(
                    f"{image.where}: {path} is there, but not one of the images of {root}: expected a name within it, "
                    "with the suffix of an image. Move or convert the file."
                )
            raise FileNotFoundError(f"{image.where}: image {path} not found. Correct one of the names.")
        if name in found:
            raise InputError(f"{image.where} and {found[name].where} write {name!r} in two ways: expected one.")
        found[name] = image
    return found


FORMAT = Format(
    title="a folder of images with boxes in a CSV file",
    options=("boxes", "class_names"),
    recognizes=lambda request: request.is_folder and request.boxes is not None and not request.boxes.is_dir(),
    open=lambda request: open_folder(request, read_boxes),
)
