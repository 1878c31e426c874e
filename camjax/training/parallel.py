"""Steps on all devices at once: the only file that uses `jax.pmap`.

The state is the same on every device, without a stacked axis. A batch is split evenly over the devices of this process.
Several processes (`camjax.training.initialize`) take the same steps together, each on its part of the global batch.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from camjax.errors import InputError
from camjax.models import CamModel
from camjax.training.checks import check_labels
from camjax.training.losses import Loss, SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy
from camjax.training.recipes import Recipe
from camjax.training.step import Step, eval_step, recipe_step

_AXIS = "devices"


def replicate(tree):
    """Copies a tree of arrays to each device of this process.

    The first device gets a copy, too, because a training step reuses the memory of its state for the next state.
    """
    # With several processes, the first step would move an array without this sharding, and lose the donated original.
    return jax.device_put(tree, _sharding(), may_alias=False)


def put_batch(batch: dict) -> dict:
    """Sends this process's part of a global batch to its devices, ahead of the step that uses it.

    Args:
      batch: image and label as for `parallel_train_step`; other arrays are left out.

    Returns:
      (local devices, b / local devices, ...) arrays, one part on each device. Steps accept them in place of `batch`.
    """
    return jax.device_put(_split({name: batch[name] for name in ("image", "label")}), _sharding(_AXIS))


def parallel_train_step(recipe: Recipe, loss: Loss | None = None) -> Step:
    """Compiles `camjax.training.train_step` for all devices, with the options of a recipe and its loss.

    Returns:
      `step(state, batch) -> (state, metrics)`. state: `replicate(TrainState.create(model, recipe))`, or the result of
      the step before; it is consumed. batch: this process's part of the global batch, its length a multiple of the
      number of local devices times the recipe's `accumulate`; or the result of `put_batch`.
    """
    mapped = _kept(_mapped_train_step, loss)(recipe, loss)
    return lambda state, batch: mapped(state, _split(_checked(batch, state.model)))


def parallel_eval_step(loss: Loss | None = None) -> Callable[..., dict]:
    """Compiles `camjax.training.eval_step` for all devices: `step(model, batch) -> sums`."""
    mapped = _kept(_mapped_eval_step, loss)(loss)

    def step_on_all(model: CamModel, batch: dict) -> dict:
        batch = _checked(batch, model)
        return mapped(model, _split({name: batch[name] for name in ("image", "label", "mask")}))

    return step_on_all


def check_batch_size(batch_size: int, accumulate: int = 1) -> None:
    """Raises ValueError unless all devices of all processes can share a global batch evenly.

    Args:
      batch_size: images per step.
      accumulate: number of micro-batches that each device splits its share into, also evenly.
    """
    devices = f"{jax.device_count()} devices"
    if accumulate > 1:
        devices += f" times accumulate={accumulate} micro-batches"
    if batch_size < 1 or batch_size % (jax.device_count() * accumulate):
        raise InputError(
            f"batch_size={batch_size}: expected a positive multiple of the {devices} that share it "
            f"({jax.process_count()} processes with {jax.local_device_count()} devices each)."
        )


def _kept(mapped, loss: Loss | None):
    """`mapped`, which keeps what it compiles for the next run of the same kind; without it, for losses of others.

    Those may change and be the same object, as where a notebook defines anew what they call.
    """
    return mapped if type(loss) in (type(None), SoftmaxCrossEntropy, SigmoidBinaryCrossEntropy) else mapped.__wrapped__


@functools.lru_cache(maxsize=8)
def _mapped_train_step(recipe: Recipe, loss: Loss | None) -> Step:
    step = recipe_step(recipe, loss=loss, axis_name=_AXIS)
    return jax.pmap(step, axis_name=_AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)


@functools.lru_cache(maxsize=8)
def _mapped_eval_step(loss: Loss | None) -> Callable[..., dict]:
    step = functools.partial(eval_step, loss=loss, axis_name=_AXIS)
    return jax.pmap(step, axis_name=_AXIS, in_axes=(None, 0), out_axes=None)


def _checked(batch: dict, model: CamModel) -> dict:
    """The batch; ValueError for a label that the model has no class for, where looking at it costs nothing."""
    return check_labels(batch, model.head.num_classes) if isinstance(batch["label"], np.ndarray) else batch


def _split(batch: dict) -> dict:
    """Splits (b, ...) arrays into (local devices, b / local devices, ...); those of `put_batch` are split already."""
    devices, split = jax.local_device_count(), _sharding(_AXIS)
    return {
        name: value if getattr(value, "sharding", None) == split else value.reshape(devices, -1, *value.shape[1:])
        for name, value in batch.items()
    }


@functools.cache
def _sharding(*axes: str) -> NamedSharding:
    """A sharding over this process's devices: a copy on each or, with `_AXIS`, the first axis split over them."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (_AXIS,)), PartitionSpec(*axes))
