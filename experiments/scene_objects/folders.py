"""Data sets of places with label maps: SceneParse150, from its archive or from tfds, and any folder of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.hashing import Hasher

from camjax.data.builders import prepared_builder
from camjax.data.decoding import ImageError, decode_image
from camjax.data.image_files import check_files, find_images, read_stored_size
from camjax.data.regular_files import check_regular
from camjax.data.sources import SourceInfo
from camjax.errors import InputError, reading
from experiments.common.image_lists import ListedImages
from experiments.common.layouts import check_layout
from experiments.scene_objects.places import LabeledPlaces, choose_places, read_object_names, read_place_list

FOLDER_TREE = """
    images/
      bathroom/          a folder for each scene
        a.jpg
    labels/
      bathroom/
        a.png            of the image's size, in levels of gray or with a palette: ids of objects, 0 for none
    objects.csv          with the header id,name
"""
ADE_TREE = """
    images/
      training/
        ADE_train_00000001.jpg
      validation/
        ADE_val_00000001.jpg
    annotations/
      training/
        ADE_train_00000001.png
      validation/
        ADE_val_00000001.png
    sceneCategories.txt
    objectInfo150.txt
"""


def open_folder(folder: Path, wanted: Sequence[str] | int) -> LabeledPlaces:
    """Opens a folder with a sub-folder for each place.

    Args:
      folder: see `FOLDER_TREE`.
      wanted: as in `choose_places`.

    Raises:
      FileNotFoundError: the folder has another layout, or a label map is missing.
      ValueError: as `choose_places` and `read_object_names`.
    """
    where = "Give the folder that has these three as --folder."
    check_layout(folder, ["images", "labels", "objects.csv"], FOLDER_TREE, where)
    names = [name for name in find_images(folder / "images") if "/" in name]
    places, indices, labels = choose_places([name.partition("/")[0] for name in names], wanted)
    names = [names[index] for index in indices]
    label_files = [f"labels/{name.rpartition('.')[0]}.png" for name in names]
    check_files(folder, [(file, f"images/{name}") for name, file in zip(names, label_files, strict=True)])
    object_names = read_object_names(folder / "objects.csv")
    return _from_files(folder, [f"images/{name}" for name in names], label_files, labels, places, object_names)


def open_ade(folder: Path, wanted: Sequence[str] | int) -> LabeledPlaces:
    """Opens the training and validation images of SceneParse150, as they are distributed, with all 150 objects.

    Args:
      folder: see `ADE_TREE`.
      wanted: as in `choose_places`.

    Raises:
      FileNotFoundError: the folder has another layout, or an image or a label map of the list is missing.
      ValueError: a damaged list, or as `choose_places`.
    """
    where = (
        "Unpack http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip (about 1 GB), and give its "
        "folder ADEChallengeData2016 as --ade."
    )
    check_layout(folder, ["images", "annotations", "sceneCategories.txt", "objectInfo150.txt"], ADE_TREE, where)
    listed = read_place_list(folder / "sceneCategories.txt")
    places, indices, labels = choose_places(list(listed.values()), wanted)
    names = [list(listed)[index] for index in indices]
    parts = ["training" if name.startswith("ADE_train_") else "validation" for name in names]
    images = [f"images/{part}/{name}.jpg" for part, name in zip(parts, names, strict=True)]
    label_files = [f"annotations/{part}/{name}.png" for part, name in zip(parts, names, strict=True)]
    check_files(folder, [(name, "sceneCategories.txt") for name in images + label_files])
    object_names = read_object_names(folder / "objectInfo150.txt")
    return _from_files(folder, images, label_files, labels, places, object_names)


def open_scene_parse150(
    data_dir: Path | None, scene_list: Path, object_names: Path | None, wanted: Sequence[str] | int
) -> LabeledPlaces:
    """Opens tfds' scene_parse150, which has neither the places nor the names of its images.

    Its examples are in the order of a hash of their names, so that the list of names identifies them. Its label maps
    are those of *instances*, of the 100 objects that have instances: no wall, floor or sky.

    Args:
      data_dir: where tfds keeps it; None for tfds' default.
      scene_list: sceneCategories.txt, which has the names of all images.
      object_names: instanceInfo100_train.txt; None for ids without names.
      wanted: as in `choose_places`.

    Raises:
      FileNotFoundError: the data set is not prepared there, or a file is missing.
      ValueError: the list is damaged or has another number of images, or as `choose_places`.
    """
    listed = read_place_list(scene_list)
    builder = prepared_builder("scene_parse150", data_dir=data_dir)
    names = []
    for split, prefix in (("train", "ADE_train_"), ("test", "ADE_val_")):
        of_split = [name for name in listed if name.startswith(prefix)]
        if len(of_split) != (number := builder.info.splits[split].num_examples):
            raise InputError(
                f"{scene_list} lists {len(of_split)} images {prefix}..., and scene_parse150 has {number} in its split "
                f"{split!r}: expected the complete list that belongs to the data set."
            )
        names += sorted(of_split, key=Hasher(split).hash_key)
    places, indices, labels = choose_places([listed[name] for name in names], wanted)
    names = [names[index] for index in indices]
    info = SourceInfo("scene_parse150", ", ".join(places), places, len(names), ("image", "label", "filename"))
    records = _Records(builder, indices, names, labels, info)
    found = {} if object_names is None else read_object_names(object_names)
    return LabeledPlaces(records, labels, places, found, records.label_map)


def _from_files(
    folder: Path,
    images: Sequence[str],
    label_files: Sequence[str],
    labels: np.ndarray,
    places: tuple[str, ...],
    object_names: Mapping[int, str],
) -> LabeledPlaces:
    # The split names the places: features on disk are of their images alone.
    info = SourceInfo(str(folder), ", ".join(places), places, len(images), ("image", "label", "filename"))

    def label_map(index: int) -> np.ndarray:
        path = folder / label_files[index]
        found = read_label_map(path)
        if found.shape != (size := read_stored_size(folder / images[index])):
            raise InputError(f"{path} is of shape {found.shape}, and its image {size}: expected the same.")
        return found

    return LabeledPlaces(ListedImages(folder, images, labels, info), labels, places, object_names, label_map)


def read_label_map(path: Path) -> np.ndarray:
    """The stored values of an image with one channel, (H, W) integers.

    Raises:
      OSError: the file cannot be read.
      ImageError: it is not an image, is damaged, or has several channels or other numbers; the message names it.
    """
    check_regular(path, error=ImageError)
    with reading(path, "a label map", "Get a complete copy of it.", error=ImageError), Image.open(path) as image:
        ids = np.asarray(image)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ImageError(f"{path} has shape {ids.shape} and values {ids.dtype}: expected one channel, of integers.")
    return ids


class _Records:
    """Some of the examples of tfds' scene_parse150."""

    def __init__(self, builder, indices: np.ndarray, names: Sequence[str], labels: np.ndarray, info: SourceInfo):
        features = dict(builder.info.features.items())
        self._features = {key: tfds.features.FeaturesDict({key: features[key]}) for key in ("image", "annotation")}
        self._records = builder.as_data_source(
            split="train+test",
            file_format=tfds.core.FileFormat.ARRAY_RECORD,
            deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
        )
        self._indices, self._names, self._labels, self.info = indices, names, labels, info

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict:
        return {
            "image": self._decoded(index, "image"),
            "label": int(self._labels[index]),
            "filename": self._names[index],
        }

    def label_map(self, index: int) -> np.ndarray:
        """The first channel, which has the object; the second numbers its instances."""
        return self._decoded(index, "annotation")[..., 0]

    def _decoded(self, index: int, key: str) -> np.ndarray:
        record = self._records[int(self._indices[index])]
        stored = self._features[key].deserialize_example_np(record, decoders={key: tfds.decode.SkipDecoding()})
        try:
            return decode_image(stored[key], apply_exif=False)
        except ImageError as error:
            raise ImageError(f"{self._names[index]} of scene_parse150, its {key}: {error}") from error
