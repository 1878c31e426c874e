"""Where evaluation gets its images from: data sets of tfds, text lists, and folders of one's own, in one form."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from camjax.data.annotation import BLACKLISTED, UNREADABLE, AnnotatedSource, Annotation, no_boxes, stem_of
from camjax.data.box_lists import open_lists
from camjax.data.image_folder import open_image_folder
from camjax.data.imagenet_boxes import check_validation_name, read_blacklist, read_box_files
from camjax.data.sources import Source, SourceInfo, open_source
from camjax.data.voc_xml import VocAnnotation

__all__ = ["BLACKLISTED", "UNREADABLE", "AnnotatedSource", "Annotation", "TfdsImages", "open_annotated"]

OBJECT_LEVEL = 128
"""Where a data set's mask is at least this bright, of 0..255, it is the object. caltech_birds2011 has in each pixel the
share of five annotators who saw the bird there: their majority decides."""

_JOINED = 100  # how many images are looked at, to tell boxes of another data set from boxes that are missing


class TfdsImages(AnnotatedSource):
    """A data set that tensorflow-datasets prepared, with its own boxes, or with those of XML files.

    Args:
      source: the data set.
      boxes: what XML files say, by the images' names without suffix; None for the data set's own boxes.
      blacklist: names without suffix of images that do not count.
    """

    def __init__(
        self,
        source: Source,
        boxes: Mapping[str, VocAnnotation] | None = None,
        blacklist: frozenset[str] = frozenset(),
    ):
        self._source, self._boxes, self._blacklist = source, boxes, blacklist
        info = source.info
        self.info = SourceInfo(
            info.name, info.split, info.class_names, info.num_examples, ("image", "label", "filename")
        )
        self.has_boxes = boxes is not None or "bbox" in info.keys
        self.has_masks = source.has_masks

    def __getitem__(self, index: int) -> dict:
        example = self._source[index]
        return {"image": example["image"], "label": example["label"], "filename": self._name(index, example)}

    def annotation(self, index: int) -> Annotation:
        """See `AnnotatedSource.annotation`."""
        example = self._source.without_image(index)
        name, label = self._name(index, example), example["label"]
        stem = stem_of(name)
        excluded = BLACKLISTED if stem in self._blacklist else ""
        if self._boxes is not None and stem in self._boxes:
            listed = self._boxes[stem]
            self._check_classes(listed, name, label)
            return Annotation(name, label, listed.boxes, excluded, listed.wsol_boxes)
        if self._boxes is not None or "bbox" not in example:
            return Annotation(name, label, no_boxes(), excluded)
        ymin, xmin, ymax, xmax = box = example["bbox"]
        if not (0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1):
            raise ValueError(
                f"{name!r} in {self._source!r} has the box {box.tolist()}: expected [ymin, xmin, ymax, xmax] in 0..1, "
                "with an extent. Prepare the data set again."
            )
        return Annotation(name, label, box[None], excluded)

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `AnnotatedSource.mask`, and `OBJECT_LEVEL`."""
        if not self.has_masks:
            return super().mask(index, size)
        mask = (self._source.mask(index) >= OBJECT_LEVEL).astype(np.uint8)
        return mask if size is None else cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST)

    def _name(self, index: int, example: Mapping) -> str:
        """The image's file name; its place in the data set where that keeps no names."""
        return example.get("filename", f"{index:08d}").replace("\\", "/").lstrip("/")

    def _check_classes(self, listed: VocAnnotation, filename: str, label: int) -> None:
        expected = self.info.class_names[label]
        for number, name in enumerate(listed.classes, 1):
            if name != expected:
                known = "another class" if name in self.info.class_names else "no class of this data set"
                raise ValueError(
                    f"{listed.name}: object {number} is a {name!r}, {known}: expected {expected!r}, which "
                    f"{filename!r} is in {self._source!r}. Check that boxes and data set belong together."
                )


def open_annotated(
    dataset: str | os.PathLike,
    split: str,
    *,
    data_dir: str | os.PathLike | None = None,
    boxes: str | os.PathLike | None = None,
    blacklist: str | os.PathLike | None = None,
    lists: str | os.PathLike | None = None,
    masks: str | os.PathLike | None = None,
    class_names: Sequence[str] | None = None,
) -> AnnotatedSource:
    """Opens images with labels, and with boxes or masks, to evaluate localization on.

    - A data set of tfds: "scenes", "caltech_birds2011" (boxes and masks of its own), "imagenet2012" (with `boxes`).
    - A folder of images with wsolevaluation's text lists in `lists`, see `camjax.data.box_lists`.
    - A folder of images, with `boxes` in a CSV file or in XML files, see `camjax.data.image_folder`.

    Args:
      dataset: the name of a data set that `open_source` takes, or a folder of images. A word is a name: a folder in the
        current one is written "./photos".
      split: "validation", "test[:100]" ... of a tfds data set; else a sub-folder, see `open_lists` and
        `open_image_folder`.
      data_dir: where tfds keeps its data; None is its default.
      boxes: for "imagenet2012", `ILSVRC2012_bbox_val_v3.tgz` or a folder of its XML files; for a folder of images, a
        CSV file or a folder of XML files.
      blacklist: ILSVRC's list of validation images that do not count, see `read_blacklist`.
      lists: a folder of wsolevaluation's text lists.
      masks: what the masks in these lists are relative to; None is the folder of images.
      class_names: of a folder's classes, in the order of their labels; None see there.

    Returns:
      The source, see `AnnotatedSource`.

    Raises:
      FileNotFoundError: something is not there; the message says what to give or to run.
      ValueError: options that do not go together, boxes of another data set, and what the readers of the files refuse;
        messages name file and line.
    """
    text = os.fspath(dataset)
    is_folder = lists is not None or isinstance(dataset, os.PathLike) or text.startswith((".", "~", os.sep))
    # tfds' names may have a slash too: "imagenet2012_subset/10pct".
    is_folder = is_folder or (Path(text).name != text and os.path.isdir(text))
    _check_options(dataset, is_folder, data_dir, boxes, blacklist, lists, masks, class_names)
    stems = frozenset() if blacklist is None else read_blacklist(blacklist)
    if lists is not None:
        source = open_lists(dataset, split, lists, masks=masks, class_names=class_names, blacklist=stems)
    elif is_folder:
        return open_image_folder(dataset, split, boxes=boxes, class_names=class_names)
    else:
        try:
            tfds_source = open_source(text, split, data_dir=data_dir)
        except ValueError as error:
            if os.path.isdir(text):
                raise ValueError(f"{error}. For the folder of that name, give './{text}'") from error
            raise
        source = TfdsImages(tfds_source, None if boxes is None else read_box_files(boxes), stems)
        if boxes is not None:
            _check_join(source, tfds_source, boxes)
    if blacklist is not None and len(source):
        check_validation_name(source.annotation(0).filename, str(blacklist))
    return source


def _check_options(dataset, is_folder, data_dir, boxes, blacklist, lists, masks, class_names) -> None:
    """Raises ValueError for options that the kind of data set has no use for."""
    unused = {
        "data_dir": data_dir is not None and is_folder,
        "boxes": boxes is not None and lists is not None,
        "masks": masks is not None and lists is None,
        "blacklist": blacklist is not None and is_folder and lists is None,
        "class_names": class_names is not None and not is_folder,
    }
    wrong = [name for name, given in unused.items() if given]
    if not wrong:
        return
    kind = "a folder of images" if is_folder else "a data set of tfds"
    kind += " with text lists" * (lists is not None)
    raise ValueError(f"{', '.join(wrong)} cannot go together with {str(dataset)!r}, which is taken for {kind}.")


def _check_join(source: TfdsImages, own: Source, boxes: str | os.PathLike) -> None:
    """Tells boxes of another data set from boxes that some images lack."""
    if "bbox" in own.info.keys or "filename" not in own.info.keys:
        what = "boxes of its own" if "bbox" in own.info.keys else "no file names to join boxes by"
        raise ValueError(f"data set {own.info.name!r} has {what}: leave out the boxes {str(boxes)!r}.")
    looked_at = min(_JOINED, len(source))
    if looked_at and not any(len(source.annotation(i).boxes) for i in range(looked_at)):
        raise ValueError(
            f"{boxes} has no boxes for the first {looked_at} images of {source!r}, such as "
            f"{source.annotation(0).filename!r}: expected the boxes of this data set and split."
        )
