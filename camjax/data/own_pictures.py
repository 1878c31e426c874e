"""One's own pictures, to train on: a folder, a list or a prepared data set, what is in it, and its split in two."""

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camjax.addresses import as_path, local_path
from camjax.data.annotation import AnnotatedSource
from camjax.data.annotations.label_csv import (
    TEST,
    TRAIN,
    UNREADABLE,
    VALIDATION,
    ListedPicture,
    class_name,
    picture_source,
    read_label_csv,
    sorted_classes,
    write_label_csv,
)
from camjax.data.decoding import ImageError, decode_image
from camjax.data.image_files import IMAGE_SUFFIXES
from camjax.data.picture_folders import ADVICE, number, pictures_of_folder
from camjax.data.regular_files import read_regular
from camjax.data.source_info import SourceInfo
from camjax.errors import InputError, few, printable

if TYPE_CHECKING:
    from camjax.data.sources import Source

_SHOWN = 10
_SHOWN_CLASSES = 20
_AT_A_TIME = 256
_VALIDATION = ("validation", "val", "valid")
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")  # what is not UTF-8 becomes a surrogate in Python


@dataclass(frozen=True)
class Inspection:
    """What was found in one's own pictures.

    Attributes:
      origin: what they are and where their split comes from, a sentence.
      counts: split ("train", "validation") -> class -> number of its pictures that can be read, in the order of the
        labels; empty for a prepared data set, which is not read through.
      unreadable: the name of each file that cannot be read -> why.
      in_both: pairs of files with the same content, one to train and one to validate.
      in_two_classes: pairs of files with the same content and different classes.
      too_few: the classes with fewer than two pictures.
      notes: further sentences about what is there and not used, or taken in a way that may surprise.
    """

    origin: str
    counts: Mapping[str, Mapping[str, int]]
    unreadable: Mapping[str, str]
    in_both: Sequence[tuple[str, str]] = ()
    in_two_classes: Sequence[tuple[str, str]] = ()
    too_few: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class OwnPictures:
    """One's own pictures; `open_own_pictures` makes it.

    Attributes:
      train: the source to train on: image (turned by its EXIF tag), label and filename. It can be pickled.
      validation: the source to evaluate on, with the same classes.
      class_names: of all classes, in the order of the labels.
      found: what is there.
      root: what file names are relative to; None for a prepared data set.
      pictures: all pictures, unreadable ones too; empty for a prepared data set.
    """

    train: "AnnotatedSource | Source"
    validation: "AnnotatedSource | Source"
    class_names: tuple[str, ...]
    found: Inspection
    root: Path | None = None
    pictures: Sequence[ListedPicture] = ()

    def lines(self) -> list[str]:
        """What a person reads before training: origin, classes with counts, and what is wrong with single files."""
        found = self.found
        lines = [
            f"{len(self.class_names)} classes, {len(self.train)} pictures to train on and {len(self.validation)} to "
            f"validate. {found.origin}"
        ]
        if found.counts:
            lines += _table(found.counts)
        if found.too_few:
            many = number(found.too_few, "class has", "classes have")
            lines.append(f"{many} fewer than two pictures: {few(found.too_few)}.")
        absent = [name for name, count in found.counts.get(VALIDATION, {}).items() if not count]
        if absent := [name for name in absent if name not in set(found.too_few)]:
            lines.append(f"Without a picture to validate: {few(absent)}.")
        lines += _listed(
            [f"{name}: {reason}" for name, reason in found.unreadable.items()],
            number(found.unreadable, "file", "files") + " cannot be read and will be left out:",
        )
        lines += _listed(
            [f"{one} and {other}" for one, other in found.in_both],
            "The same picture both to train and to validate, so the accuracy will be too good; keep one:",
        )
        lines += _listed(
            [f"{one} and {other}" for one, other in found.in_two_classes],
            "The same picture in two classes, one of which is wrong:",
        )
        return [printable(line, 1000) for line in (*lines, *found.notes)]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the pictures and their split to `path`, a CSV file that `open_own_pictures` and `open_annotated` read.

        The columns are file, label, split ("train", "validation" or "unreadable"), sha256 of the file's content, and
        problem, the reason of an unreadable one. A line with sha256 or problem says that the file has been checked:
        `open_own_pictures` does not decode it again. Files are relative if the CSV file is in the pictures' own folder;
        elsewhere absolute, as "/home/ann/photos/./cat/1.jpg": names of boxes are relative to what is before "/./".

        Raises:
          ValueError: a prepared data set, which has its splits already: open it by its name.
          OSError: the file cannot be written.
        """
        if self.root is None:
            raise InputError(
                f"{self.train!r} is a prepared data set, which has no files to list. Open it by its name, with the "
                f"splits {self.train.info.split!r} and {self.validation.info.split!r}."
            )
        write_label_csv(path, self.root, self.pictures)


def open_own_pictures(
    data: str | os.PathLike[str],
    *,
    validation: float = 0.2,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    known: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> OwnPictures:
    """Opens one's own pictures for training, once each file has been read and decoded.

    - A folder with `train/CLASS/*` and `val/CLASS/*` (or validation, valid, test).
    - A folder with `CLASS/*`, of which a share becomes the validation set. Deeper folders belong to their class.
    - A CSV file, see docs/data.md, such as one of `OwnPictures.write`.
    - A data set that `camjax prepare` or tensorflow-datasets prepared, by its name. It is not read through.

    Files that cannot be read are left out, and said. A split made here has of each class round(validation * n) of its n
    pictures, at least one for either side; files with the same content are on the same side. It depends on the seed and
    the content of the files alone: it is the same on any machine, and few pictures change sides where others are added.

    Args:
      data: the folder, file or name. Of a folder and a data set of the same name, it is the folder.
      validation: the share of the pictures to validate, above 0 and below 1, where there is no split.
      seed: of that split.
      data_dir: where prepared data sets are; `data` is then the name of one.
      known: the CSV file that `OwnPictures.write` wrote of the same pictures: none is read again, and other pictures or
        another split are an error.
      progress: called with the number of files checked and their number.

    Returns:
      The pictures, see `OwnPictures`.

    Raises:
      FileNotFoundError: there is nothing of that name, or files that a CSV file lists are missing.
      ValueError: nothing that a network could be trained on. Each message says what was found and what to do.
    """
    if not 0 < validation < 1:
        raise InputError(f"validation is {validation}: expected a share of the pictures, above 0 and below 1.")
    path = as_path(data) if os.fspath(data).lower().endswith(".csv") else local_path(data, "pictures in")
    if data_dir is not None or not (path.exists() or isinstance(data, os.PathLike) or path.suffix.lower() == ".csv"):
        return _prepared(str(data), validation, data_dir)
    if path.is_dir():
        root = _absolute(path)
        pictures, origin, notes = pictures_of_folder(path)
    elif path.exists() and path.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{path} is one picture: expected a folder of pictures, or a CSV file. {ADVICE}")
    else:
        root, pictures = read_label_csv(path)
        pictures, notes = _without_test(pictures)
        origin = f"Listed in {path}."
    pictures = _with_class_names(pictures, path)
    # Before the files are read, which may take long, and after, since some may be left out.
    _check_classes([item for item in pictures if item.split != UNREADABLE], path)
    earlier = [] if known is None else read_label_csv(known)[1]
    pictures = _as_known(pictures, earlier)
    pictures = _read_all(root, pictures, progress)
    good = [item for item in pictures if item.split != UNREADABLE]
    _check_readable(pictures, path)
    _check_classes(good, path)
    if not good[0].split:
        good = _split(good, validation, seed)
        _check_classes(good, path)
        origin += f" Split here: {100 * validation:g} % of each class to validate, seed {seed}."
    names = sorted_classes(item.label for item in good)
    labels = {name: label for label, name in enumerate(names)}
    sides, sources, counts = {}, {}, {}
    for split in (TRAIN, VALIDATION):
        sides[split] = [item for item in good if item.split == split]
        info = SourceInfo(str(root), split, names, len(sides[split]), ("image", "label", "filename"))
        sources[split] = picture_source(root, sides[split], labels, info)
        count = Counter(item.label for item in sides[split])
        counts[split] = {name: count[name] for name in names}
    bad = [item for item in pictures if item.split == UNREADABLE]
    found = Inspection(
        origin,
        counts,
        {item.name: item.problem or "listed as unreadable" for item in bad},
        *_repeated(sides[TRAIN], sides[VALIDATION]),
        [name for name in names if counts[TRAIN][name] + counts[VALIDATION][name] < 2],
        notes,
    )
    in_order = sorted([*good, *bad], key=lambda item: item.name)
    if known is not None:
        _check_same(in_order, earlier, path, known)
    return OwnPictures(sources[TRAIN], sources[VALIDATION], names, found, root, in_order)


def _as_known(pictures: list[ListedPicture], earlier: Sequence[ListedPicture]) -> list[ListedPicture]:
    """The pictures, with what an earlier reading of their files found."""
    by_name = {item.name: item for item in earlier}
    found = []
    for item in pictures:
        before = by_name.get(item.name, item)
        split = UNREADABLE if before.split == UNREADABLE else item.split
        found.append(replace(item, split=split, sha256=before.sha256, problem=before.problem))
    return found


def _check_same(
    pictures: Sequence[ListedPicture], earlier: Sequence[ListedPicture], data: Path, known: str | os.PathLike[str]
) -> None:
    """Raises InputError unless both are the same pictures with the same classes and splits."""
    now, before = ({item.name: (item.label, item.split) for item in items} for items in (pictures, earlier))
    more, gone = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    changed = sorted(name for name in now.keys() & before.keys() if now[name] != before[name])
    if more or gone or changed:
        what = [
            f"{number(names, 'picture', 'pictures')} {word}: {few(names)}"
            for word, names in (("more", more), ("less", gone), ("of another class or split", changed))
            if names
        ]
        raise InputError(
            f"{data} has other pictures than {os.fspath(known)}, which a run split: {'; '.join(what)}. Go on with the "
            "same pictures, share to validate and seed, or take another --out."
        )


def _absolute(folder: Path) -> Path:
    """The absolute path, without ".." unless that would lead elsewhere, behind a link."""
    absolute = Path(os.path.abspath(folder))
    return absolute if absolute.exists() and absolute.samefile(folder) else folder.resolve()


def _without_test(pictures: list[ListedPicture]) -> tuple[list[ListedPicture], list[str]]:
    """The pictures of a list with the splits train and validation: of validation and test, the first that is there."""
    found = Counter(item.split for item in pictures)
    if not found[TEST]:
        return pictures, []
    if not found[VALIDATION]:
        return [replace(item, split=VALIDATION) if item.split == TEST else item for item in pictures], []
    note = f"Not used, beside train and validation: {number(found[TEST], 'picture', 'pictures')} of the split test."
    return [item for item in pictures if item.split != TEST], [note]


def _with_class_names(pictures: Sequence[ListedPicture], data: Path) -> list[ListedPicture]:
    """The pictures with the names of their classes instead of those of folders.

    Raises:
      InputError: two names that a person or a file system may take for one another, or that a list cannot hold.
    """
    files: dict[str, str] = {}
    classes: dict[str, str] = {}
    for item in pictures:
        if _NO_NAME.search(item.name) or _NO_NAME.search(item.label):
            raise InputError(
                f"{data} has the file {item.name!a} of class {item.label!a}: expected names in UTF-8, without control "
                "characters and backslashes. Rename it."
            )
        for kind, name, known in (("classes", item.label, classes), ("files", item.name, files)):
            folded = unicodedata.normalize("NFC", name).casefold()
            first = known.setdefault(" ".join(folded.split()) if kind == "classes" else folded, name)
            if first != name:
                raise InputError(
                    f"{data} has the {kind} {first!a} and {name!a}, which differ only in upper and lower case, "
                    "in blanks or in how an accent is stored: many computers take them for one. Rename or merge them."
                )
    return [replace(item, label=class_name(item.label)) for item in pictures]


def _check_classes(pictures: Sequence[ListedPicture], data: Path) -> None:
    """Raises InputError for what cannot be trained on, whatever the content of the files."""
    sides: dict[str, dict[str, None]] = {}
    for item in pictures:
        sides.setdefault(item.split, {})[item.label] = None
    names = sorted_classes(name for side in sides.values() for name in side)
    if len(names) < 2:
        raise InputError(
            f"{data} has {number(names, 'class', 'classes')} with pictures ({few(names)}): expected two or more. Add "
            "pictures of what is to be told from the first."
        )
    if "" in sides:
        if len(pictures) == len(names):
            raise InputError(
                f"{data} has one picture of each class: expected a class with two, one of them to validate. Add some."
            )
        return
    for split in (TRAIN, VALIDATION):
        if split not in sides:
            raise InputError(f"{data} has no picture of the split {split} that can be read: expected some. Add them.")
    if absent := [name for name in names if name not in sides[TRAIN]]:
        raise InputError(
            f"{data} has pictures to validate of {number(absent, 'class', 'classes')} without any to train on: "
            f"{few(absent)}. Those to train on are of {few(sides[TRAIN])}. Add pictures, or correct the names."
        )


def _read_all(
    root: Path, pictures: Sequence[ListedPicture], progress: Callable[[int, int], None] | None
) -> list[ListedPicture]:
    """The pictures with the hashes of their files; those that cannot be read are so in their split, with the reason."""

    def read(item: ListedPicture) -> ListedPicture:
        try:
            data = read_regular(root / item.name, error=ImageError)
            decode_image(data, apply_exif=True)
        except ImageError as error:
            return replace(item, split=UNREADABLE, problem=printable(error))
        except OSError as error:
            return replace(item, split=UNREADABLE, problem=printable(error.strerror or error))
        return replace(item, sha256=hashlib.sha256(data).hexdigest())

    found = list(pictures)
    unchecked = [i for i, item in enumerate(pictures) if not item.sha256 and item.split != UNREADABLE]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Few at a time, since an interrupt waits for those that are under way.
        for start in range(0, len(unchecked), _AT_A_TIME):
            some = [pictures[i] for i in unchecked[start : start + _AT_A_TIME]]
            for done, item in enumerate(pool.map(read, some), start + 1):
                found[unchecked[done - 1]] = item
                if progress is not None:
                    progress(done, len(unchecked))
    return found


def _check_readable(pictures: Sequence[ListedPicture], data: Path) -> None:
    """Raises InputError if most files of a class cannot be read: a mistake, more than single damaged files."""
    bad: dict[str, list[ListedPicture]] = {}
    for item in pictures:
        if item.split == UNREADABLE:
            bad.setdefault(item.label, []).append(item)
    counts = Counter(item.label for item in pictures)
    for name, items in bad.items():
        if 2 * len(items) > counts[name]:
            raise InputError(
                f"{data}: {len(items)} of {number(counts[name], 'picture', 'pictures')} of class {name!r} cannot be "
                f"read, such as {items[0].name}: {items[0].problem}. Get complete copies, or take the class away."
            )


def _split(pictures: Sequence[ListedPicture], share: float, seed: int) -> list[ListedPicture]:
    """The pictures with their splits, see `open_own_pictures`."""
    same: dict[str, list[int]] = {}
    for place, item in enumerate(pictures):
        same.setdefault(item.sha256, []).append(place)
    of_class: dict[str, list[str]] = {}
    for sha256, places in same.items():
        # A picture of two classes tells nothing about the accuracy.
        if len(names := {pictures[place].label for place in places}) == 1:
            of_class.setdefault(names.pop(), []).append(sha256)
    counts = Counter(item.label for item in pictures)
    to_validate: set[int] = set()
    for name, hashes in of_class.items():
        room = min(max(round(share * counts[name]), 1), counts[name] - 1)
        hashes.sort(key=lambda sha256: hashlib.sha256(f"{seed} {sha256}".encode()).digest())
        fewest = min(len(same[sha256]) for sha256 in hashes)
        room = max(room, fewest) if fewest < counts[name] else 0
        for sha256 in hashes:
            if len(same[sha256]) <= room:
                room -= len(same[sha256])
                to_validate.update(same[sha256])
    return [replace(item, split=VALIDATION if i in to_validate else TRAIN) for i, item in enumerate(pictures)]


def _repeated(
    train: Sequence[ListedPicture], validation: Sequence[ListedPicture]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs of files with the same content: those in both splits, and those in two classes."""
    to_train = {item.sha256: item.name for item in reversed(train)}
    in_both = [(to_train[item.sha256], item.name) for item in validation if item.sha256 in to_train]
    first: dict[str, ListedPicture] = {}
    pairs = [(first.setdefault(item.sha256, item), item) for item in (*train, *validation)]
    return in_both, [(one.name, other.name) for one, other in pairs if one.label != other.label]


def _prepared(name: str, share: float, data_dir: str | os.PathLike[str] | None) -> OwnPictures:
    """A data set of tfds: its own splits, or two parts of `train`."""
    from camjax.data.builders import prepared_builder  # here, since they need tfds
    from camjax.data.sources import open_source

    try:
        splits = prepared_builder(name, data_dir=data_dir).info.splits
    except (InputError, FileNotFoundError) as error:
        place = f"there is no folder or file {name!r}, and as the name of a data set: " if data_dir is None else ""
        raise type(error)(f"{place}{error}") from error
    if TRAIN not in splits:
        raise InputError(f"data set {name!r} has the splits {', '.join(sorted(splits))}: expected one named train.")
    to_train, to_validate = TRAIN, next((split for split in (*_VALIDATION, TEST) if split in splits), "")
    origin = f"The splits {to_train} and {to_validate} of the prepared data set {name}."
    if not to_validate:
        count = splits[TRAIN].num_examples
        cut = count - min(max(round(share * count), 1), count - 1)
        to_train, to_validate = f"{TRAIN}[:{cut}]", f"{TRAIN}[{cut}:]"
        origin = f"The prepared data set {name} has no validation or test: {to_train} and {to_validate} are used."
    train, validation = (open_source(name, split, data_dir=data_dir) for split in (to_train, to_validate))
    if train.info.num_classes < 2:
        raise InputError(f"data set {name!r} has {train.info.num_classes} class: expected two or more.")
    return OwnPictures(train, validation, train.info.class_names, Inspection(origin, {}, {}))


def _table(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A row for each class; of many classes, for the most and the least frequent."""
    names = list(counts[TRAIN])
    left = len(names) - _SHOWN_CLASSES
    if left > 0:
        names.sort(key=lambda name: -counts[TRAIN][name] - counts[VALIDATION][name])
    rows = [(printable(name, 40), *(str(counts[split][name]) for split in (TRAIN, VALIDATION))) for name in names]
    if left > 0:
        rows[_SHOWN_CLASSES // 2 : -_SHOWN_CLASSES // 2] = [(f"... {left} more ...", "", "")]
    rows.insert(0, ("class", TRAIN, VALIDATION))
    width = max(len(name) for name, *_ in rows)
    return [f"  {name:{width}}  {train:>7}  {validation:>10}".rstrip() for name, train, validation in rows]


def _listed(items: Sequence[str], title: str) -> list[str]:
    """A title and the first items below it; nothing if there are none."""
    if not items:
        return []
    rest = [f"  ... and {len(items) - _SHOWN} more"] * (len(items) > _SHOWN)
    return [title, *(f"  {item}" for item in items[:_SHOWN]), *rest]
