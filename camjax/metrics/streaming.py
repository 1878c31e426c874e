"""What all metrics share: sums over images that can be merged, gathered over processes, stored and restored."""

import abc
import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from camjax.errors import InputError
from camjax.metrics.sample import Sample
from camjax.processes import gather

Need = Literal["boxes", "masks", "scores", "maps"]
Unit = Literal["percent", "score", "correlation", "index", "share", "ratio"]

THRESHOLD_STEP = 0.01
"""Of wsolevaluation's evaluator of stored maps; its training and inference take 0.001."""

_Metric = TypeVar("_Metric", bound="StreamingMetric")


class StreamingMetric(abc.ABC):
    """A metric as sums over the images seen so far.

    Every update adds to `sums` and does nothing else, so that two metrics over two parts of a data set, merged, equal
    the metric over both, however the images were divided and ordered.

    There are two ways to add a batch. `update_from(sample)` is the same for every metric: an evaluation calls it. The
    metric's own `update(...)` takes the arrays that this metric looks at, and serves loops of your own.

    A metric of `camjax.metrics.METRICS` says in its class what an evaluation has to know.

    Args:
      options: what the metric was made with, in JSON's types; only metrics with the same options can be merged.
      sums: name -> zeros, int64 or float64, of the sum's shape. One of them is "images", their number.

    Attributes:
      title: the metric's name in tables.
      unit: of its results; see `unit_of`.
      needs: what a sample has to hold: true "boxes", true "masks", "scores" of the network on changed images, or "maps"
        by the method of changed images and other classes.
      stepped: whether the metric looks at thresholds from 0 on in steps of `for_evaluation`'s threshold_step.
      whole_images: whether the metric is defined only where the network saw the whole image, not a crop.
      options: as given.
      sums: name -> array.
    """

    title: ClassVar[str]
    unit: ClassVar[Unit]
    needs: ClassVar[frozenset[Need]] = frozenset()
    whole_images: ClassVar[bool] = False
    stepped: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any], sums: Mapping[str, ArrayLike]):
        self.options = dict(options)
        self.sums = {name: np.array(value) for name, value in sums.items()}

    @classmethod
    def for_evaluation(cls, num_classes: int, threshold_step: float = THRESHOLD_STEP) -> Self:
        """The metric with the options that an evaluation uses: those of its paper.

        Args:
          num_classes: C of the network.
          threshold_step: between the thresholds of a metric that is `stepped`.

        Raises:
          ValueError: too few classes for the metric.
        """
        return cls()  # type: ignore[call-arg]  # the arguments of every metric of `METRICS` have defaults

    @classmethod
    def unit_of(cls, result: str) -> Unit:
        """The unit of a `result` that `compute` names; those with "threshold" in the name are shares.

        "percent" is in 0..100. The others are in 0..1 ("score", "index", and "share", which is of a map's maximum), in
        -1..1 ("correlation"), or not negative ("ratio"). A "score" that is a difference of scores may be below 0.
        """
        return "share" if "threshold" in result else cls.unit

    @property
    def num_images(self) -> int:
        """The number of images seen, padding left out."""
        return int(self.sums["images"])

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation.

        Args:
          sample: what a method found in the batch, and what is true of it.

        Raises:
          ValueError: the sample does not hold what the metric needs, or holds arrays that do not fit. Nothing is added
            then.
        """
        raise NotImplementedError(f"{type(self).__name__} has no update_from(sample): call its update().")

    def add(self, **numbers: Any) -> None:
        """Adds `numbers` to the sums of these names: the last step of every update."""
        for name, value in numbers.items():
            self.sums[name] = self.sums[name] + value

    @abc.abstractmethod
    def compute(self) -> dict[str, float]:
        """The results by name. Rates are in percent, as in the papers' tables.

        Raises:
          ValueError: no images were added.
        """

    def empty(self) -> Self:
        """A metric with the same options and without images."""
        other = copy.copy(self)
        other.sums = {name: np.zeros_like(value) for name, value in self.sums.items()}
        return other

    def merge(self, other: "StreamingMetric") -> Self:
        """Adds what another metric of the same kind has seen, and returns self.

        Args:
          other: with the same options.

        Raises:
          ValueError: another kind, or made with other options.
        """
        if type(other) is not type(self) or other.options != self.options:
            raise InputError(
                f"{other!r} cannot be merged into {self!r}: expected the same metric with the same options."
            )
        self.add(**other.sums)
        return self

    def state(self) -> dict[str, Any]:
        """The metric in JSON's types; `restore` takes it back, bit for bit."""
        return {
            "metric": type(self).__name__,
            "options": self.options,
            "sums": {name: value.tolist() for name, value in self.sums.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Replaces what self has seen by what `state()` of a metric of the same kind returned; returns self.

        Raises:
          ValueError: the state of another kind of metric, or of one made with other options.
        """
        found = {"metric": state.get("metric"), "options": state.get("options")}
        expected = {"metric": type(self).__name__, "options": self.options}
        if found != expected or set(state.get("sums", ())) != set(self.sums):
            raise InputError(f"the state of {found} cannot be restored into {expected}: expected the same metric.")
        restored = {name: np.array(state["sums"][name], value.dtype) for name, value in self.sums.items()}
        for name, value in self.sums.items():
            if restored[name].shape != value.shape:
                raise InputError(f"{name} of the state has shape {restored[name].shape}: expected {value.shape}.")
        self.sums = restored
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


def merge_across_processes(metric: _Metric) -> _Metric:
    """Merges the metrics of all processes into the one of each, so that all compute the same.

    Every process of `jax.distributed` has to call it, with metrics of the same kind, once at the end.

    Args:
      metric: of this process.

    Returns:
      The same metric, which has now seen what all of them have.
    """
    first, *others = gather(metric.state())
    metric.restore(first)
    for state in others:
        metric.merge(metric.empty().restore(state))
    return metric


def rows_of(mask, batch: int) -> np.ndarray:
    """The indices of the images of a batch of B that are not padding, by a mask (B,) bool; None for all.

    Raises:
      ValueError: a mask of another shape, or with other values than True and False.
    """
    if mask is None:
        return np.arange(batch)
    mask = np.asarray(mask)
    if mask.shape != (batch,) or not np.isin(mask, (0, 1)).all():
        raise InputError(f"mask of shape {mask.shape} and dtype {mask.dtype}: expected ({batch},) bool, one an image.")
    return np.flatnonzero(mask)
