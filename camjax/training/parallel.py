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

from camjax.training.step import TrainState, eval_step, train_step

_AXIS = "devices"


def replicate(tree):
    """A copy of a tree of arrays on each device of this process.

    It is a copy on the first device as well, because a training step gives its state's memory to the next state.
    """
    # Across processes an array without such a sharding is moved by the first step, and the donated original is lost.
    mesh = Mesh(np.array(jax.local_devices()), (_AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()), may_alias=False)


def parallel_train_step(*, label_smoothing: float = 0.0) -> Callable[[TrainState, dict], tuple[TrainState, dict]]:
    """`camjax.training.train_step` on all devices.

    Returns:
      `step(state, batch) -> (state, metrics)`. state: from `replicate`, or from the step before; it is consumed.
      batch: this process's part of the global batch, its length a multiple of the number of local devices.
    """
    step = functools.partial(train_step, label_smoothing=label_smoothing, axis_name=_AXIS)
    mapped = jax.pmap(step, axis_name=_AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)
    return lambda state, batch: mapped(state, _split(batch))


def parallel_eval_step() -> Callable[..., dict]:
    """`camjax.training.eval_step` on all devices: `step(model, batch) -> sums`, with a batch as for training."""
    step = functools.partial(eval_step, axis_name=_AXIS)
    mapped = jax.pmap(step, axis_name=_AXIS, in_axes=(None, 0), out_axes=None)
    return lambda model, batch: mapped(model, _split({name: batch[name] for name in ("image", "label", "mask")}))


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError unless a global batch can be shared evenly by all devices of all processes."""
    if batch_size < 1 or batch_size % jax.device_count():
        raise ValueError(
            f"batch_size={batch_size}: expected a positive multiple of the {jax.device_count()} devices that share it "
            f"({jax.process_count()} processes with {jax.local_device_count()} devices each)."
        )


def _split(batch: dict) -> dict:
    """(b, ...) arrays -> (local devices, b / local devices, ...)."""
    devices = jax.local_device_count()
    return {name: value.reshape(devices, -1, *value.shape[1:]) for name, value in batch.items()}
