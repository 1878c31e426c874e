"""Data sets prepared by tensorflow-datasets, as sources with random access, read without TensorFlow."""

import contextlib
import operator
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from camjax.data._tfds import tfds
from camjax.data.builders import ARRAY_RECORD, prepared_builder, reading_prepared
from camjax.data.decoding import decode_gray, decode_image
from camjax.data.source_info import SourceInfo
from camjax.errors import InputError

_Parsed = TypeVar("_Parsed")

# caltech_birds2011 and the built-in ones say "image/filename", imagenet2012 and others "file_name".
_FILENAME_FEATURES = ("image/filename", "file_name")
_MASK_FEATURE = "segmentation_mask"


class Source:
    """The examples of one split of a prepared data set; `open_source` makes one.

    `source[i]` is a dict:
      image: (H, W, 3) uint8 RGB, the stored pixels, not turned by an EXIF tag (boxes were drawn on the stored pixels).
      label: int in 0..num_classes-1.
      bbox: (4,) float32 [ymin, xmin, ymax, xmax] in 0..1, where the data set has one box per image.
      filename: str, where the data set has it.

    The order is the one on disk, always the same. An index outside of 0..len-1 raises IndexError; a record or an image
    that cannot be read raises a ValueError that names data set, split, index and file. Several threads may read at
    once; so may several processes, since a source can be pickled.

    Attributes:
      info: what the source holds.
      has_masks: whether the data set has masks.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        features = dict(builder.info.features.items())
        image, label, box, mask = (features.get(key) for key in ("image", "label", "bbox", _MASK_FEATURE))
        if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
            raise InputError(
                f"data set {builder.info.name!r} has the features {', '.join(sorted(features))}; expected an 'image' "
                "and a 'label' that is one class per image"
            )
        # Features that are not listed here, such as attributes, are never parsed.
        parsed = {"label": label}
        if isinstance(box, tfds.features.BBoxFeature):
            parsed["bbox"] = box
        self._filename = next((name for name in _FILENAME_FEATURES if name in features), None)
        keys = ("image", *parsed) + ("filename",) * bool(self._filename)
        if self._filename:
            parsed[self._filename] = features[self._filename]
        self._annotations = tfds.features.FeaturesDict(parsed)
        self._features = tfds.features.FeaturesDict({"image": image, **parsed})
        # A mask with a color map numbers classes.
        self.has_masks = isinstance(mask, tfds.features.Image) and mask.shape[-1] == 1 and not mask.use_colormap
        self._masks = tfds.features.FeaturesDict({_MASK_FEATURE: mask} if self.has_masks else {})
        self._files = builder.info.splits[split].file_instructions
        self._records = builder.as_data_source(
            split=split, file_format=ARRAY_RECORD, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        self.info = SourceInfo(builder.info.name, split, tuple(label.names), len(self._records), keys)

    def __len__(self) -> int:
        return self.info.num_examples

    def __getitem__(self, index: int) -> dict:
        return self._read(index, self._example)

    def without_image(self, index: int) -> dict:
        """Reads the example at an `index` without its image, which is not decoded; raises the same errors."""
        return self._read(index, self._without_image)

    def mask(self, index: int) -> np.ndarray:
        """Reads the segmentation mask of an image as the data set stores it: (H, W) uint8 gray levels.

        Args:
          index: the image's.

        Raises:
          IndexError, ValueError: as indexing does; or the data set has no masks.
        """
        if not self.has_masks:
            raise InputError(f"data set {self.info.name!r} has no segmentation masks in levels of gray")
        return self._read(index, self._stored_mask)

    def _read(self, index: int, parse: Callable[[bytes], _Parsed]) -> _Parsed:
        """Parses the record at `index`; an error names the record."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {self!r} has {len(self)} examples")
        try:
            return parse(self._records[index])
        except Exception as error:  # Riegeli, protobuf and tfds each raise types of their own
            raise InputError(
                f"example {index} of data set {self.info.name!r}, split {self.info.split!r} ({self._file_of(index)}), "
                f"cannot be read: {error}. If its files are damaged, delete the prepared data set and prepare it again"
            ) from error

    def _file_of(self, index: int) -> str:
        """The file that holds a record, and before it the image's own name if that can still be read."""
        ends = np.cumsum([part.take for part in self._files])
        file = str(self._files[int(np.searchsorted(ends, index, side="right"))].filename)
        with contextlib.suppress(Exception):
            return f"{self._without_image(self._records[index])['filename']} in {file}"
        return file

    def __repr__(self) -> str:
        return f"Source({self.info.name!r}, split={self.info.split!r})"

    def _example(self, record: bytes) -> dict:
        stored = self._features.deserialize_example_np(record, decoders={"image": tfds.decode.SkipDecoding()})
        return {"image": decode_image(stored["image"], apply_exif=False), **self._annotation(stored)}

    def _without_image(self, record: bytes) -> dict:
        return self._annotation(self._annotations.deserialize_example_np(record))

    def _stored_mask(self, record: bytes) -> np.ndarray:
        stored = self._masks.deserialize_example_np(record, decoders={_MASK_FEATURE: tfds.decode.SkipDecoding()})
        return decode_gray(stored[_MASK_FEATURE])

    def _annotation(self, stored: Mapping) -> dict:
        annotation: dict[str, Any] = {"label": int(stored["label"])}
        if "bbox" in stored:
            annotation["bbox"] = np.asarray(stored["bbox"], np.float32)
        if self._filename:
            annotation["filename"] = stored[self._filename].decode()
        return annotation


def open_source(name: str, split: str, *, data_dir: str | os.PathLike | None = None) -> Source:
    """Opens a split of a data set that tensorflow-datasets has prepared as ArrayRecord.

    Args:
      name: a tfds name, such as "caltech_birds2011" or "imagenet2012:5.1.0"; or a built-in one, "scenes" or
        "look_alikes", which prepares itself on first use (two processes may do so at once).
      split: "train", "validation", "test" ..., or a slice in tfds' syntax: "train[:90%]", "train[100:200]+test".
      data_dir: where tfds keeps its data; None is tfds' default, the environment variable TFDS_DATA_DIR or
        ~/tensorflow_datasets.

    Returns:
      The source, see `Source`.

    Raises:
      FileNotFoundError: the data set is not prepared there, or some of its files are missing.
      ValueError: no such data set or split, another file format, or features that are not those of a classification
        task. Each message says what to run.
      ImportError: a built-in data set has to be prepared, and scikit-learn or scikit-image is missing.
    """
    builder = prepared_builder(name, data_dir=data_dir)
    # tfds' reader would name neither the split nor the missing files.
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise InputError(
            f"split is {split!r}; data set {builder.info.name!r} has {', '.join(sorted(builder.info.splits))}, and "
            "slices such as 'train[:90%]'"
        ) from error
    missing = [item.filename for item in instructions if not os.path.exists(item.filename)]
    if missing:
        raise FileNotFoundError(
            f"data set {builder.info.name!r} is incomplete: {len(missing)} of {len(instructions)} files are missing, "
            f"such as {missing[0]}. Delete {builder.data_dir} and prepare it again"
        )
    with reading_prepared(name, Path(builder.data_dir)):
        return Source(builder, split)
