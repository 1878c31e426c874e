"""A folder of images with wsolevaluation's text lists: boxes of ImageNetV2, CUBV2 and others, masks of OpenImages.

A folder of lists (`metadata/ILSVRC/val`, say) describes one split of a folder of images (`dataset/ILSVRC`). Paths have
forward slashes, numbers are whole, lines have no header (Choe et al., CVPR 2020; github.com/clovaai/wsolevaluation):

- image_ids.txt: `path`, one image a line.
- class_labels.txt: `path,label`.
- localization.txt: `path,x0,y0,x1,y1`, one box a line; or `path,mask,ignore`, one object's mask a line. One line of an
  image names its mask of regions to ignore, the others leave it empty. Splits for training may lack this file.
- image_sizes.txt: `path,width,height`; needed with boxes.

wsolevaluation's metrics work on a grid of 224 x 224 pixels. They multiply the numbers of a box, as its file lists them,
by 224 / width or 224 / height and drop the fraction, whether or not a box includes its last pixel:
`Annotation.wsol_boxes` are the listed numbers as shares of the image, not a pixel wider. Masks come to the grid by the
nearest pixel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from camjax.data.annotation import BLACKLISTED, AnnotatedSource, Annotation, no_boxes, resize_mask, stem_of
from camjax.data.annotations._blacklist import check_blacklist, read_blacklist
from camjax.data.annotations._format import Format, Request
from camjax.data.decoding import ImageError, decode_gray
from camjax.data.image_files import check_files, read_stored_image
from camjax.data.pixel_boxes import Corners, check_corners, shares
from camjax.data.regular_files import read_regular
from camjax.data.source_info import SourceInfo
from camjax.data.text_files import read_lines
from camjax.errors import InputError

MOST_CLASSES = 100_000
"""Labels are below it where the number of classes is not given: each class takes memory."""

_LOCALIZATION = {5: "path,x0,y0,x1,y1", 3: "path,mask,ignore"}


@dataclass(frozen=True)
class Lists:
    """What the text lists of a split say.

    Attributes:
      images: path -> where it is listed, in order.
      labels: path -> label.
      sizes: path -> (H, W), where there are boxes.
      corners: path -> x0, y0, x1, y1 of each box; None where the lists have no boxes.
      masks: path -> the masks of its objects; None where the lists have no masks.
      ignores: path -> its mask of regions to ignore, where it has one.
    """

    images: dict[str, str]
    labels: dict[str, int]
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    corners: dict[str, list[Corners]] | None = None
    masks: dict[str, list[str]] | None = None
    ignores: dict[str, str] = field(default_factory=dict)


class ListedImages(AnnotatedSource):
    """The images that text lists describe.

    `boxes` are the listed numbers as shares too; only a side without length, x0 == x1, is one pixel long in them.
    """

    def __init__(self, folder: Path, mask_folder: Path, lists: Lists, info: SourceInfo, blacklist: frozenset[str]):
        self._folder, self._mask_folder, self._lists, self._blacklist = folder, mask_folder, lists, blacklist
        self._names = tuple(lists.images)
        self.info = info
        self.has_boxes, self.has_masks = lists.corners is not None, lists.masks is not None

    def __getitem__(self, index: int) -> dict:
        self._check_index(index)
        name = self._names[index]
        image = read_stored_image(self._folder / name)
        return {"image": image, "label": self._lists.labels[name], "filename": name}

    def annotation(self, index: int) -> Annotation:
        """See `AnnotatedSource.annotation`."""
        self._check_index(index)
        name, label = self._names[index], self._lists.labels[self._names[index]]
        excluded = BLACKLISTED if stem_of(name) in self._blacklist else ""
        corners = (self._lists.corners or {}).get(name)
        if not corners:
            return Annotation(name, label, no_boxes(), excluded)
        size = self._lists.sizes[name]
        boxes = shares([(x0, y0, max(x1, x0 + 1, 1), max(y1, y0 + 1, 1)) for x0, y0, x1, y1 in corners], size)
        return Annotation(name, label, boxes, excluded, shares(corners, size), size)

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `AnnotatedSource.mask`; what is both object and to be ignored is object.

        The files of an image may differ in size: each is resized to `size`, as wsolevaluation does, or to the size of
        the first.
        """
        if self._lists.masks is None:
            return super().mask(index, size)
        self._check_index(index)
        name = self._names[index]
        if name not in self._lists.masks:
            raise InputError(f"{name} has no mask in {self!r}.")
        regions = [_region(self._mask_folder / file) for file in self._lists.masks[name]]
        height, width = size or regions[0].shape
        mask = np.zeros((height, width), np.uint8)
        if name in self._lists.ignores:
            ignored = _region(self._mask_folder / self._lists.ignores[name])
            mask[resize_mask(ignored, (height, width)) > 0] = 255
        for region in regions:
            mask[resize_mask(region, (height, width)) > 0] = 1
        return mask


def open_lists(request: Request) -> ListedImages:
    """Opens the images that a folder of text lists describes.

    `request.lists` is the folder of a split, or one that contains it: `metadata/ILSVRC` has `val`.
    """
    folder, lists, class_names = request.folder, request.lists, request.class_names
    assert lists is not None, "recognized by its lists"
    mask_folder = request.masks or folder
    blacklist = read_blacklist(request.blacklist)
    for path in (folder, lists, mask_folder):
        if not path.is_dir():
            raise FileNotFoundError(f"{path} is not a folder: expected images, and text lists as in wsolevaluation.")
    if request.split and (lists / request.split).is_dir():
        lists = lists / request.split
    found = read_lists(lists, len(class_names) if class_names is not None else None)
    check_files(folder, found.images.items())
    if found.masks is not None:
        listed = [file for files in found.masks.values() for file in files] + list(found.ignores.values())
        check_files(mask_folder, ((file, str(lists / "localization.txt")) for file in listed))
    if class_names is None:
        class_names = [str(number) for number in range(max(found.labels[name] for name in found.images) + 1)]
    keys = ("image", "label", "filename")
    info = SourceInfo(str(folder), request.split, tuple(class_names), len(found.images), keys)
    images = ListedImages(folder, mask_folder, found, info, blacklist)
    check_blacklist(request.blacklist, images)
    return images


def read_lists(folder: Path, num_classes: int | None = None) -> Lists:
    """Reads the text lists of a split; the module's docstring has their form.

    Args:
      folder: has image_ids.txt, class_labels.txt and, for boxes, localization.txt and image_sizes.txt.
      num_classes: labels have to be below it; None for `MOST_CLASSES`.

    Raises:
      FileNotFoundError: a list is missing.
      ValueError: a line of another form, an image listed twice, a label or a box out of range, or lists that do not fit
        each other; the message names file and line.
    """
    ids: dict[str, str] = {}
    for where, (name,) in _rows(folder / "image_ids.txt", "path"):
        _once(ids, name, where, where)
    labels: dict[str, int] = {}
    most = MOST_CLASSES if num_classes is None else num_classes
    for where, (name, text) in _rows(folder / "class_labels.txt", "path,label"):
        (label,) = _integers([text], where, "path,label")
        if not 0 <= label < most:
            raise InputError(f"{where}: {name} has the label {label}: expected 0..{most - 1}.")
        _once(labels, name, label, where)
    for name, where in ids.items():
        if name not in labels:
            raise InputError(f"{where}: {name} has no label in {folder / 'class_labels.txt'}. Add a line for it.")
    if not ids:
        raise InputError(f"{folder / 'image_ids.txt'} lists no images.")

    path = folder / "localization.txt"
    if not path.exists():
        return Lists(ids, labels)
    rows = list(_rows(path, *_LOCALIZATION.values()))
    widths = {len(fields) for _, fields in rows}
    if len(widths) > 1:
        forms = f"boxes ({_LOCALIZATION[5]}) and of masks ({_LOCALIZATION[3]})"
        raise InputError(f"{path} has lines of {forms}: separate them.")
    for where, (name, *_) in rows:
        if name not in ids:
            raise InputError(
                f"{where}: {name} is not in {folder / 'image_ids.txt'}. Add it there, or remove this line."
            )
    if widths == {3}:
        masks, ignores = _masks(rows)
        return Lists(ids, labels, masks=masks, ignores=ignores)
    sizes: dict[str, tuple[int, int]] = {}
    for where, (name, *texts) in _rows(folder / "image_sizes.txt", "path,width,height"):
        width, height = _integers(texts, where, "path,width,height")
        if width < 1 or height < 1:
            raise InputError(f"{where}: {name} is {width} x {height} pixels: expected its size.")
        _once(sizes, name, (height, width), where)
    corners: dict[str, list[Corners]] = {}
    for where, (name, *texts) in rows:
        if name not in sizes:
            raise InputError(f"{where}: {name} has no size in {folder / 'image_sizes.txt'}. Add a line for it.")
        x0, y0, x1, y1 = _integers(texts, where, _LOCALIZATION[5])
        check_corners((x0, y0, x1, y1), sizes[name], where)
        corners.setdefault(name, []).append((x0, y0, x1, y1))
    return Lists(ids, labels, sizes, corners)


def _masks(rows: Sequence[tuple[str, list[str]]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    masks: dict[str, list[str]] = {}
    ignores: dict[str, str] = {}
    for where, (name, mask, ignore) in rows:
        if not mask:
            raise InputError(f"{where}: {name} has no mask: expected {_LOCALIZATION[3]}.")
        masks.setdefault(name, []).append(mask)
        if ignore:
            _once(ignores, name, ignore, where)
    return masks, ignores


def _rows(path: Path, *forms: str) -> Iterator[tuple[str, list[str]]]:
    """The lines of a list: where each is, and its fields, as many as one of the forms has."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a line {' or '.join(forms)} for each image.")
    numbers = {form.count(",") + 1 for form in forms}
    # File names may be in another encoding.
    for where, line in read_lines(path, errors="surrogateescape"):
        if not line:
            continue
        fields = line.split(",")
        if len(fields) not in numbers or not fields[0]:
            raise InputError(f"{where}: {line[:80]!r}: expected {' or '.join(forms)}.")
        yield where, fields


def _integers(texts: Sequence[str], where: str, form: str) -> tuple[int, ...]:
    try:
        return tuple(int(text) for text in texts)
    except ValueError:
        raise InputError(f"{where}: {', '.join(texts)[:80]!r}: expected whole numbers, {form}.") from None


def _once(entries: dict, name: str, value: object, where: str) -> None:
    if name in entries:
        raise InputError(f"{where}: {name} is listed already. Remove one of its lines.")
    entries[name] = value


def _region(path: Path) -> np.ndarray:
    """(H, W) uint8: above 0 where a mask file marks pixels."""
    try:
        return decode_gray(read_regular(path, error=ImageError))
    except ImageError as error:
        raise InputError(f"{path}: {error}") from error


FORMAT = Format(
    title="a folder of images with text lists",
    options=("blacklist", "lists", "masks", "class_names"),
    recognizes=lambda request: request.lists is not None,
    open=open_lists,
)
