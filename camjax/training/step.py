"""One step of training and one of evaluation, as pure functions; what runs them in parallel is another file's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from camjax.models import CamModel


class TrainState(NamedTuple):
    """All that a step changes; the place in the data follows from `step`.

    Attributes:
      model: parameters, BatchNorm statistics and the random keys that dropout draws from.
      optimizer: the optimizer's state and the number of steps taken.
    """

    model: CamModel
    optimizer: nnx.Optimizer

    @property
    def step(self) -> jax.Array:
        """() uint32: the number of steps taken."""
        return self.optimizer.step[...]


def train_step(
    state: TrainState, batch: dict, *, label_smoothing: float = 0.0, axis_name: str | None = None
) -> tuple[TrainState, dict]:
    """One gradient step on the mean cross-entropy of a batch.

    Random draws follow from the state's keys, the step and the device alone, so that a run that is taken up again
    draws what it would have drawn.

    Args:
      state: where training stands.
      batch: image (b, H, W, 3) uint8 and label (b,) int.
      label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016, section 7).
      axis_name: mapped axis that this runs under, each device with its own equal part of the batch and all with the
        same state: gradients are averaged, BatchNorm takes its statistics over all devices, and dropout differs on
        each. None for one device with the whole batch.

    Returns:
      The next state, and {"loss", "accuracy", "gradient_norm"}: () float32 over the whole batch, before the step.
    """
    model, optimizer = jax.tree.map(lambda leaf: leaf, state)  # new objects: the caller's are left as they are
    random_state = [(variable, variable[...]) for _, variable in nnx.iter_graph(model) if _is_random(variable)]
    for variable, value in random_state:
        if isinstance(variable, nnx.RngKey):
            variable.set_value(_key_of_step(value, optimizer.step[...], axis_name))

    training = nnx.view(model, raise_if_not_found=False, deterministic=False, use_running_average=False)
    for _, module in nnx.iter_modules(training):
        if isinstance(module, nnx.BatchNorm):
            module.axis_name = axis_name

    def loss_and_logits(model):
        logits = model(batch["image"])
        return cross_entropy(logits, batch["label"], label_smoothing).mean(), logits

    (loss, logits), gradients = nnx.value_and_grad(loss_and_logits, has_aux=True)(training)
    accuracy = (logits.argmax(-1) == batch["label"]).mean()
    if axis_name is not None:
        loss, accuracy, gradients = jax.lax.pmean((loss, accuracy, gradients), axis_name)
    optimizer.update(model, gradients)
    for variable, value in random_state:
        variable.set_value(value)
    metrics = {"loss": loss, "accuracy": accuracy, "gradient_norm": optax.tree.norm(nnx.to_pure_dict(gradients))}
    return TrainState(model, optimizer), metrics


def eval_step(model: CamModel, batch: dict, *, axis_name: str | None = None) -> dict:
    """Sums over the examples of a batch, to be added up over batches.

    Args:
      model: runs in inference mode, and stays as it is.
      batch: image (b, H, W, 3) uint8, label (b,) int and mask (b,) bool, False on padding.
      axis_name: as in `train_step`; sums are over all devices.

    Returns:
      {"loss", "correct", "count"}: () float32 sums of cross-entropy, right top-1 answers and examples.
    """
    model = nnx.view(model, raise_if_not_found=False, deterministic=True, use_running_average=True)
    logits, mask = model(batch["image"]), batch["mask"].astype(jnp.float32)
    sums = {
        "loss": (cross_entropy(logits, batch["label"]) * mask).sum(),
        "correct": ((logits.argmax(-1) == batch["label"]) * mask).sum(),
        "count": mask.sum(),
    }
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """(b, C) logits and (b,) labels -> (b,) cross-entropy with the softmax, in nats."""
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _is_random(variable) -> bool:
    return isinstance(variable, nnx.RngState)


def _key_of_step(key: jax.Array, step: jax.Array, axis_name: str | None) -> jax.Array:
    """A key of its own for each step and, under a mapped axis, for each device of all processes."""
    key = jax.random.fold_in(key, step)
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))
