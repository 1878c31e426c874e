"""A data set for the experiment on generic features: images, labels, and the splits that the data set lists."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.common.image_lists import Chosen, ImageSource
from experiments.generic_features.splits import Split


@dataclass(frozen=True)
class Images:
    """An open data set.

    Attributes:
      source: its n images.
      labels: (n,) int32 classes; or (n, A) float32, the share of votes for each of A attributes, in 0..1.
      class_names: of the C classes, or the A attributes.
      listed: the splits that the data set itself lists; empty where they are drawn at random.
    """

    source: ImageSource
    labels: np.ndarray
    class_names: tuple[str, ...]
    listed: tuple[Split, ...] = ()


def without_class(source: ImageSource, labels: np.ndarray, class_names: Sequence[str], name: str) -> Images:
    """The images of all classes but one; the remaining labels are renumbered without a gap.

    Args:
      source: n images.
      labels: (n,) int.
      class_names: of all classes.
      name: of the class that is left out.
    """
    label = class_names.index(name)
    kept = np.flatnonzero(labels != label)
    labels = (labels - (labels > label))[kept].astype(np.int32)
    return Images(Chosen(source, kept), labels, tuple(other for other in class_names if other != name))
