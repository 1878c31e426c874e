"""Sparsity: how few pixels hold a map. Not faithfulness itself, but it tells equally faithful maps apart."""

import jax
import jax.numpy as jnp
import numpy as np

from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.scores import check_arguments


@jax.jit
def gini_index(maps: jax.Array) -> jax.Array:
    """The Gini index of a map's absolute values (Hurley and Rickard 2009, eq. 1; for maps, Chalasani et al. 2020).

    With the N absolute values in rising order, `G = 1 - 2 sum_k v_k / |v|_1 (N - k + 1/2) / N`: 0 where all are equal,
    1 - 1 / N where one pixel holds all.

    Args:
      maps: (..., h, w), finite.

    Returns:
      (...) float32 in 0..1. A map of zeros has 0.
    """
    maps = jnp.abs(jnp.asarray(maps).astype(jnp.float32))
    values = jnp.sort(maps.reshape(*maps.shape[:-2], -1), axis=-1)
    count = values.shape[-1]
    # Divided by the largest value, so that no sum overflows or underflows.
    values = values / jnp.where(values[..., -1:] > 0, values[..., -1:], 1)
    total = values.sum(-1)
    # sum_k v_k (2k - N - 1) / (N |v|_1): the same, without the difference of two large numbers.
    weights = jnp.asarray((2 * np.arange(1, count + 1) - count - 1) / count, jnp.float32)
    weights = jnp.broadcast_to(weights, values.shape)
    return ((values * weights).sum(-1) / jnp.where(total > 0, total, 1)).clip(0, 1)


class Sparsity(FaithfulnessMetric):
    """The mean Gini index over images of maps at the images' size, "sparsity"; see `gini_index`.

    Maps of all methods are resized to the image (bilinear), so that their number of cells does not matter. `update`
    takes the function of probabilities for the common interface only: no image is scored.
    """

    title = "Sparsity"
    unit = "index"

    def __init__(self):
        super().__init__({}, ["sparsity"])

    def _numbers(self, *batch):
        _, _, maps, _ = check_arguments(*batch)
        return {"sparsity": gini_index(maps)}
