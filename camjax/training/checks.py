"""Checks before the first step (room on the disk, labels) and during training (finite losses)."""

import math
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from camjax.addresses import is_address, make_folder
from camjax.checkpoints import TrainingError
from camjax.data.batches import Batches
from camjax.data.loader import RandomAccessSource, batch_indices
from camjax.errors import InputError
from camjax.training.recipes import Recipe

_EXAMPLES_SHOWN = 64


def check_labels(batch: dict, num_classes: int) -> dict:
    """Returns a batch whose labels are those of a model's classes.

    Args:
      batch: of `camjax.data.loader`, NumPy arrays: label (b,) or (b, C) and, if there are, mask (b,) and index (b,).
      num_classes: C of the model.

    Raises:
      ValueError: a label outside of 0..C-1 or, of images of several classes, not C numbers in 0..1; the message names
        the example.
    """
    labels = np.asarray(batch["label"])
    several = labels.ndim == 2
    if several and labels.shape[1] != num_classes:
        raise InputError(
            f"labels of {labels.shape[1]} numbers; expected {num_classes}, one for each class of the model. Give a "
            f"model with num_classes={labels.shape[1]}."
        )
    fits = ((labels >= 0) & (labels <= 1)).all(1) if several else (labels >= 0) & (labels < num_classes)
    wrong = ~fits & np.asarray(batch.get("mask", True))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        which = f"example {batch['index'][row]}" if "index" in batch else f"row {row} of a batch"
        raise InputError(
            f"{which} has the label {labels[row].tolist()}: "
            + (
                "expected a number in 0..1 for each class, 1 if the image has it and 0 if not."
                if several
                else f"the model has {num_classes} classes, so labels are 0..{num_classes - 1}. Number the labels from "
                "0, or give a model with more classes."
            )
        )
    return batch


def check_writable(directory: Path) -> None:
    """Creates a directory if it does not exist, and checks that files can be written to it.

    Raises:
      OSError: that is not possible; the message contains the system's.
    """
    try:
        make_folder(directory)
        if not is_address(directory):
            with tempfile.TemporaryFile(dir=directory):
                pass
    except OSError as error:
        raise OSError(f"{directory} is not writable ({error}): choose another run_dir.") from error


def check_room(directory: Path, checkpoint_bytes: int, count: int) -> None:
    """Raises OSError unless a disk has room for more checkpoints; a bucket has.

    Args:
      directory: on the disk.
      checkpoint_bytes: size of one checkpoint.
      count: how many more checkpoints the disk has to hold at once, including one that is being written.
    """
    if is_address(directory):
        return
    free = shutil.disk_usage(directory).free
    needed = checkpoint_bytes * count
    if free < needed:
        raise OSError(
            f"{directory}: {count} checkpoints of {checkpoint_bytes / 1e6:,.0f} MB take {needed / 1e6:,.0f} MB, and "
            f"{free / 1e6:,.0f} MB are free. Make room, or choose another run_dir."
        )


def finite_means(
    pending: list[dict], first_step: int, source: RandomAccessSource | Batches, recipe: Recipe
) -> dict[str, float]:
    """The mean of each metric over some steps; waits for the devices.

    Args:
      pending: the metrics of consecutive steps.
      first_step: the number of the first of them; a run's first step is 1.
      source: the training examples.
      recipe: of the run; with `source`, if that has random access, it determines which examples a step saw.

    Raises:
      TrainingError: a loss or a gradient is not finite.
    """
    pending = jax.device_get(pending)
    for step, metrics in enumerate(pending, first_step):
        for name, words in (("loss", "loss"), ("gradient_norm", "gradient's norm")):
            if not math.isfinite(metrics[name]):
                raise TrainingError(
                    f"The {words} of step {step} is {metrics[name]}: training has diverged. Its batch is "
                    f"{_describe_batch(source, recipe, step - 1)}. Start again with a lower learning rate or a longer "
                    "warm-up; checkpoints before this step stay."
                )
    return {name: float(sum(metrics[name] for metrics in pending) / len(pending)) for name in pending[0]}


def _describe_batch(source: RandomAccessSource | Batches, recipe: Recipe, number: int) -> str:
    if isinstance(source, Batches):
        return f"number {number} of {source!r}, counted from 0"
    indices = batch_indices(len(source), batch_size=recipe.batch_size, seed=recipe.seed, step=number).tolist()
    shown = ", ".join(map(str, indices[:_EXAMPLES_SHOWN]))
    more = "" if len(indices) <= _EXAMPLES_SHOWN else f" and {len(indices) - _EXAMPLES_SHOWN} more"
    info = getattr(source, "info", None)
    of = "" if info is None else f" of {info.name}"
    return f"number {number}, counted from 0: the examples {shown}{more}{of}"
