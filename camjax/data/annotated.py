"""Opening images with boxes or masks, in any of the formats of `camjax.data.annotations`."""

import os
from collections.abc import Sequence
from pathlib import Path

from camjax.addresses import local_path
from camjax.data.annotation import AnnotatedSource
from camjax.data.annotations import FORMATS, Request

StrPath = str | os.PathLike[str]


def open_annotated(
    dataset: StrPath,
    split: str,
    *,
    data_dir: StrPath | None = None,
    boxes: StrPath | None = None,
    blacklist: StrPath | None = None,
    lists: StrPath | None = None,
    masks: StrPath | None = None,
    class_names: Sequence[str] | None = None,
) -> AnnotatedSource:
    """Opens images with labels, and with boxes or masks, to evaluate localization on.

    - A data set of tfds: "scenes", "look_alikes" and "caltech_birds2011" (boxes and masks of their own), "imagenet2012"
      (with `boxes`).
    - A folder of images with wsolevaluation's text lists in `lists`, see `camjax.data.annotations.wsol_lists`.
    - Images listed in a CSV file `file,label`, see docs/data.md, which may have `boxes` too.
    - A folder of images, with `boxes` in a CSV file or in XML files, see `open_image_folder`.

    Args:
      dataset: the name of a data set that `open_source` takes, a folder of images, or a CSV file that lists them. A
        word is a name: a folder in the current one is written "./photos".
      split: "validation", "test[:100]" ... of a tfds data set; what the CSV file calls it, or "all"; otherwise a
        sub-folder of the images or of the lists.
      data_dir: where tfds keeps its data; None is its default.
      boxes: for "imagenet2012", `ILSVRC2012_bbox_val_v3.tgz` or a folder of its XML files; for a folder or a list of
        images, a CSV file or a folder of XML files.
      blacklist: ILSVRC's list of validation images that do not count.
      lists: a folder of wsolevaluation's text lists.
      masks: what the masks in these lists are relative to; None is the folder of images.
      class_names: of a folder's classes, in the order of their labels; None numbers those that occur.

    Returns:
      The source, see `AnnotatedSource`.

    Raises:
      FileNotFoundError: something is missing; the message says what to give or to run.
      ValueError: options that cannot be used together, boxes of another data set, or an invalid file; messages name
        file and line.
    """
    text = os.fspath(dataset)
    if not text.lower().endswith(".csv"):  # such as the pictures.csv of a run in a bucket
        local_path(text, "dataset")
    is_folder = _is_folder(dataset, lists)
    paths = {"boxes": boxes, "blacklist": blacklist, "lists": lists, "masks": masks}
    given = {name: local_path(path, name) for name, path in paths.items() if path is not None}
    request = Request(text, split, is_folder, data_dir, class_names=class_names, **given)
    chosen = next(format for format in FORMATS if format.recognizes(request))
    chosen.check_options(request)
    return chosen.open(request)


def from_anywhere(dataset: StrPath, lists: StrPath | None) -> str:
    """A data set as `open_annotated` takes it in any working directory: a folder's or file's whole path, or a name."""
    is_path = _is_folder(dataset, lists) or Path(dataset).is_file()
    return str(Path(dataset).expanduser().absolute()) if is_path else os.fspath(dataset)


def _is_folder(dataset: StrPath, lists: StrPath | None) -> bool:
    text = os.fspath(dataset)
    if lists is not None or isinstance(dataset, os.PathLike) or text.startswith((".", "~", os.sep)):
        return True
    # tfds' names may have a slash too: "imagenet2012_subset/10pct".
    return Path(text).name != text and os.path.isdir(text)


def open_image_folder(
    folder: StrPath, split: str, *, boxes: StrPath | None = None, class_names: Sequence[str] | None = None
) -> AnnotatedSource:
    """Opens a folder of images.

    The images are those in the sub-folder named as the split, or in the folder itself for the split "all". Their class
    is the sub-folder that they lie in (deeper folders do not matter), or the label that the file of boxes gives.

    Args:
      folder: of images, see `camjax.data.image_files.IMAGE_SUFFIXES`; a warning counts other files that are no notes or
        lists.
      split: a sub-folder such as "val", or "all".
      boxes: a CSV file whose names are relative to the images' folder, or a folder of VOC-style XML files, named as
        their images; docs/data.md describes both. None for labels alone. An image that these leave out has no boxes.
      class_names: the classes in the order of their labels, such as the model's, among which those that occur are found
        by name, see docs/data.md; None takes those that occur, sorted.
        If all that occur are whole numbers (below 100,000), these are the labels.

    Returns:
      The source, see `AnnotatedSource`. Boxes refer to the stored pixels, and images are not turned by their EXIF tag.

    Raises:
      FileNotFoundError: the folder or the file of boxes is missing, or lists an image that is.
      ValueError: no images; an image without a class or with two; a class that is not in `class_names`; an invalid
        file of boxes. The message names the file, and the line where there is one.
    """
    return open_annotated(Path(folder), split, boxes=boxes, class_names=class_names)
