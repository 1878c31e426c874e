"""The data sets of table 5 in Zhou et al. 2016: where their images and splits come from, and the paper's numbers.

The numbers of training images and of splits are those of the paper's supplement, section 1.2, except where
`experiments/generic_features/__main__.py` says otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from camjax.data.sources import open_source
from camjax.errors import InputError
from experiments.common.image_lists import list_lines
from experiments.common.layouts import check_layout
from experiments.common.sample import NAME, PHOTOGRAPHS, Views
from experiments.generic_features.folders import (
    open_action40,
    open_caltech256,
    open_event8,
    open_indoor67,
    open_scene15,
    open_sun_attribute,
)
from experiments.generic_features.images import Images, without_class
from experiments.generic_features.splits import Split, attribute_split, listed_split, random_splits

SUN397_LEFT_OUT = ("/c/church/outdoor/sun_bhenjvsvrtumjuri.jpg", "/t/track/outdoor/sun_aophkoiosslinihb.jpg")
"""Badly encoded images, which tfds' builder of sun397 leaves out."""


@dataclass(frozen=True)
class Dataset:
    """A row of the table.

    Attributes:
      name: of its option, files and stages.
      title: in the table.
      paper: accuracies in percent with fc7 of AlexNet, the average pool of GoogLeNet, and GAP of GoogLeNet-GAP.
      images: the published number of images, without those that are no class; beside ours on much fewer, the paper's
        numbers are left out.
      open: opens the data set from its folder, or from where tfds keeps its data.
      train: training images of each class, or for each attribute with it and as many without; None where listed.
      test: test images of each class; None for all that are left, or listed.
      splits: number of splits.
      metric: mean over the classes of their accuracies, or over the attributes of their average precisions.
    """

    name: str
    title: str
    paper: tuple[float, float, float] | None
    images: int
    open: Callable[..., Images]
    train: int | None = None
    test: int | None = None
    splits: int = 1
    metric: Literal["accuracy", "average precision"] = "accuracy"


def open_caltech101(data_dir: Path | None) -> Images:
    """All images of tfds' caltech101 except its background class; tfds' own two splits are a random choice.

    Raises:
      FileNotFoundError, ValueError: as `camjax.data.sources.open_source`.
    """
    source = open_source("caltech101", "train+test", data_dir=data_dir)
    labels = np.array([source.without_image(index)["label"] for index in range(len(source))], np.int32)
    return without_class(source, labels, source.info.class_names, "background_google")


def open_sun397(partitions: Path, data_dir: Path | None) -> Images:
    """All images of tfds' sun397/tfds, with the ten splits of the data set's authors.

    Args:
      partitions: the folder of their lists.
      data_dir: where tfds keeps its data.

    Raises:
      FileNotFoundError, ValueError: as `camjax.data.sources.open_source`; or a list is missing, or names a missing
        image.
    """
    lists = [(f"Training_{number:02d}.txt", f"Testing_{number:02d}.txt") for number in range(1, 11)]
    where = (
        "Unpack https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip (18 MB), and give its folder as "
        "--sun397."
    )
    check_layout(partitions, [name for pair in lists for name in pair], "Training_01.txt\nTesting_01.txt\n...", where)
    source = open_source("sun397/tfds", "train+validation+test", data_dir=data_dir)
    examples = [source.without_image(index) for index in range(len(source))]
    labels = np.array([example["label"] for example in examples], np.int32)
    places = {example["filename"]: index for index, example in enumerate(examples)}
    splits = tuple(Split(*(_listed(partitions / name, places) for name in pair)) for pair in lists)
    return Images(source, labels, source.info.class_names, splits)


def open_sample() -> Images:
    """Views of a few photographs; see `experiments.common.sample`."""
    views = Views(tuple(PHOTOGRAPHS), 12, "all")
    return Images(views, views.labels.astype(np.int32), views.info.class_names)


def _listed(path: Path, places: Mapping[str, int]) -> np.ndarray:
    """The ascending indices of the images that a list of sun397 names, without those that tfds leaves out."""
    names = [name for name in list_lines(path) if name not in SUN397_LEFT_OUT]
    if missing := [name for name in names if name not in places]:
        raise InputError(
            f"{path} lists {len(missing)} images that the prepared sun397/tfds lacks, such as {missing[0]}: expected "
            "images of SUN397. Take the published lists, or prepare the data set again."
        )
    return np.sort([places[name] for name in names])


DATASETS = (
    Dataset("sun397", "SUN397", (42.61, 51.68, 51.31), 108_754, open_sun397),
    Dataset("indoor67", "MIT Indoor67", (56.79, 66.63, 66.61), 6_700, open_indoor67),
    Dataset("scene15", "Scene15", (84.23, 88.02, 88.30), 4_485, open_scene15, train=50, splits=10),
    Dataset(
        "sun_attribute",
        "SUN Attribute",
        (84.23, 92.85, 92.21),
        14_340,
        open_sun_attribute,
        train=150,
        splits=10,
        metric="average precision",
    ),
    Dataset("caltech101", "Caltech101", (87.22, 92.05, 91.98), 8_677, open_caltech101, train=30, splits=10),
    Dataset("caltech256", "Caltech256", (67.23, 78.99, 78.07), 29_780, open_caltech256, train=30, splits=10),
    Dataset("action40", "Action40", (54.92, 72.03, 70.62), 9_532, open_action40),
    Dataset("event8", "Event8", (94.42, 95.42, 95.00), 1_579, open_event8, train=70, test=60, splits=10),
)
"""The columns of the paper's table, in its order."""

SAMPLE = Dataset(NAME, NAME, None, 0, open_sample, train=6, splits=3)
"""The trial without a data set."""


def splits_of(dataset: Dataset, images: Images, usable: np.ndarray) -> list[list[Split]]:
    """The splits of a data set: those that it lists, or else random ones.

    Args:
      dataset: has the number of splits and of images in each.
      images: the open data set.
      usable: (n,) bool, the images that can be read; other images are in no split.

    Returns:
      For each split a list of one, or of one for each attribute.

    Raises:
      ValueError: a class or an attribute has too few images.
    """
    labels, names = images.labels, images.class_names
    if images.listed:
        return [[listed_split(split, labels, names, usable)] for split in images.listed]
    assert dataset.train is not None, f"{dataset.name} lists no splits: expected a number of training images"
    if labels.ndim == 2:
        return [
            [
                attribute_split(labels[:, attribute], name, usable, train=dataset.train, seed=(number, attribute))
                for attribute, name in enumerate(names)
            ]
            for number in range(dataset.splits)
        ]
    drawn = random_splits(labels, names, usable, train=dataset.train, test=dataset.test, count=dataset.splits)
    return [[split] for split in drawn]
