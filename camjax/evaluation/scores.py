"""Metrics that look at the network's scores of changed images, on all devices of a process."""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial

from camjax.metrics import Sample, StreamingMetric
from camjax.models.layers import fold_batchnorm, inference_view


class DeviceScores:
    """Gives metrics the network's probabilities, and shares their work among devices.

    Args:
      model: a camjax model. A snapshot of it, in inference mode, is copied to each device at the first update.
      devices: of this process.
    """

    def __init__(self, model: nnx.Module, devices: Sequence[jax.Device]):
        self._model, self._devices = model, devices

    def update(self, metric: StreamingMetric, sample: Sample) -> None:
        """Adds a batch to a metric; its number of images is a multiple of the number of devices."""

        def of_device(device: jax.Device, part: Sample) -> StreamingMetric:
            images, probabilities_fn = jax.device_put(part.images, device), self._functions[device]
            own = metric.empty()
            own.update_from(replace(part, images=images, probabilities_fn=probabilities_fn))
            return own

        functions, parts = self._functions, sample.split(len(self._devices))
        with ThreadPoolExecutor(len(parts)) as pool:
            # Merged in the order of the devices, so that sums do not depend on which of them is first.
            for part in pool.map(of_device, functions, parts):
                metric.merge(part)

    @functools.cached_property
    def _functions(self) -> dict[jax.Device, Partial]:
        probabilities_fn = Partial(_probabilities, inference_view(fold_batchnorm(self._model)))
        return {device: jax.device_put(probabilities_fn, device) for device in self._devices}


def _probabilities(model: nnx.Module, images: jax.Array) -> jax.Array:
    return jax.nn.softmax(model(images).astype(jnp.float32))
