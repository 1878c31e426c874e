"""The data sets of the benchmark as it distributes them: images, text lists and masks, in three splits."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from camjax.data.annotated import open_annotated
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.scenes import SIDE
from camjax.data.transforms import Transform, random_translation
from experiments.common.benchmark import augmentation
from experiments.common.layouts import check_layout

Split = Literal["train", "val", "test"]
"""train-weaksup, train-fullsup and test, by the names of their folders of lists."""


@dataclass(frozen=True)
class Dataset:
    """A data set of the benchmark.

    Attributes:
      folder: the name of its folders of images and of lists; "" for scenes, which is built in.
      title: as printed.
      counts: images of train, val and test, as published.
      metric: of `camjax.metrics.METRICS`, by which hyperparameters are chosen.
      score: its result.
      settings: the data set whose length and decays of training it has, in `camjax.training.published.wsol`.
      augment: makes the random change of training images for a network's input size.
      fullsup_per_class: images of each class that choose hyperparameters; None for all of the split.
    """

    folder: str
    title: str
    counts: tuple[int, int, int]
    metric: str
    score: str
    settings: Literal["cub", "imagenet", "openimages", "scenes"]
    augment: Callable[[tuple[int, int]], Transform] = augmentation
    fullsup_per_class: int | None = None


DATASETS = {
    "cub": Dataset("CUB", "CUB-200-2011", (5_994, 1_000, 5_794), "maxboxaccv2", "MaxBoxAccV2", "cub"),
    "imagenet": Dataset("ILSVRC", "ImageNet", (1_281_167, 10_000, 50_000), "maxboxaccv2", "MaxBoxAccV2", "imagenet"),
    "openimages": Dataset(
        "OpenImages", "OpenImages30k", (29_819, 2_500, 5_000), "pxap", "PxAP", "openimages", fullsup_per_class=5
    ),
    "scenes": Dataset(
        "",
        "scenes",
        (6_000, 600, 600),
        "maxboxaccv2",
        "MaxBoxAccV2",
        "scenes",
        lambda size: functools.partial(random_translation, max_shift=SIDE // 8),  # flipped digits are others
    ),
}

_TREE = """
    {split}/
      image_ids.txt          path
      class_labels.txt       path,label
      image_sizes.txt        path,width,height          (with boxes)
      localization.txt       path,x0,y0,x1,y1 or path,mask,ignore     (but for train)
"""


def open_split(dataset: Dataset, split: Split, images: Path, lists: Path, masks: Path | None) -> AnnotatedSource:
    """Opens a split.

    Args:
      dataset: of the benchmark.
      split: its folder of lists.
      images: what the paths in the lists are relative to.
      lists: has a folder for each split.
      masks: what the masks in the lists are relative to; None for the folder of images.

    Raises:
      FileNotFoundError: a list or an image is missing.
      ValueError: a damaged list, or one without what the metric needs.
    """
    if not dataset.folder:
        return open_annotated(dataset.title, {"val": "validation"}.get(split, split))
    needed = ["image_ids.txt", "class_labels.txt", *(["localization.txt"] if split != "train" else [])]
    where = (
        f"These are the lists of {dataset.title} of github.com/clovaai/wsolevaluation (metadata/{dataset.folder}): "
        "give --lists their folder, and --folder the one that their paths are relative to."
    )
    check_layout(lists, [f"{split}/{name}" for name in needed], _TREE.format(split=split), where)
    return open_annotated(images, split, lists=lists, masks=masks)


class FirstOfEachClass(AnnotatedSource):
    """The first images of each class, in the order of the source.

    Args:
      source: annotated images.
      number: of each class.
    """

    def __init__(self, source: AnnotatedSource, number: int):
        seen: Counter[int] = Counter()
        chosen = []
        for index in range(len(source)):
            label = source.annotation(index).label
            if seen[label] < number:
                chosen.append(index)
            seen[label] += 1
        self._source, self._chosen = source, chosen
        self.info = dataclasses.replace(source.info, num_examples=len(chosen))
        self.has_boxes, self.has_masks = source.has_boxes, source.has_masks

    def __getitem__(self, index: int) -> dict:
        self._check_index(index)
        return self._source[self._chosen[index]]

    def annotation(self, index: int) -> Annotation:
        """See `AnnotatedSource.annotation`."""
        self._check_index(index)
        return self._source.annotation(self._chosen[index])

    def mask(self, index: int, size: tuple[int, int] | None = None) -> np.ndarray:
        """See `AnnotatedSource.mask`."""
        self._check_index(index)
        return self._source.mask(self._chosen[index], size)
