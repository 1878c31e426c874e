"""How well a network classifies the pictures of a source: each picture's class, accuracies, and what is confused."""

import collections
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from camjax.cam import class_probabilities
from camjax.data.loader import RandomAccessSource, eval_batches
from camjax.data.relabeled import with_classes_of
from camjax.models import CamModel
from camjax.models.inference_mode import inference_view, run_for_inference
from camjax.models.layers import fold_batchnorm
from camjax.processes import gather


class Confusion(NamedTuple):
    """Pictures of one class that were taken for another."""

    true: str
    predicted: str
    images: int


@dataclass(frozen=True)
class Classified:
    """What a network says about each picture of a source, in the source's order.

    Attributes:
      class_names: C names.
      labels: (n,) true classes.
      predictions: (n,) the most probable classes.
      probabilities: (n,) of the predictions, in 0..1.
    """

    class_names: Sequence[str]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(n,) whether the prediction is the true class."""
        return self.labels == self.predictions

    @property
    def accuracy(self) -> float:
        """The share of pictures whose prediction is the true class."""
        return float(self.right.mean())

    def per_class(self) -> dict[str, dict[str, float]]:
        """Class -> number of its pictures, how many are right, and their share; classes without a picture are left out.

        In the order of the classes.
        """
        images = np.bincount(self.labels, minlength=len(self.class_names))
        right = np.bincount(self.labels[self.right], minlength=len(self.class_names))
        return {
            name: {"images": int(n), "right": int(good), "accuracy": float(good / n)}
            for name, n, good in zip(self.class_names, images, right, strict=True)
            if n
        }

    def confused(self) -> list[Confusion]:
        """The pairs of a true class and another that it was taken for, the most frequent first."""
        pairs = zip(self.labels[~self.right].tolist(), self.predictions[~self.right].tolist(), strict=True)
        counts = collections.Counter(pairs)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return [Confusion(self.class_names[i], self.class_names[j], count) for (i, j), count in ordered]


def classify(
    model: CamModel,
    source: RandomAccessSource,
    *,
    batch_size: int,
    num_workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Classified:
    """Classifies each picture of a source once, on all devices of all processes.

    Args:
      model: runs in inference mode; left unchanged.
      source: pictures with labels; they are resized to `model.input_size`. Classes are paired by name, as in
        `camjax.training.evaluate`.
      batch_size: pictures at a time, a multiple of the number of devices.
      num_workers: reading processes, as in `eval_batches`.
      progress: called with the number of pictures done and their total.

    Raises:
      ValueError: a batch size that the devices cannot share, a picture that cannot be read, or a class that the model
        does not have.
    """
    source = with_classes_of(source, model.class_names, model.head.num_classes)
    devices = jax.local_devices()
    view = inference_view(fold_batchnorm(model))
    models = [jax.device_put(view, device) for device in devices]
    top = jax.jit(_top)
    found: list[tuple[np.ndarray, ...]] = []
    batches = eval_batches(source, batch_size=batch_size, size=model.input_size, num_workers=num_workers)
    with contextlib.closing(batches):
        for done, batch in enumerate(batches, 1):
            parts = np.split(batch["image"], len(devices))
            results = jax.device_get([top(*pair) for pair in zip(models, parts, strict=True)])
            rows = (batch["index"], batch["label"], *map(np.concatenate, zip(*results, strict=True)))
            found.append(tuple(row[batch["mask"]] for row in rows))
            if progress:
                progress(min(done * batch_size, len(source)), len(source))
    own = [np.concatenate(rows).tolist() for rows in zip(*found, strict=True)]
    index, labels, predictions, probabilities = (
        np.concatenate([np.asarray(value) for value in values]) for values in zip(*gather(own), strict=True)
    )
    order = np.argsort(index)
    names = model.class_names or [f"class {i}" for i in range(model.head.num_classes)]
    return Classified(names, labels[order].astype(int), predictions[order].astype(int), probabilities[order])


def _top(model: CamModel, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The most probable class of each image, and its probability."""
    probabilities = class_probabilities(run_for_inference(model, images))
    return probabilities.argmax(-1), probabilities.max(-1)
