"""Steps on all devices at once: the only file that knows of `jax.pmap`.

The state is the same on every device and has no stacked axis; a batch is split evenly over the devices of this
process. Several processes (`jax.distributed.initialize`) run the same steps together, each on its part of the
global batch.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from camjax.training.recipes import Recipe
from camjax.training.step import TrainState, eval_step, train_step

_AXIS = "devices"


def replicate(tree):
    """A copy of a tree of arrays on each device of this process.

    It is a copy on the first device as well, because a training step gives its state's memory to the next state.
    """
    # Across processes an array without such a sharding is moved by the first step, and the donated original is lost.
    return jax.device_put(tree, _sharding(), may_alias=False)


def put_batch(batch: dict) -> dict:
    """Sends this process's part of a global batch to its devices, so that it is there when a step asks for it.

    Args:
      batch: image and label as for `parallel_train_step`; other arrays stay behind.

    Returns:
      (local devices, b / local devices, ...) arrays, each device holding its own; steps take them as they take `batch`.
    """
    return jax.device_put(_split({name: batch[name] for name in ("image", "label")}), _sharding(_AXIS))


def parallel_train_step(recipe: Recipe) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """`camjax.training.train_step` on all devices, as a recipe says.

    Returns:
      `step(state, batch) -> (state, metrics)`. state: `replicate(TrainState.create(model, recipe))`, or from the step
      before; it is consumed. batch: this process's part of the global batch, its length a multiple of the number of
      local devices times the recipe's `accumulate`; or what `put_batch` made of it.
    """
    step = functools.partial(
        train_step,
        label_smoothing=recipe.label_smoothing,
        accumulate=recipe.accumulate,
        ema_decay=recipe.ema_decay,
        frozen=recipe.frozen,
        new_layers=recipe.new_layers,
        freeze_batchnorm=recipe.freeze_batchnorm,
        axis_name=_AXIS,
    )
    mapped = jax.pmap(step, axis_name=_AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)
    return lambda state, batch: mapped(state, _split(batch))


def parallel_eval_step() -> Callable[..., dict]:
    """`camjax.training.eval_step` on all devices: `step(model, batch) -> sums`, with a batch as for training."""
    step = functools.partial(eval_step, axis_name=_AXIS)
    mapped = jax.pmap(step, axis_name=_AXIS, in_axes=(None, 0), out_axes=None)
    return lambda model, batch: mapped(model, _split({name: batch[name] for name in ("image", "label", "mask")}))


def check_batch_size(batch_size: int, accumulate: int = 1) -> None:
    """Raises ValueError unless a global batch can be shared evenly by all devices of all processes.

    Args:
      batch_size: images per step.
      accumulate: micro-batches that each device splits its share into, evenly as well.
    """
    devices = f"{jax.device_count()} devices"
    if accumulate > 1:
        devices += f" times accumulate={accumulate} micro-batches"
    if batch_size < 1 or batch_size % (jax.device_count() * accumulate):
        raise ValueError(
            f"batch_size={batch_size}: expected a positive multiple of the {devices} that share it "
            f"({jax.process_count()} processes with {jax.local_device_count()} devices each)."
        )


def _split(batch: dict) -> dict:
    """(b, ...) arrays -> (local devices, b / local devices, ...); those from `put_batch` stay as they are."""
    devices, there = jax.local_device_count(), _sharding(_AXIS)
    return {
        name: value if getattr(value, "sharding", None) == there else value.reshape(devices, -1, *value.shape[1:])
        for name, value in batch.items()
    }


@functools.cache
def _sharding(*axes: str) -> NamedSharding:
    """Over this process's devices: the same on each, or with `_AXIS` the first axis of an array split over them."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (_AXIS,)), PartitionSpec(*axes))
