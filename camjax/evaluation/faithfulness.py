"""Faithfulness metrics in an evaluation: how each takes a batch, on all devices of a process."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from camjax.inference import Localization
from camjax.metrics import FAITHFULNESS
from camjax.metrics.faithfulness_scores import FaithfulnessMetric
from camjax.models.layers import fold_batchnorm, inference_view

TITLES = {
    "insertion": "Insertion",
    "deletion": "Deletion",
    "confidence": "Confidence behind the map",
    "road": "ROAD",
    "sensitivity_n": "Sensitivity-n",
    "sparsity": "Sparsity",
}
"""What a reader of a table calls each of `camjax.metrics.FAITHFULNESS`."""

IN_PERCENT = {"confidence"}
"""Those whose numbers are rates; the others' are scores or indices, in 0..1 or -1..1."""


class FaithfulnessScorer:
    """Scores maps by what the network makes of changed images.

    It is the map of the class with the largest logit that is scored, as in the papers: what the network says, right or
    wrong, is what the map has to explain.

    Args:
      model: a camjax model; a snapshot of it, in inference mode, is copied to each device.
      devices: of this process.
    """

    def __init__(self, model: nnx.Module, devices: Sequence[jax.Device]):
        probabilities_fn = Partial(_probabilities, inference_view(fold_batchnorm(model)))
        self._devices = {device: jax.device_put(probabilities_fn, device) for device in devices}

    def update(
        self,
        metric: FaithfulnessMetric,
        name: str,
        images: np.ndarray,
        out: Localization,
        mask: np.ndarray,
        filenames: Sequence[str],
    ) -> None:
        """Adds a batch to a metric.

        Args:
          metric: is updated.
          name: its name in `FAITHFULNESS`.
          images: (B, H, W, 3) uint8, as the method saw them; B a multiple of the number of devices.
          out: what the method found, in NumPy.
          mask: (B,) bool, False on images that are not counted.
          filenames: (B,), for errors.

        Raises:
          ValueError: a map of an image that counts holds NaN or infinity.
        """
        maps, class_ids = out.maps[:, 0], out.class_ids[:, 0]
        broken = np.flatnonzero(mask & ~np.isfinite(maps).all((1, 2)))
        if len(broken):
            listed = ", ".join(str(filenames[i]) for i in broken[:5])
            raise ValueError(
                f"{name}: the maps of {len(broken)} images of a batch hold NaN or infinity ({listed}). The network's "
                "features are not finite there: look at its weights, or leave out the metrics of faithfulness."
            )

        def of_device(device, *parts):
            part = FAITHFULNESS[name]()
            images, maps, class_ids, mask = parts
            part.update(self._devices[device], jax.device_put(images, device), maps, class_ids, mask)
            return part

        parts = zip(*(np.split(array, len(self._devices)) for array in (images, maps, class_ids, mask)), strict=True)
        with ThreadPoolExecutor(len(self._devices)) as pool:
            # Merged in the order of devices, so that sums do not depend on which is first.
            for part in pool.map(of_device, self._devices, *zip(*parts, strict=True)):
                metric.merge(part)


def _probabilities(model: nnx.Module, images: jax.Array) -> jax.Array:
    return jax.nn.softmax(model(images).astype(jnp.float32))
