"""Training and test images: as a data set lists them, or drawn at random with a fixed number of each class."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from camjax.errors import InputError


class Split(NamedTuple):
    """The indices of n training and of m test images, in ascending order: (n,) and (m,) int."""

    train: np.ndarray
    test: np.ndarray


def random_splits(
    labels: np.ndarray,
    class_names: Sequence[str],
    usable: np.ndarray,
    *,
    train: int,
    test: int | None,
    count: int,
) -> list[Split]:
    """Draws independent splits, the same ones in every run.

    Args:
      labels: (n,) int.
      class_names: for the message.
      usable: (n,) bool; other images are in no split.
      train: training images of each class.
      test: test images of each class; None takes all that are left.
      count: of splits.

    Raises:
      ValueError: a class has too few usable images; the message names all such classes.
    """
    of_class = [np.flatnonzero((labels == label) & usable) for label in range(len(class_names))]
    needed = train + (test or 1)
    counts = zip(class_names, map(len, of_class), strict=True)
    short = [f"{name} ({number})" for name, number in counts if number < needed]
    if short:
        raise InputError(
            f"too few images that can be read of {_some(short)}: expected at least {needed} of each class, {train} for "
            f"training and {test or 'at least 1'} for testing. Complete the data set."
        )
    splits = []
    for number in range(count):
        rng = np.random.default_rng(number)
        drawn = [rng.permutation(images) for images in of_class]
        end = None if test is None else train + test
        splits.append(_split([images[:train] for images in drawn], [images[train:end] for images in drawn]))
    return splits


def listed_split(split: Split, labels: np.ndarray, class_names: Sequence[str], usable: np.ndarray) -> Split:
    """A split that the data set lists, without the unusable images.

    Args:
      split: as it is listed.
      labels: (n,) int.
      class_names: for the message.
      usable: (n,) bool.

    Raises:
      ValueError: a class has no training or no test image left.
    """
    split = Split(*(part[usable[part]] for part in split))
    for name, part in zip(("training", "test"), split, strict=True):
        counts = np.bincount(labels[part], minlength=len(class_names))
        if short := [class_names[label] for label in np.flatnonzero(counts == 0).tolist()]:
            raise InputError(f"no {name} image of {_some(short)} can be read: expected those of the data set's list.")
    return split


def attribute_split(votes: np.ndarray, name: str, usable: np.ndarray, *, train: int, seed: Sequence[int]) -> Split:
    """Draws a split for one attribute; in both parts as many images have it as lack it.

    An image has the attribute if at least two thirds of the votes say so, and lacks it if none does; other images are
    not used. Where there are fewer than twice the training images of either kind, half of them are for training.

    Args:
      votes: (n,) the share of votes for the attribute, in 0..1.
      name: of the attribute, for the message.
      usable: (n,) bool; other images are not drawn.
      train: most training images with the attribute; and as many without.
      seed: of the choice.

    Raises:
      ValueError: fewer than six usable images have the attribute, or lack it.
    """
    present, absent = np.flatnonzero(has_attribute(votes) & usable), np.flatnonzero((votes == 0) & usable)
    number = min(len(present), len(absent))
    if number < 6:
        raise InputError(
            f"{len(present)} images that can be read have the attribute {name!r} and {len(absent)} lack it: expected "
            "at least 6 of each. Complete the data set."
        )
    rng = np.random.default_rng(seed)
    present, absent = (rng.permutation(images)[:number] for images in (present, absent))
    train = min(train, number // 2)
    return _split([present[:train], absent[:train]], [present[train:], absent[train:]])


def has_attribute(votes: np.ndarray) -> np.ndarray:
    """Shares of votes in 0..1 -> bool: at least two of three votes."""
    return votes > 0.6


def _split(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> Split:
    return Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(test)))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} others" if len(names) > 5 else "")
