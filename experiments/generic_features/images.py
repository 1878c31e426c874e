"""A data set as the experiment on generic features needs it: images, labels, and the splits that it lists."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from camjax.data.rows import RandomAccessSource
from experiments.common.image_lists import Chosen
from experiments.generic_features.splits import Split


@dataclass(frozen=True)
class Images:
    """A data set, opened.

    Attributes:
      source: its n images.
      labels: (n,) int32 classes; or (n, A) float32, the share of votes for each of A attributes, in 0..1.
      class_names: of the C classes, or the A attributes.
      listed: the splits that the data set itself lists; none where they are drawn at random.
    """

    source: RandomAccessSource
    labels: np.ndarray
    class_names: tuple[str, ...]
    listed: tuple[Split, ...] = ()


def without_class(source: RandomAccessSource, labels: np.ndarray, class_names: Sequence[str], name: str) -> Images:
    """The images of all classes but one, whose labels close up.

    Args:
      source: n images.
      labels: (n,) int.
      class_names: of all classes.
      name: of the one that is left out.
    """
    label = class_names.index(name)
    kept = np.flatnonzero(labels != label)
    labels = (labels - (labels > label))[kept].astype(np.int32)
    return Images(Chosen(source, kept), labels, tuple(other for other in class_names if other != name))
