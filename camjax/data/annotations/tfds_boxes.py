"""A data set that tensorflow-datasets prepared, with the boxes and masks that it has of its own."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from camjax.data.annotation import BLACKLISTED, AnnotatedSource, Annotation, no_boxes, resize_mask, stem_of
from camjax.data.annotations._blacklist import check_blacklist, read_blacklist
from camjax.data.annotations._format import Format, Request
from camjax.data.pixel_boxes import ListedImage
from camjax.data.source_info import SourceInfo
from camjax.errors import InputError

if TYPE_CHECKING:
    from camjax.data.sources import Source

OBJECT_LEVEL = 128
"""From this level of 0..255 on, a pixel of a mask is the object. In caltech_birds2011 the level is the share of five
annotators who marked the pixel: their majority decides."""

_CHECKED = 100  # images in which boxes are looked for, to tell boxes of another data set from missing ones


class TfdsImages(AnnotatedSource):
    """A data set of tfds with its own boxes, or with those of XML files.

    Args:
      source: the data set.
      boxes: what XML files say, with the image's size, by the images' names without suffix; None for the data set's own
        boxes.
      blacklist: names without suffix of images that do not count.
    """

    def __init__(
        self, source: "Source", boxes: Mapping[str, ListedImage] | None = None, blacklist: frozenset[str] = frozenset()
    ):
        self._source, self._boxes, self._blacklist = source, boxes, blacklist
        self.info = replace(source.info, keys=("image", "label", "filename"))
        self.has_boxes = boxes is not None or "bbox" in source.info.keys
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
        listed = None if self._boxes is None else self._boxes.get(stem)
        if listed is not None and listed.size is not None:
            self._check_classes(listed, name, label)
            size = listed.size
            return Annotation(name, label, listed.boxes(size), excluded, listed.wsol_boxes(size), size)
        if self._boxes is not None or "bbox" not in example:
            return Annotation(name, label, no_boxes(), excluded)
        ymin, xmin, ymax, xmax = box = example["bbox"]
        if not (0 <= ymin < ymax <= 1 and 0 <= xmin < xmax <= 1):
            raise InputError(
                f"{name!r} in {self._source!r} has the box {box.tolist()}: expected [ymin, xmin, ymax, xmax] in 0..1, "
                "with an extent. Prepare the data set again."
            )
        return Annotation(name, label, box[None], excluded)

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `AnnotatedSource.mask`, and `OBJECT_LEVEL`."""
        if not self.has_masks:
            return super().mask(index, size)
        mask = (self._source.mask(index) >= OBJECT_LEVEL).astype(np.uint8)
        return mask if size is None else resize_mask(mask, size)

    def _name(self, index: int, example: Mapping) -> str:
        """The image's file name, or its place in a data set without names."""
        return example.get("filename", f"{index:08d}").replace("\\", "/").lstrip("/")

    def _check_classes(self, listed: ListedImage, filename: str, label: int) -> None:
        expected = self.info.class_names[label]
        for number, name in enumerate(listed.classes, 1):
            if name != expected:
                known = "another class" if name in self.info.class_names else "not a class of this data set"
                raise InputError(
                    f"{listed.where}: object {number} is a {name!r}, {known}: expected {expected!r}, the class of "
                    f"{filename!r} in {self._source!r}. Check that boxes and data set belong together."
                )


def open_tfds(request: Request, read: Callable[[Path], Mapping[str, ListedImage]] | None = None) -> TfdsImages:
    """Opens a data set of tfds.

    Args:
      request: has `boxes` if there is `read`.
      read: reads the boxes, see `TfdsImages`; None for the data set's own.

    Raises:
      FileNotFoundError, ValueError: as `open_source`, `read_blacklist` and `read`, or the boxes do not fit.
    """
    from camjax.data.sources import open_source  # here, since it needs tfds

    blacklist = read_blacklist(request.blacklist)
    try:
        source = open_source(request.dataset, request.split, data_dir=request.data_dir)
    except ValueError as error:
        if request.folder.is_dir():
            raise InputError(f"{error}. For the folder of that name, give './{request.dataset}'") from error
        raise
    boxes = read(request.boxes) if read and request.boxes else None
    images = TfdsImages(source, boxes, blacklist)
    if request.boxes:
        _check_join(images, source.info, request.boxes)
    check_blacklist(request.blacklist, images)
    return images


def _check_join(images: TfdsImages, info: SourceInfo, boxes: Path) -> None:
    """Raises ValueError for boxes of another data set; single images may lack boxes."""
    if "bbox" in info.keys or "filename" not in info.keys:
        what = "boxes of its own" if "bbox" in info.keys else "no file names to join boxes by"
        raise InputError(f"data set {info.name!r} has {what}: leave out the boxes {str(boxes)!r}.")
    checked = min(_CHECKED, len(images))
    if checked and not any(len(images.annotation(i).boxes) for i in range(checked)):
        raise InputError(
            f"{boxes} has no boxes for the first {checked} images of {images!r}, such as "
            f"{images.annotation(0).filename!r}: expected the boxes of this data set and split."
        )


FORMAT = Format(
    title="a data set of tfds",
    options=("data_dir", "blacklist"),
    recognizes=lambda request: not request.is_folder,
    open=open_tfds,
)
