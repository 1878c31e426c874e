"""A folder of images, with a sub-folder for each class; formats with boxes for such a folder build on it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from camjax.class_names import match_class_names
from camjax.data.annotation import UNLABELED, UNREADABLE, AnnotatedSource, Annotation, no_boxes
from camjax.data.annotations._format import Format, Request
from camjax.data.decoding import ImageError
from camjax.data.image_files import (
    IMAGE_SUFFIXES,
    find_images,
    read_orientation,
    read_stored_image,
    read_stored_size,
)
from camjax.data.images import load_image
from camjax.data.pixel_boxes import ListedImage, turn_boxes
from camjax.data.source_info import SourceInfo
from camjax.errors import InputError

WHOLE_FOLDER = "all"
"""The split that is all of the folder, unless it has a sub-folder of that name."""


class ImageFolder(AnnotatedSource):
    """The images of a folder; `open_folder` makes one.

    The annotation of an image with boxes that cannot be read has `excluded` set. So has that of an image that the file
    of boxes lists without class and box, as it does where nothing could be predicted for an unreadable one; its label
    is -1 in `labels`.

    Args:
      folder: of the images.
      labels: the label of each image by its name, in the order of the source.
      listed: what is known about some of them, with boxes on the stored pixels.
      info: what the source holds.
      has_boxes: whether there is a file of boxes.
      turned: turn images by their EXIF tag, and their boxes with them.
    """

    def __init__(
        self,
        folder: Path,
        labels: Mapping[str, int],
        listed: Mapping[str, ListedImage],
        info: SourceInfo,
        has_boxes: bool,
        *,
        turned: bool = False,
    ):
        self._folder, self._labels, self._listed, self.info, self.has_boxes = folder, labels, listed, info, has_boxes
        self._sizes = _checked_sizes(folder, listed)
        self._names, self._turned = tuple(labels), turned

    def __getitem__(self, index: int) -> dict:
        self._check_index(index)
        name = self._names[index]
        read = load_image if self._turned else read_stored_image
        return {"image": read(self._folder / name), "label": max(self._labels[name], 0), "filename": name}

    def annotation(self, index: int) -> Annotation:
        """See `AnnotatedSource.annotation`."""
        self._check_index(index)
        name = self._names[index]
        label, listed = self._labels[name], self._listed.get(name)
        if label < 0:
            return Annotation(name, 0, no_boxes(), UNLABELED)
        if listed is None or not listed.corners:
            return Annotation(name, label, no_boxes())
        size = self._sizes[name]
        if size is None:
            return Annotation(name, label, no_boxes(), UNREADABLE)
        boxes, wsol_boxes = listed.boxes(size), listed.wsol_boxes(size)
        if self._turned:
            orientation = read_orientation(self._folder / name)
            boxes, wsol_boxes = turn_boxes(boxes, orientation), turn_boxes(wsol_boxes, orientation)
        return Annotation(name, label, boxes, wsol_boxes=wsol_boxes)


def open_folder(
    request: Request, read: Callable[[Path, Path, Sequence[str]], Mapping[str, ListedImage]] | None = None
) -> ImageFolder:
    """Opens a folder of images, see `camjax.data.open_image_folder`.

    Args:
      request: `dataset` is the folder; it has `boxes` if there is `read`.
      read: reads boxes: (file or folder of boxes, folder of images, the images' names) -> what is said about them, by
        name. None for labels alone.
    """
    root = _split_folder(request.folder, request.split)
    names = find_images(root)
    if not names:
        raise InputError(f"{root} has no images: expected files that end in {', '.join(IMAGE_SUFFIXES)}.")
    listed = {} if read is None or request.boxes is None else read(request.boxes, root, names)
    classes = {name: _class_name(root / name, name, listed.get(name)) for name in names}
    class_names, ids = _class_ids(root, classes, request.class_names)
    info = SourceInfo(str(request.folder), request.split, class_names, len(names), ("image", "label", "filename"))
    labels = {name: -1 if label is None else ids[label] for name, label in classes.items()}
    return ImageFolder(root, labels, listed, info, has_boxes=read is not None)


def _checked_sizes(folder: Path, listed: Mapping[str, ListedImage]) -> dict[str, tuple[int, int] | None]:
    """The sizes of the images that have boxes, None where an image can't be read; raises ValueError for a bad box."""

    def size(name: str) -> tuple[int, int] | None:
        try:
            return read_stored_size(folder / name)
        except ImageError:
            return None

    names = [name for name, image in listed.items() if image.corners]
    with ThreadPoolExecutor(8) as pool:
        sizes = dict(zip(names, pool.map(size, names), strict=True))
    for name, found in sizes.items():
        if found:
            listed[name].check(found, folder / name)
    return sizes


def _split_folder(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: expected a folder of images.")
    if split and (folder / split).is_dir() and ".." not in Path(split).parts:
        return folder / split
    if split == WHOLE_FOLDER:
        return folder
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = ", ".join([*found[:10], "..."] if len(found) > 10 else found) or "it has none"
    raise InputError(
        f"split is {split!r}: expected a sub-folder of {folder} ({listed}), or {WHOLE_FOLDER!r} for all of its images."
    )


def _class_name(path: Path, name: str, listed: ListedImage | None) -> str | None:
    """The class of an image; None for one that is listed without class and box."""
    where, classes = (str(path), set()) if listed is None else (f"{listed.where}: {path}", set(listed.classes))
    if "/" in name:
        classes.add(name.partition("/")[0])
    if len(classes) > 1:
        raise InputError(
            f"{where} has the classes {', '.join(sorted(classes))}: expected one, that of its folder and of all of "
            "its objects."
        )
    if not classes and listed is not None and not listed.corners:
        return None
    if not classes:
        raise InputError(f"{path} has no class: expected a sub-folder for each class, or a label in the file of boxes.")
    return classes.pop()


def _class_ids(
    root: Path, classes: Mapping[str, str | None], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of all classes in the order of their labels, and the label of each name."""
    found = sorted({name for name in classes.values() if name is not None})
    if not found:
        raise InputError(f"{root}: none of the {len(classes)} images has a class.")
    if class_names is None:
        if all(name.isascii() and name.isdecimal() and len(name) < 6 and name == str(int(name)) for name in found):
            found = [str(number) for number in range(max(map(int, found)) + 1)]
        class_names = found
    ids = match_class_names(found, class_names, len(class_names), data=str(root)).tolist()
    return tuple(class_names), dict(zip(found, ids, strict=True))


FORMAT = Format(
    title="a folder of images",
    options=("class_names",),
    recognizes=lambda request: request.is_folder and request.boxes is None,
    open=open_folder,
)
