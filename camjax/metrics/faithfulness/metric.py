"""Faithfulness metrics over a data set: means over images."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from camjax.errors import InputError
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import StreamingMetric, rows_of

UNIT = 2.0**-30
"""Numbers are rounded to it before they are added. Sums below 2**23 are exact then, in any order: the same whoever adds
them, one process or several."""


class FaithfulnessMetric(StreamingMetric):
    """Means over images of numbers that depend on an image, its map and a class; see `camjax.metrics.FAITHFULNESS`.

    Args:
      options: what the metric was made with, in JSON's types.
      names: the names of the numbers, as in the results of `compute`.
      chunk_size: images scored at a time, which does not change the results; None if none are scored.
    """

    needs = frozenset({"scores"})

    def __init__(self, options: Mapping[str, Any], names: Sequence[str], chunk_size: int | None = None):
        super().__init__(options, {"images": 0} | dict.fromkeys(names, 0.0))
        self._chunk_size = chunk_size

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: the maps of the most probable classes.

        As in the papers, a map has to explain the network's own answer, right or wrong.

        Raises:
          ValueError: a sample without `probabilities_fn`, or a map of an image that counts holds NaN or infinity.
        """
        maps, class_ids, truth = sample.top.maps[:, 0], sample.top.class_ids[:, 0], sample.truth
        if sample.probabilities_fn is None:
            raise InputError(f"{self.title} of a sample without probabilities_fn: expected the network's.")
        if "maps" in self.needs and sample.maps_fn is None:
            raise InputError(f"{self.title} of a sample without maps_fn: expected the method's.")
        broken = np.flatnonzero(truth.counted & ~np.isfinite(maps).all((1, 2)))
        if len(broken):
            listed = ", ".join(truth.filenames[i] for i in broken[:5])
            raise InputError(
                f"{self.title}: the maps of {len(broken)} images of a batch hold NaN or infinity ({listed}). The "
                "network's features are not finite there: check its weights, or leave out the metrics of faithfulness."
            )
        self.update(sample.probabilities_fn, sample.images, maps, class_ids, truth.counted, sample.maps_fn)

    def update(
        self, probabilities_fn: Callable, images, maps, class_ids, mask=None, maps_fn: Callable | None = None
    ) -> None:
        """Adds a batch of B images.

        Args:
          probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C), for any b; each row depends only on its
            own image. Probabilities, such as a softmax, unless the metric says that other scores will do. Pass the same
            function every time: each new one is compiled. Weights of NNX modules and of
            `jax.tree_util.Partial(function, weights)` are arguments of the compiled programs, others constants. A
            camjax model has to be in inference mode: see `camjax.models.inference_view`.
          images: (B, H, W, 3) RGB in 0..255, uint8 or float.
          maps: (B, h, w), one of each image, for the class that is asked about; more is more relevant.
          class_ids: (B,) integers in 0..C-1.
          mask: (B,) bool, False for padding; None for all images.
          maps_fn: (images (B, H, W, 3) float32, class_ids (B,)) -> maps (B, h, w) by the method that made the maps,
            such as `lambda images, class_ids: cam_fn(images, class_ids).maps[:, 0]`. Expected by the metrics that need
            "maps", of changed images or other classes; others do not look at it.

        Raises:
          ValueError: another shape or type, maps that hold NaN or infinity, class ids out of range, or no maps_fn where
            the metric needs one. Nothing is added then.
        """
        rows = rows_of(mask, len(images))
        if not len(rows):
            return
        if mask is not None:
            # Padding is scored like the rest, because another shape would be compiled. Its values may be anything.
            maps, class_ids = (_without_padding(array, len(images), rows) for array in (maps, class_ids))
        batch = [probabilities_fn, images, maps, class_ids]
        if "maps" in self.needs:
            if maps_fn is None:
                raise InputError(f"{self.title} needs maps of changed images or other classes: expected maps_fn.")
            batch.append(maps_fn)
        counted = {name: np.asarray(values, np.float64)[rows] for name, values in self._numbers(*batch).items()}
        for name, values in counted.items():
            if not np.isfinite(values).all():
                raise InputError(
                    f"{name} of rows {rows[~np.isfinite(values)][:10].tolist()} is not a finite number: the method's "
                    "maps of these images, changed a little, hold NaN or infinity, or the map itself is 0 everywhere."
                )
        self.add(images=len(rows), **{name: (UNIT * np.round(of / UNIT)).sum() for name, of in counted.items()})

    def compute(self) -> dict[str, float]:
        """The means over images, by name.

        Raises:
          ValueError: no image was seen.
        """
        if not self.num_images:
            raise InputError(f"{self!r} has seen no image: expected an update() with at least one.")
        return {name: float(total) / self.num_images for name, total in self.sums.items() if name != "images"}

    @abc.abstractmethod
    def _numbers(self, *batch) -> dict[str, ArrayLike]:
        """Each name's (B,) numbers of a batch: probabilities_fn, images, maps, class_ids; maps_fn where needed."""

    @property
    def _arguments(self) -> dict[str, Any]:
        """The options as the metric's function takes them, which has a key in place of the seed."""
        arguments = {**self.options} if self._chunk_size is None else {**self.options, "chunk_size": self._chunk_size}
        if "seed" in arguments:
            arguments["key"] = jax.random.key(arguments.pop("seed"))
        return arguments


def _without_padding(array, batch: int, rows: np.ndarray) -> np.ndarray:
    """The array with zeros, or the class 0, in padding."""
    array = np.asarray(array)
    if array.shape[:1] != (batch,):
        return array  # an error of its shape, which the metric raises
    kept = np.zeros_like(array)
    kept[rows] = array[rows]
    return kept
