"""Averaged weights: a model whose parameters are the exponential moving average of those of training.

The average over the last steps of a run is often better than its last step, and steadier before the learning rate has
come down (Polyak and Juditsky 1992; Szegedy et al. 2016, section 8, evaluate so).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models import CamModel


def decay_at(decay: float, step: jax.Array) -> jax.Array:
    """() float32: `min(decay, (1 + t) / (10 + t))` after t steps: 0.1, 0.18, 0.25, ... up to the decay.

    An average that starts from the initial weights would hold on to them for about 1 / (1 - decay) steps; with the
    smaller decay of the first steps it follows the model, as TensorFlow's ExponentialMovingAverage does with
    `num_updates`.

    Args:
      decay: 0..1, of the steps after the first.
      step: () int, the number of steps taken before this one.
    """
    t = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + t) / (10 + t))


def update_average(average: CamModel, model: CamModel, *, decay: float, step: jax.Array) -> CamModel:
    """The average after one more step.

    `average = d * average + (1 - d) * parameter` with `d = decay_at(decay, step)`, for every parameter. BatchNorm's
    statistics are averages already, and are the model's.

    Args:
      average: the average so far, of the same structure as `model`; stays as it is.
      model: after the step; stays as it is.
      decay: as in `decay_at`.
      step: as in `decay_at`.
    """
    average = jax.tree.map(lambda leaf: leaf, average)  # new objects: the caller's are left as they are
    rate = 1 - decay_at(decay, step)
    # In this form a parameter that stays, because it is frozen, is its own average to the last bit.
    parameters = jax.tree.map(
        lambda old, new: old + rate.astype(old.dtype) * (new - old),
        nnx.as_pure(nnx.state(average, nnx.Param)),
        nnx.as_pure(nnx.state(model, nnx.Param)),
    )
    nnx.update(average, parameters)
    nnx.update(average, nnx.as_pure(nnx.state(model, nnx.BatchStat)))
    return average
