"""Averaged weights: the exponential moving average of the parameters over the steps of training.

The average over the last steps is often better than the last step, and steadier while the learning rate is high (Polyak
and Juditsky 1992; Szegedy et al. 2016, section 8, evaluate averaged weights).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models import CamModel


def decay_at(decay: float, step: jax.Array) -> jax.Array:
    """Returns the decay at a step: `min(decay, (1 + t) / (10 + t))` after t steps, that is 0.1, 0.18, 0.25, ...

    With the full decay from the start, the average would stay near the initial weights for about 1 / (1 - decay) steps.
    The smaller decay of the first steps is that of TensorFlow's ExponentialMovingAverage with `num_updates`.

    Args:
      decay: in 0..1; the limit for later steps.
      step: () int, number of steps taken before this one.

    Returns:
      () float32.
    """
    t = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + t) / (10 + t))


def update_average(average: CamModel, model: CamModel, *, decay: float, step: jax.Array) -> CamModel:
    """Returns the average after one more step.

    Every parameter becomes `d * average + (1 - d) * parameter`, with `d = decay_at(decay, step)`. BatchNorm's
    statistics are averages already: they are copied from the model.

    Args:
      average: the average so far, of the same structure as `model`; left unchanged.
      model: after the step; left unchanged.
      decay: as in `decay_at`.
      step: as in `decay_at`.
    """
    average = jax.tree.map(lambda leaf: leaf, average)  # new objects, so that the caller's stay unchanged
    rate = 1 - decay_at(decay, step)
    # In this form the average of a frozen parameter is bit for bit the parameter.
    parameters = jax.tree.map(
        lambda old, new: old + rate.astype(old.dtype) * (new - old),
        nnx.as_pure(nnx.state(average, nnx.Param)),
        nnx.as_pure(nnx.state(model, nnx.Param)),
    )
    nnx.update(average, parameters)
    nnx.update(average, nnx.as_pure(nnx.state(model, nnx.BatchStat)))
    return average
