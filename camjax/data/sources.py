"""Data sets prepared by tensorflow-datasets, as sources with random access, read without TensorFlow."""

import contextlib
import difflib
import io
import operator
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

from camjax.data.images import decode_image
from camjax.data.scenes import Scenes

_ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD
# caltech_birds2011 and scenes say "image/filename", imagenet2012 and others "file_name".
_FILENAME_FEATURES = ("image/filename", "file_name")
_MASK_FEATURE = "segmentation_mask"
# What the command `tfds` imports at its start, whatever it is to do; apache-beam does not install beside recent
# versions of protobuf.
_TFDS_TOOL = "tensorflow-datasets tensorflow-cpu importlib-resources apache-beam mlcroissant"


@dataclass(frozen=True)
class SourceInfo:
    """What a source holds.

    name: the data set, as tfds calls it.
    split: the split or slice that was asked for, such as "train[:90%]".
    class_names: one name per label, in the order of the labels.
    num_examples: the number of examples in this split or slice.
    keys: the keys of every example, such as ("image", "label", "bbox", "filename").
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    num_examples: int
    keys: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """The number of classes: labels are 0..num_classes-1."""
        return len(self.class_names)


class Source:
    """The examples of one split of a prepared data set; `open_source` makes one.

    `source[i]` is a dict:
      image: (H, W, 3) uint8 RGB, the stored pixels, not turned by an EXIF tag (boxes were drawn on the stored pixels).
      label: int in 0..num_classes-1.
      bbox: (4,) float32 [ymin, xmin, ymax, xmax] in 0..1, where the data set has one box per image.
      filename: str, where the data set has it.

    The order is the one on disk, always the same. An index outside of 0..len-1 is an IndexError; a record or an image
    that cannot be read is a ValueError that names data set, split, index and file. Threads and, since a source can be
    pickled, processes may read at once.

    Attributes:
      info: what the source holds.
      has_masks: whether `mask` has an answer.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        features = _needed_features(builder)
        self._features = tfds.features.FeaturesDict(features)
        self._annotations = tfds.features.FeaturesDict({k: v for k, v in features.items() if k != "image"})
        self._mask = _mask_feature(builder)
        self.has_masks = self._mask is not None
        self._filename = next((name for name in _FILENAME_FEATURES if name in features), None)
        self._files = builder.info.splits[split].file_instructions
        self._records = builder.as_data_source(
            split=split,
            file_format=_ARRAY_RECORD,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
        )
        keys = ("image", "label") + ("bbox",) * ("bbox" in features) + ("filename",) * bool(self._filename)
        self.info = SourceInfo(
            name=builder.info.name,
            split=split,
            class_names=tuple(features["label"].names),
            num_examples=len(self._records),
            keys=keys,
        )

    def __len__(self) -> int:
        return self.info.num_examples

    def __getitem__(self, index: int) -> dict:
        return self._read(index, self._example)

    def without_image(self, index: int) -> dict:
        """The example `self[index]` without its image, which is not decoded.

        Raises:
          IndexError, ValueError: as indexing does.
        """
        return self._read(index, self._without_image)

    def mask(self, index: int) -> np.ndarray:
        """The segmentation mask of an image, as the data set stores it.

        Returns:
          (H, W) uint8 gray levels.

        Raises:
          IndexError, ValueError: as indexing does; or the data set has no masks.
        """
        if self._mask is None:
            raise ValueError(f"data set {self.info.name!r} has no segmentation masks in levels of gray")
        return self._read(index, self._stored_mask)

    def _read(self, index: int, parse: Callable):
        """What `parse` makes of the record at `index`, or an error that names the record."""
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range: {self!r} has {len(self)} examples")
        try:
            return parse(self._records[index])
        except Exception as error:  # Riegeli, protobuf and tfds each raise types of their own
            raise ValueError(
                f"example {index} of data set {self.info.name!r}, split {self.info.split!r} ({self._file_of(index)}), "
                f"cannot be read: {error}. If its files are damaged, delete the prepared data set and prepare it again"
            ) from error

    def _file_of(self, index: int) -> str:
        """The file that holds a record, and before it the image's own name where the record still tells it."""
        first_behind = np.cumsum([part.take for part in self._files])
        file = str(self._files[int(np.searchsorted(first_behind, index, side="right"))].filename)
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

    def _annotation(self, stored: dict) -> dict:
        annotation = {"label": int(stored["label"])}
        if "bbox" in stored:
            annotation["bbox"] = np.asarray(stored["bbox"], np.float32)
        if self._filename:
            annotation["filename"] = stored[self._filename].decode()
        return annotation

    def _stored_mask(self, record: bytes) -> np.ndarray:
        stored = self._mask.deserialize_example_np(record, decoders={_MASK_FEATURE: tfds.decode.SkipDecoding()})
        mask = cv2.imdecode(np.frombuffer(stored[_MASK_FEATURE], np.uint8), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise ValueError("its segmentation mask is damaged")
        return mask


def open_source(name: str, split: str, *, data_dir: str | os.PathLike | None = None) -> Source:
    """Open a split of a data set that tensorflow-datasets has prepared as ArrayRecord.

    Args:
      name: a tfds name, such as "caltech_birds2011" or "imagenet2012:5.1.0"; or "scenes", the built-in data set, which
        prepares itself on first use (about ten seconds; two processes may do so at once).
      split: "train", "validation", "test" ..., or a slice in tfds' syntax: "train[:90%]", "train[100:200]+test".
      data_dir: where tfds keeps its data; None is tfds' default, the environment variable TFDS_DATA_DIR or
        ~/tensorflow_datasets.

    Returns:
      The source, see `Source`.

    Raises:
      FileNotFoundError: the data set is not prepared there, or some of its files are missing.
      ValueError: no such data set or split, another file format, or features that are no classification task.
        Each message says what to run.
      ImportError: scenes has to be prepared and scikit-learn or scikit-image is missing.
    """
    builder = prepared_builder(name, data_dir=data_dir)
    _check_split(builder, split)
    return Source(builder, split)


def prepared_builder(name: str, *, data_dir: str | os.PathLike | None = None) -> tfds.core.DatasetBuilder:
    """The builder of a data set that is prepared as ArrayRecord, set to read these files.

    Args:
      name: as for `open_source`; "scenes" prepares itself.
      data_dir: as for `open_source`.

    Raises:
      FileNotFoundError, ValueError, ImportError: as `open_source`, but for splits and features.
    """
    if data_dir is not None:
        data_dir = Path(data_dir).expanduser()
    builder = _scenes_builder(data_dir) if name == "scenes" else _builder_from_files(name, data_dir)
    if _ARRAY_RECORD not in builder.info.available_file_formats():
        raise ValueError(
            f"data set {name!r} is prepared in {builder.data_dir} as {builder.info.file_format.value}, which has no "
            "random access; expected array_record. Convert it with tfds' own tool, in an environment of its own:\n"
            "  python -m venv tfds-tool\n"
            f"  tfds-tool/bin/pip install {_TFDS_TOOL}\n"
            f"  tfds-tool/bin/tfds convert_format --dataset_version_dir={builder.data_dir} "
            "--out_file_format=array_record"
        )
    builder.info.set_file_format(_ARRAY_RECORD, override=True, override_if_initialized=True)
    return builder


def _scenes_builder(data_dir: Path | None) -> Scenes:
    """The builder of scenes with its data prepared, which this does where they are not there yet."""
    builder = Scenes(data_dir=data_dir)
    directory = Path(builder.data_dir)
    if not directory.exists():
        print(f"Preparing the data set 'scenes' in {directory} (once, about 10 seconds).", flush=True)
        _prepare_scenes(directory, Path(builder.data_dir_root))
        builder = Scenes(data_dir=data_dir)
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"{directory} exists, but holds no complete copy of the data set 'scenes'. Delete that directory; scenes "
            "are then made again"
        )
    return builder


def _prepare_scenes(directory: Path, root: Path) -> None:
    """Prepare scenes next to its destination, then move them there in one step, so that nobody sees half of them."""
    root.mkdir(parents=True, exist_ok=True)
    # tfds, too, prepares aside and renames, but names the place by the global random generator: two processes
    # with the same seed would write into the same directory.
    with tempfile.TemporaryDirectory(prefix="incomplete.scenes_", dir=root) as scratch:
        draft = Scenes(data_dir=scratch)
        # tfds writes a dozen lines and bars for what takes seconds.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            draft.download_and_prepare(file_format=_ARRAY_RECORD)
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(draft.data_dir, directory)
        except OSError:
            if not directory.exists():  # where it does, another process was faster, with the same bytes
                raise


def _builder_from_files(name: str, data_dir: Path | None) -> tfds.core.DatasetBuilder:
    """A builder from a prepared data set's own files: the code that made them may need TensorFlow."""
    try:
        return tfds.core.read_only_builder.builder_from_files(
            name, **({} if data_dir is None else {"data_dir": data_dir})
        )
    except tfds.core.DatasetNotFoundError as error:
        raise _not_found(name, data_dir) from error


def _not_found(name: str, data_dir: Path | None) -> Exception:
    known = {"scenes", *tfds.list_builders(with_community_datasets=False)}
    if name.split("/")[0].split(":")[0] not in known:
        near = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "tfds.list_builders() lists them"
        return ValueError(f"unknown data set {name!r}; expected 'scenes' or a name that tfds knows: {hint}")
    option = "" if data_dir is None else f" --data-dir {data_dir}"
    where = data_dir or tfds.core.constants.DATA_DIR
    return FileNotFoundError(
        f"data set {name!r} is not prepared in {where}. Prepare it with:\n"
        '  pip install "camjax[prepare]"\n'
        f"  camjax prepare {name}{option}"
    )


def _check_split(builder: tfds.core.DatasetBuilder, split: str) -> None:
    """Tell a wrong split from missing files before the reader does, whose error would name neither."""
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"split is {split!r}; data set {builder.info.name!r} has {', '.join(sorted(builder.info.splits))}, and "
            "slices such as 'train[:90%]'"
        ) from error
    missing = [item.filename for item in instructions if not os.path.exists(item.filename)]
    if missing:
        raise FileNotFoundError(
            f"data set {builder.info.name!r} is incomplete: {len(missing)} of {len(instructions)} files are missing, "
            f"such as {missing[0]}. Delete {builder.data_dir} and prepare it again"
        )


def _needed_features(builder: tfds.core.DatasetBuilder) -> dict:
    """The features that an example is made of; the others (masks, attributes) are never parsed."""
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"data set {builder.info.name!r} has the features {', '.join(sorted(features))}; expected an 'image' and "
            "a 'label' that is one class per image"
        )
    wanted = {"image": image, "label": label}
    if isinstance(features.get("bbox"), tfds.features.BBoxFeature):
        wanted["bbox"] = features["bbox"]
    filename = next((name for name in _FILENAME_FEATURES if name in features), None)
    return wanted | ({filename: features[filename]} if filename else {})


def _mask_feature(builder: tfds.core.DatasetBuilder) -> tfds.features.FeaturesDict | None:
    """The segmentation mask alone, where there is one in levels of gray; one with a color map numbers classes."""
    mask = dict(builder.info.features.items()).get(_MASK_FEATURE)
    if not isinstance(mask, tfds.features.Image) or mask.shape[-1] != 1 or mask.use_colormap:
        return None
    return tfds.features.FeaturesDict({_MASK_FEATURE: mask})
