"""Any folder of images as a data set, with boxes from a CSV file or from XML files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camjax.data.annotation import (
    UNREADABLE,
    AnnotatedSource,
    Annotation,
    boxes_of_last_pixels,
    no_boxes,
    shares,
    stem_of,
)
from camjax.data.box_csv import CsvImage, read_box_csv
from camjax.data.files import IMAGE_SUFFIXES, find_images, read_stored_image, read_stored_size
from camjax.data.images import ImageError
from camjax.data.sources import SourceInfo
from camjax.data.voc_xml import VocAnnotation, read_voc_xml

WHOLE_FOLDER = "all"
"""The split that is all of the folder, where it has no sub-folder of that name."""


@dataclass(frozen=True)
class _Image:
    """An image file: its name, class, and what a CSV or an XML file says about it."""

    name: str
    label: int
    listed: CsvImage | VocAnnotation | None


class ImageFolder(AnnotatedSource):
    """The images of a folder, in the order of their names; `open_image_folder` makes one.

    Boxes refer to the stored pixels, and images are not turned by their EXIF tag. An image that can't be read has the
    annotation's `excluded` set, where that takes the image: for boxes in a CSV file, which lacks its size.
    """

    def __init__(self, folder: Path, images: Sequence[_Image], info: SourceInfo, has_boxes: bool):
        self._folder, self._images, self.info, self.has_boxes = folder, images, info, has_boxes

    def __getitem__(self, index: int) -> dict:
        self._check_index(index)
        image = self._images[index]
        pixels = read_stored_image(self._folder / image.name)
        return {"image": pixels, "label": image.label, "filename": image.name}

    def annotation(self, index: int) -> Annotation:
        """See `AnnotatedSource.annotation`."""
        self._check_index(index)
        image = self._images[index]
        listed = image.listed
        if listed is None or not listed.corners:
            return Annotation(image.name, image.label, no_boxes())
        path = self._folder / image.name
        try:
            size = read_stored_size(path)
        except ImageError:
            return Annotation(image.name, image.label, no_boxes(), UNREADABLE)
        if isinstance(listed, CsvImage):
            listed.check(size)
        elif listed.size != size:
            turned = listed.size == size[::-1]
            raise ValueError(
                f"{listed.name} is about an image of {listed.size[1]} x {listed.size[0]} pixels, and {path} has "
                f"{size[1]} x {size[0]}"
                + (", as stored: boxes must not be drawn on it turned by its EXIF tag." if turned else ".")
            )
        boxes, wsol_boxes = boxes_of_last_pixels(listed.corners, size), shares(listed.corners, size)
        return Annotation(image.name, image.label, boxes, wsol_boxes=wsol_boxes)


def open_image_folder(
    folder: str | os.PathLike,
    split: str,
    *,
    boxes: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
) -> ImageFolder:
    """Opens a folder of images.

    The images are those in the sub-folder named as the split, or in the folder itself for the split "all". Their class
    is the sub-folder that they lie in (deeper folders do not matter), or the label that the file of boxes gives.

    Args:
      folder: of images, see `IMAGE_SUFFIXES`; other files are left alone.
      split: a sub-folder such as "val", or "all".
      boxes: a CSV file (see `read_box_csv`) whose names are relative to the images' folder, or a folder of VOC-style
        XML files (see `parse_voc_xml`), named as their images; None for labels alone. An image that these leave out
        has no boxes.
      class_names: the classes in the order of their labels, such as the model's; None takes those that occur, sorted.
        Where all that occur are whole numbers (below 100,000), these are the labels.

    Raises:
      FileNotFoundError: the folder or the file of boxes is not there, or lists an image that is not.
      ValueError: no images; an image without a class, with two, or one that `class_names` lacks; a file of boxes that
        can't be read. The message names the file, and the line where there is one.
    """
    folder = Path(folder).expanduser()
    root = _split_folder(folder, split)
    names = find_images(root)
    if not names:
        raise ValueError(f"{root} has no images: expected files that end in {', '.join(IMAGE_SUFFIXES)}.")
    listed = {} if boxes is None else _listed(Path(boxes).expanduser(), root, names)
    labels = {name: _label(root, name, listed.get(name)) for name in names}
    class_names, ids = _classes(root, labels, class_names)
    images = [_Image(name, ids[labels[name]], listed.get(name)) for name in names]
    info = SourceInfo(str(folder), split, class_names, len(images), ("image", "label", "filename"))
    return ImageFolder(root, images, info, has_boxes=boxes is not None)


def _split_folder(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: expected one of images.")
    if split and (folder / split).is_dir() and ".." not in Path(split).parts:
        return folder / split
    if split == WHOLE_FOLDER:
        return folder
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = ", ".join(found[:10]) + (", ..." if len(found) > 10 else "") if found else "none"
    raise ValueError(
        f"split is {split!r}: expected a sub-folder of {folder} ({listed}), or {WHOLE_FOLDER!r} for all of its images."
    )


def _listed(boxes: Path, root: Path, names: Sequence[str]) -> Mapping[str, CsvImage | VocAnnotation]:
    """What the CSV or the XML files say, by the names of the images."""
    if not boxes.exists():
        raise FileNotFoundError(f"{boxes} does not exist: expected a CSV file or a folder of XML files with boxes.")
    if boxes.is_dir():
        return _from_xml(boxes, root, names)
    found, present = read_box_csv(boxes), set(names)
    for name, image in found.items():
        if name not in present:
            raise FileNotFoundError(f"{image.name}: there is no image {root / name}. Correct one of the names.")
    return found


def _from_xml(folder: Path, root: Path, names: Sequence[str]) -> Mapping[str, VocAnnotation]:
    """An XML file belongs to the image of its own path within the folder or, where there is none, of its own name."""
    by_path: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for name in names:
        by_path.setdefault(name.rpartition(".")[0], []).append(name)
        by_stem.setdefault(stem_of(name), []).append(name)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".xml" and path.name[0] != ".")
    if not files:
        raise ValueError(f"{folder} has no XML files: expected one for each image with boxes, or a CSV file.")
    found: dict[str, VocAnnotation] = {}
    for path in files:
        place = path.relative_to(folder).with_suffix("").as_posix()
        matches = by_path.get(place) or by_stem.get(path.stem, [])
        if not matches:
            raise FileNotFoundError(f"{path}: there is no image {place!r} in {root}. Rename one of them.")
        if len(matches) > 1:
            raise ValueError(f"{path} may be about {' or '.join(matches)}: put it where its image is, or rename them.")
        (name,) = matches
        if name in found:
            raise ValueError(f"{path} and {found[name].name} are both about {name}: keep one of them.")
        found[name] = read_voc_xml(path)
    return found


def _label(root: Path, name: str, listed: CsvImage | VocAnnotation | None) -> str:
    """The name of an image's class."""
    classes = set() if listed is None else set(listed.classes)
    if "/" in name:
        classes.add(name.partition("/")[0])
    if len(classes) > 1:
        raise ValueError(
            f"{listed.name}: {root / name} is of the classes {', '.join(sorted(classes))}: expected one, that of its "
            "folder and of all of its objects."
        )
    if not classes:
        raise ValueError(
            f"{root / name} has no class: expected a sub-folder for each class, or a label in the file of boxes."
        )
    return classes.pop()


def _classes(
    root: Path, labels: Mapping[str, str], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of all classes in the order of their labels, and the label of each name that may occur."""
    found = sorted(set(labels.values()))
    if class_names is None:
        if all(name.isascii() and name.isdecimal() and len(name) < 6 and name == str(int(name)) for name in found):
            found = [str(number) for number in range(max(map(int, found)) + 1)]
        class_names = found
    ids = {name: label for label, name in enumerate(class_names)}
    for name, label in labels.items():
        if label not in ids:
            raise ValueError(
                f"{root / name} is of the class {label!r}, which is none of the {len(ids)} classes such as "
                f"{', '.join(map(repr, list(ids)[:3]))}. Rename the folder or the label."
            )
    return tuple(class_names), ids
