"""What all metrics share: sums over images that can be merged, gathered over processes, stored and restored."""

import abc
from collections.abc import Mapping

import jax
import numpy as np


class StreamingMetric(abc.ABC):
    """A metric as sums over the images seen so far.

    Everything that an `update` learns about an image goes into `sums`, by addition, so that two metrics over two parts
    of a data set, merged, are the metric over both, in whatever parts and order the images came.

    Attributes:
      options: what the metric was made with, in JSON's types; only metrics with the same options can be merged.
      sums: name -> int64 or float64 array of fixed shape.
    """

    def __init__(self, options: Mapping, sums: Mapping[str, np.ndarray]):
        self.options = dict(options)
        self.sums = {name: np.array(value) for name, value in sums.items()}

    @abc.abstractmethod
    def compute(self) -> dict[str, float]:
        """The results by name. Rates are in percent, as in the papers' tables.

        Raises:
          ValueError: there is nothing to compute from.
        """

    def merge(self, other: "StreamingMetric") -> "StreamingMetric":
        """Adds what another metric of the same kind has seen, and returns self.

        Raises:
          ValueError: another kind, or made with other options.
        """
        if type(other) is not type(self) or other.options != self.options:
            raise ValueError(
                f"{other!r} cannot be merged into {self!r}: expected the same metric with the same options."
            )
        for name, value in other.sums.items():
            self.sums[name] = self.sums[name] + value
        return self

    def state(self) -> dict:
        """The metric in JSON's types; `restore` takes it back, bit for bit."""
        return {
            "metric": type(self).__name__,
            "options": self.options,
            "sums": {name: value.tolist() for name, value in self.sums.items()},
        }

    def restore(self, state: Mapping) -> "StreamingMetric":
        """Takes over what `state()` of a metric of the same kind gave, in place of what self has seen; returns self.

        Raises:
          ValueError: the state of another kind of metric, or of one made with other options.
        """
        found = {"metric": state.get("metric"), "options": state.get("options")}
        expected = {"metric": type(self).__name__, "options": self.options}
        if found != expected or set(state.get("sums", ())) != set(self.sums):
            raise ValueError(f"the state of {found} cannot be restored into {expected}: expected the same metric.")
        restored = {name: np.array(state["sums"][name], value.dtype) for name, value in self.sums.items()}
        for name, value in self.sums.items():
            if restored[name].shape != value.shape:
                raise ValueError(f"{name} of the state has shape {restored[name].shape}: expected {value.shape}.")
        self.sums = restored
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


def merge_across_processes(metric: StreamingMetric) -> StreamingMetric:
    """Merges the metric of every process into that of each, so that all compute the same; returns it.

    Every process of `jax.distributed` has to call it, with metrics of the same kind, once at the end.
    """
    if jax.process_count() == 1:
        return metric
    from jax.experimental import multihost_utils

    for name, value in metric.sums.items():
        # As bytes: JAX would round 64-bit numbers to 32 on the way.
        own = np.ascontiguousarray(value).view(np.uint8) if value.ndim else value.reshape(1).view(np.uint8)
        gathered = np.asarray(multihost_utils.process_allgather(own, tiled=False))
        metric.sums[name] = gathered.reshape(jax.process_count(), -1).view(value.dtype).sum(0).reshape(value.shape)
    return metric


def rows_of(mask, batch: int) -> np.ndarray:
    """The indices of the images of a batch that are no padding.

    Args:
      mask: (B,) bool, False for padding; None where there is none.
      batch: B.

    Raises:
      ValueError: a mask of another shape, or with other values than True and False.
    """
    if mask is None:
        return np.arange(batch)
    mask = np.asarray(mask)
    if mask.shape != (batch,) or not np.isin(mask, (0, 1)).all():
        raise ValueError(f"mask of shape {mask.shape} and dtype {mask.dtype}: expected ({batch},) bool, one an image.")
    return np.flatnonzero(mask)
