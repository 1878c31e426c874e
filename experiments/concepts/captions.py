"""Images with captions: MS COCO from tensorflow-datasets, or a folder of images and a CSV file."""

import csv
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from camjax.data.builders import prepared_builder
from camjax.data.decoding import decode_image
from camjax.data.image_files import check_files, read_stored_image
from camjax.data.sources import SourceInfo
from camjax.errors import InputError, reading
from camjax.features import Progress
from experiments.common.image_lists import ImageSource
from experiments.common.layouts import missing_layout

COCO = "coco_captions"
Place = TypeVar("Place")
"""Where an image is: a number of a record, or a path."""

_CSV_LAYOUT = """
harbor.jpg
lakes/mirror.jpg
...
"""
_CSV_WHERE = (
    "--folder is that folder of images, and --captions a CSV file whose first line is image,caption; below it is one "
    "line for each caption, with the image's name relative to the folder: lakes/mirror.jpg,Hills mirrored in a lake"
)


@dataclass(frozen=True)
class CaptionedImages:
    """n images, each listed once, with all of their captions.

    Attributes:
      source: the images, all with label 0, for `camjax.features.extract_features`; its `info` names the data set.
      image_ids: n different ids.
      captions: any number for each image.
    """

    source: ImageSource
    image_ids: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]


class Images(Generic[Place]):
    """Images of a data set without classes, as a source of features.

    Args:
      read: reads one of the places: (H, W, 3) uint8 RGB.
      places: of the images.
      name: of the data set.
      split: of the data set.

    Attributes:
      info: name and split, and no class names.
    """

    def __init__(self, read: Callable[[Place], np.ndarray], places: Sequence[Place], name: str, split: str):
        self._read, self._places = read, list(places)
        self.info = SourceInfo(name, split, (), len(self._places), ("image", "label"))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict:
        return {"image": self._read(self._places[index]), "label": 0}


def gathered(
    rows: Iterable[tuple[str, Place, Sequence[str]]], read: Callable[[Place], np.ndarray], name: str, split: str
) -> CaptionedImages:
    """Images from rows; an image with several rows is listed once, at the place of its first row.

    Args:
      rows: image id, place and captions.
      read: as in `Images`.
      name: of the data set.
      split: of the data set.
    """
    images: dict[str, tuple[Place, list[str]]] = {}
    for image_id, place, captions in rows:
        images.setdefault(image_id, (place, []))[1].extend(captions)
    source = Images(read, [place for place, _ in images.values()], name, split)
    return CaptionedImages(source, tuple(images), tuple(tuple(captions) for _, captions in images.values()))


def open_coco(split: str, *, data_dir: Path | None = None, progress: Progress | None = None) -> CaptionedImages:
    """The images of `coco_captions` (MS COCO 2014 in the splits of Karpathy and Li 2015), five captions or so each.

    Args:
      split: "train" (82,783 images), "val" (5,000), "test" (5,000), "restval" (30,504), or a slice or sum of these.
      data_dir: where tfds keeps its data.
      progress: called with the number of records read, and of all; each is read once, for its captions.

    Raises:
      FileNotFoundError, ValueError: as `camjax.data.sources.prepared_builder`; or there is no such split.
    """
    builder = prepared_builder(COCO, data_dir=data_dir)
    try:
        records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"--split {split} of {COCO}: expected {', '.join(sorted(builder.info.splits))}, or a slice or sum of these "
            f"such as train+restval ({error})."
        ) from error
    features = dict(builder.info.features.items())
    text = tfds.features.FeaturesDict({name: features[name] for name in ("image/id", "captions")})
    picture = tfds.features.FeaturesDict({"image": features["image"]})

    def reading_example(number: int):
        # Riegeli, protobuf and tfds each raise types of their own.
        return reading(f"example {number} of {COCO}, split {split},", "an image with captions", "Prepare it again.")

    def rows():
        for number in range(len(records)):
            with reading_example(number):
                stored = text.deserialize_example_np(records[number])
                row = str(stored["image/id"]), number, [caption.decode() for caption in stored["captions"]["text"]]
            yield row
            if progress:
                progress(number + 1, len(records))

    def read(number: int) -> np.ndarray:
        with reading_example(number):
            stored = picture.deserialize_example_np(records[number], decoders={"image": tfds.decode.SkipDecoding()})
            return decode_image(stored["image"], apply_exif=False)

    return gathered(rows(), read, COCO, split)


def open_csv(captions: Path, folder: Path) -> CaptionedImages:
    """The images that a CSV file has captions for.

    Args:
      captions: the file, UTF-8, with the columns "image", a name relative to the folder, and "caption"; one line for
        each caption.
      folder: of the images.

    Raises:
      FileNotFoundError: the file, the folder or an image is missing.
      ValueError: the file is not such a CSV; the message names the line.
    """
    for path, there in ((captions, captions.is_file()), (folder, folder.is_dir())):
        if not there:
            raise missing_layout(folder, _CSV_LAYOUT, _CSV_WHERE, () if path is folder else (str(captions),))
    rows, names = [], []
    with captions.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.DictReader(file)
        try:
            if not {"image", "caption"} <= {*(lines.fieldnames or ())}:
                raise InputError(
                    f"{captions}, line 1 names the columns {', '.join(lines.fieldnames or ()) or 'nothing'}: expected "
                    "image and caption."
                )
            for line in lines:
                where = f"{captions}, line {lines.line_num}"
                if None in line or None in line.values():
                    raise InputError(f"{where} has not as many fields as line 1: put captions with commas in quotes.")
                # "./a.jpg" is "a.jpg": one image, under either name.
                name = posixpath.normpath(line["image"].strip().replace("\\", "/"))
                names.append((name, where))
                rows.append((name, folder / name, [line["caption"]]))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{captions}, near line {lines.line_num + 1}, is not CSV in UTF-8: {error}.") from error
    if not rows:
        raise InputError(f"{captions} has no captions: expected one line for each, below the names of the columns.")
    check_files(folder, names)
    return gathered(rows, read_stored_image, str(captions), "all")
