"""Pictures and their classes in a CSV file: `file,label`, and the split of each where it has one."""

import csv
import io
import os
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from camjax.addresses import as_path
from camjax.class_names import match_class_names
from camjax.data.annotations import box_csv, voc_xml
from camjax.data.annotations._format import Format, Request
from camjax.data.annotations.class_folders import WHOLE_FOLDER, ImageFolder
from camjax.data.image_files import names_on_disk, spelling
from camjax.data.pixel_boxes import ListedImage
from camjax.data.source_info import SourceInfo
from camjax.data.text_files import read_table
from camjax.errors import InputError
from camjax.files import write_whole

TRAIN, VALIDATION, TEST, UNREADABLE = "train", "validation", "test", "unreadable"
SPLITS = {
    **{name: name for name in (TRAIN, VALIDATION, TEST, UNREADABLE)},
    **dict.fromkeys(("val", "valid"), VALIDATION),
}
"""What people call a split, in lower case -> what it is called here."""

_COLUMNS = ("file", "label", "split", "sha256", "problem")
_MARK = "/./"


@dataclass(frozen=True, slots=True)
class ListedPicture:
    """A row of the file.

    Attributes:
      name: relative to the root, with forward slashes, as it is on the disk.
      label: the name of its class.
      split: one of the values of `SPLITS`, or "" where the file has no splits.
      sha256: of the file's content, in hexadecimal, if the file has been checked; "" if not.
      problem: why the file cannot be read; "" if it can, or has not been checked.
      where: the line, for messages.
    """

    name: str
    label: str
    split: str = ""
    sha256: str = ""
    problem: str = ""
    where: str = ""


def read_label_csv(path: str | os.PathLike[str]) -> tuple[Path, list[ListedPicture]]:
    """Reads a CSV file, in UTF-8 and with commas, with a line for each picture.

    The first line names the columns, in any order: `file` and `label`, and perhaps `split` (train, validation, test or
    unreadable; val and valid are validation), `sha256` and `problem`, see `ListedPicture`. Others are ignored.

    Files are relative to the folder of the CSV file, or absolute. That folder is the root; if a name is absolute or
    leads out of it, the root is the deepest folder that holds all pictures, or what stands before "/./" in all names.

    Returns:
      The root, absolute, and the pictures in the file's order. Lines that say the same of a picture are one.

    Raises:
      FileNotFoundError: the CSV file, or some of the pictures are missing; the message says how many. Pictures of the
        split "unreadable" may be missing.
      ValueError: a missing column, a line without file or label, two labels or splits of a picture, an unknown split,
        or splits in some lines only; the message names file and line.
    """
    path = as_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected a CSV file with the columns file,label.")
    rows = [_parse(row, where) for where, row in read_table(path, _COLUMNS[:2])]
    if not rows:
        raise InputError(
            f"{path} lists no pictures: expected a line file,label for each below the names of the columns."
        )
    root, names = _relative([row.name for row in rows], os.path.abspath(path.parent))
    listed: dict[str, ListedPicture] = {}
    for row, name in zip(rows, names, strict=True):
        first = listed.setdefault(name, row)
        for kind, given, before in (("label", row.label, first.label), ("split", row.split, first.split)):
            if given != before:
                raise InputError(
                    f"{row.where} gives {name!r} the {kind} {given!r}, but {first.where} gives {before!r}: expected "
                    "one."
                )
    _check_splits([row for row in listed.values() if row.split != UNREADABLE])
    on_disk = names_on_disk(root, listed)
    missing = [name for name, row in listed.items() if row.split != UNREADABLE and on_disk[name] is None]
    if missing:
        others = f", with {len(missing) - 1} others" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{listed[missing[0]].where}: {root / missing[0]} is missing{others}. Correct the names, which are "
            "relative to the folder of the CSV file or absolute, or complete the pictures."
        )
    return root, [replace(row, name=on_disk[name] or name) for name, row in listed.items()]


def write_label_csv(path: str | os.PathLike[str], root: Path, pictures: Iterable[ListedPicture]) -> None:
    """Writes what `read_label_csv` reads, with all of its columns, in one step.

    Files are relative, "./cat/1.jpg", if the CSV file is in the root itself; elsewhere they are absolute:
    "/home/ann/photos/./cat/1.jpg" with the root /home/ann/photos.
    """
    inside = Path(os.path.abspath(Path(path).parent)) == root
    before = "./" if inside else f"{str(root).rstrip('/')}{_MARK}"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for picture in pictures:
        writer.writerow((f"{before}{picture.name}", picture.label, picture.split, picture.sha256, picture.problem))
    write_whole(path, text.getvalue(), make_parent=True)


def sorted_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """The names of classes in the order of their labels: whole numbers by their value, else all by their characters."""
    names = sorted(set(labels))
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else names)


def picture_source(
    root: Path,
    pictures: Sequence[ListedPicture],
    labels: Mapping[str, int],
    info: SourceInfo,
    boxes: Mapping[str, ListedImage] | None = None,
) -> ImageFolder:
    """The source of pictures below a root, `labels` by the names of their classes, and boxes by the pictures' names.

    They are turned by their EXIF tags, as `load_images` and `camjax explain` turn a person's photograph: a network that
    is trained on photographs as they are stored would see those of a telephone lying on their side.
    """
    of_name = {item.name: labels[item.label] for item in pictures}
    return ImageFolder(root, of_name, boxes or {}, info, boxes is not None, turned=True)


def class_name(text: str) -> str:
    """A class's name as a file or a folder writes it, without blanks around, and with accents as one character."""
    return unicodedata.normalize("NFC", text).strip()


def _parse(row: dict[str, str], where: str) -> ListedPicture:
    """A row, whose name is not yet relative to the root."""
    file, label, split, sha256, problem = (row.get(column, "").strip() for column in _COLUMNS)
    for column, text in (("file", file), ("label", label)):
        if not text:
            raise InputError(f"{where} has no {column}: expected a picture's file and the name of its class.")
    if split and split.lower() not in SPLITS:
        raise InputError(f"{where} has the split {split!r}: expected {', '.join(SPLITS)}.")
    return ListedPicture(file, class_name(label), SPLITS.get(split.lower(), ""), sha256, problem, where)


def _relative(files: Sequence[str], folder: str) -> tuple[Path, list[str]]:
    """The root, see `read_label_csv`, and the names relative to it; `folder` is that of the CSV file."""
    files = [file.replace("\\", "/") for file in files]
    if not any(file.startswith("/") or posixpath.normpath(file).startswith("../") for file in files):
        return Path(folder), [spelling(file) for file in files]
    absolute = [posixpath.normpath(posixpath.join(folder, file)) for file in files]
    marked = {file.rpartition(_MARK)[0] if file.startswith("/") else "" for file in files}
    if len(marked) == 1 and (root := marked.pop()):
        root = posixpath.normpath(root)
    else:
        root = posixpath.commonpath({posixpath.dirname(file) for file in absolute})
    # As they are on the disk: `spelling` would rewrite accents in the names of folders above the root.
    return Path(root), [spelling(file[len(root.rstrip("/")) + 1 :]) for file in absolute]


def _check_splits(rows: Sequence[ListedPicture]) -> None:
    given = next((row for row in rows if row.split), None)
    absent = next((row for row in rows if not row.split), None)
    if given and absent:
        raise InputError(
            f"{absent.where} has no split, but {given.where} has {given.split!r}: expected a split in all lines, or in "
            "none."
        )


def _open(request: Request) -> ImageFolder:
    root, pictures = read_label_csv(request.folder)
    readable = [item for item in pictures if item.split != UNREADABLE]
    chosen = _of_split(readable, request)
    found = sorted_classes(item.label for item in readable)
    names = found if request.class_names is None else tuple(request.class_names)
    ids = match_class_names(found, names, len(names), data=str(request.folder)).tolist()
    labels = dict(zip(found, ids, strict=True))
    info = SourceInfo(str(request.folder), request.split, names, len(chosen), ("image", "label", "filename"))
    listed: dict[str, ListedImage] = {}
    if request.boxes is not None:
        read = voc_xml.read_boxes if request.boxes.is_dir() else box_csv.read_boxes
        boxes = read(request.boxes, root, [item.name for item in pictures])
        listed = {item.name: boxes[item.name] for item in chosen if item.name in boxes}
        _check_labels(chosen, listed)
    return picture_source(root, chosen, labels, info, listed if request.boxes else None)


def _of_split(pictures: Sequence[ListedPicture], request: Request) -> list[ListedPicture]:
    if request.split == WHOLE_FOLDER:
        return list(pictures)
    found = {item.split for item in pictures}
    split = SPLITS.get(request.split.lower(), request.split)
    if split == VALIDATION and split not in found:
        split = TEST
    if split not in found - {""}:
        listed = ", ".join(sorted(found - {""})) or "it has none"
        raise InputError(
            f"split is {request.split!r}: expected one of {request.folder} ({listed}), or {WHOLE_FOLDER!r} for all of "
            "its pictures that can be read."
        )
    return [item for item in pictures if item.split == split]


def _check_labels(pictures: Sequence[ListedPicture], boxes: Mapping[str, ListedImage]) -> None:
    for item in pictures:
        others = {class_name(name) for name in boxes[item.name].classes} - {item.label} if item.name in boxes else ()
        if others:
            raise InputError(
                f"{boxes[item.name].where} gives {item.name!r} the class {', '.join(sorted(others))}, but {item.where} "
                f"gives {item.label!r}: expected one."
            )


FORMAT = Format(
    title="pictures in a CSV file of labels",
    options=("boxes", "class_names"),
    recognizes=lambda request: request.dataset.lower().endswith(".csv") and not request.folder.is_dir(),
    open=_open,
)
