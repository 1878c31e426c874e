"""One step of training and one of evaluation, as pure functions; `parallel.py` runs them on all devices."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from camjax.errors import InputError
from camjax.models import CamModel
from camjax.models.inference_mode import inference_view, run_for_inference
from camjax.models.wsol.method import SAME_ON_ALL_DEVICES, WsolMethod
from camjax.training.averages import update_average
from camjax.training.groups import is_frozen, trained_or_frozen
from camjax.training.losses import Loss, SoftmaxCrossEntropy, is_multi_label, loss_weights, losses_of
from camjax.training.recipes import Recipe


class TrainState(NamedTuple):
    """Everything that a step changes; `step` also determines the position in the data.

    Attributes:
      model: parameters, BatchNorm statistics and the random keys that dropout draws from.
      optimizer: the optimizer's state and the number of steps taken.
      ema: the model with averaged parameters (see `camjax.training.averages`), or None.
    """

    model: CamModel
    optimizer: nnx.Optimizer
    ema: CamModel | None = None

    @classmethod
    def create(
        cls, model: CamModel, recipe: Recipe, *, optimizer: optax.GradientTransformation | None = None
    ) -> "TrainState":
        """Returns the state in which training starts.

        Args:
          model: its arrays become the state's; those of the average are copies.
          recipe: determines the optimizer, and whether there is an average.
          optimizer: replaces `recipe.optimizer()`.

        Raises:
          ValueError: the recipe's frozen places or new layers are not in the model, or nothing is left to train.
        """
        trained_or_frozen(nnx.state(model, nnx.Param), recipe.frozen, recipe.new_layers)
        return cls(
            model,
            nnx.Optimizer(model, optimizer or recipe.optimizer(), wrt=nnx.Param),
            None if recipe.ema_decay is None else jax.tree.map(jnp.copy, model),
        )

    @property
    def step(self) -> jax.Array:
        """() uint32: the number of steps taken."""
        return self.optimizer.step[...]

    @property
    def evaluated(self) -> CamModel:
        """The model to evaluate and to keep: the averaged one if there is one."""
        return self.model if self.ema is None else self.ema


Step = Callable[[TrainState, dict], tuple[TrainState, dict]]
"""From a state and a batch to the next state and its metrics."""


def train_step(
    state: TrainState,
    batch: dict,
    *,
    label_smoothing: float = 0.0,
    loss: Loss | None = None,
    accumulate: int = 1,
    ema_decay: float | None = None,
    frozen: Sequence[str] = (),
    new_layers: Sequence[str] = ("head",),
    freeze_batchnorm: bool = False,
    axis_name: str | None = None,
) -> tuple[TrainState, dict]:
    """Takes one gradient step on the mean loss of a batch.

    Random draws depend only on the state's keys, the step, the device and the micro-batch, so that a resumed run draws
    the same as an uninterrupted one. A model with a training method for weakly supervised localization
    (`camjax.models.wsol`) trains by it.

    Args:
      state: before the step; left unchanged.
      batch: image (b, H, W, 3) uint8, or float in 0..255, and label (b,) int in 0..C-1, or what the loss takes.
      label_smoothing: of the default loss, see `camjax.training.SoftmaxCrossEntropy`.
      loss: see `camjax.training.losses`; None for `SoftmaxCrossEntropy(label_smoothing)`, NaN for other labels.
      accumulate: number of equal micro-batches that the batch is split into; they are processed one after the other,
        in the memory of one. The gradient is their mean, so the step is that of the whole batch, with two differences:
        BatchNorm takes its statistics from each micro-batch and updates its running averages once for each, and dropout
        differs in each.
      ema_decay: of the averaged weights, as in `camjax.training.averages`; None if the state has none.
      frozen: places of the model that stay unchanged to the last bit, with any optimizer: their parameters get no
        gradient, and BatchNorm there uses its running statistics without updating them. "backbone" means all but
        `new_layers`. See `camjax.training.groups.parameter_groups`.
      new_layers: the places that stay trainable when "backbone" is frozen.
      freeze_batchnorm: freeze every BatchNorm in this way, including its parameters.
      axis_name: name of the mapped axis under which this runs, where each device has an equal part of the batch and all
        have the same state: gradients are averaged, BatchNorm takes its statistics over all devices, and dropout
        differs on each. None for one device with the whole batch.

    Returns:
      The next state, and {"loss", "accuracy", "gradient_norm"}: () float32 over the whole batch, before the step. The
      accuracy is the share of images whose class is the top one or, for images of several classes, the share of right
      decisions, class by class, at a probability of 0.5. The norm is over the parameters that are trained.

    Raises:
      ValueError: a batch that does not split evenly, a frozen place that the model does not have, or averaged weights
        without a decay or a decay without them.
    """
    if (state.ema is None) != (ema_decay is None):
        held = "no averaged weights" if state.ema is None else "averaged weights"
        raise InputError(f"ema_decay={ema_decay} with a state that has {held}: use TrainState.create(model, recipe).")
    loss_function = SoftmaxCrossEntropy(label_smoothing) if loss is None else loss
    model, optimizer, ema = jax.tree.map(lambda leaf: leaf, state)  # new objects, so that the caller's stay unchanged
    step = optimizer.step[...]

    training = nnx.view(model, raise_if_not_found=False, deterministic=False, use_running_average=False)
    frozen_batchnorms = _prepare_batchnorm(training, frozen, new_layers, freeze_batchnorm, axis_name)
    trained_or_frozen(nnx.state(model, optimizer.wrt), frozen, new_layers)  # raises if a place does not exist

    def is_trained(path, _):
        return not (is_frozen(_place(path), frozen, new_layers) or path[:-1] in frozen_batchnorms)

    network, *states = nnx.split(training, nnx.All(optimizer.wrt, is_trained), nnx.BatchStat, nnx.RngKey, ...)
    parameters, statistics, keys, rest = states
    keys = _keys_of_step(keys, step, axis_name)

    weights = loss_weights(loss_function, batch["label"])
    if weights is not None:
        # Known before any part of the batch is computed: the mean over all parts and devices is the weighted one.
        mean_weight = weights.mean() if axis_name is None else jax.lax.pmean(weights.mean(), axis_name)
        mean_weight = jnp.where(mean_weight > 0, mean_weight, jnp.inf)  # a batch of weights 0 has the loss 0

    def loss_of(parameters, statistics, keys, batch):
        model = nnx.merge(network, parameters, statistics, keys, rest, copy=True)  # a copy that ends here
        method = getattr(model, "wsol", None) or WsolMethod()
        of_images = functools.partial(losses_of, loss_function)
        logits, losses, of_batch = method.loss(model, batch["image"], batch["label"], of_images, axis_name)
        value = losses.mean()
        if weights is not None:
            value = value / mean_weight
        if of_batch is not None:
            value = value + of_batch
        accuracy = _correctness(logits, batch["label"]).mean()
        return value, (accuracy, nnx.state(model, nnx.BatchStat))

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    if accumulate == 1:
        (value, (accuracy, statistics)), gradients = gradient_of(parameters, statistics, keys, batch)
    else:
        value, accuracy, statistics, gradients = _accumulated(
            gradient_of, parameters, statistics, keys, _micro_batches(batch, accumulate)
        )
    if axis_name is not None:
        value, accuracy, gradients = jax.lax.pmean((value, accuracy, gradients), axis_name)

    unchanged = nnx.as_pure(nnx.state(model, nnx.All(optimizer.wrt, nnx.Not(is_trained))))
    zeros = jax.tree.map(jnp.zeros_like, nnx.state(model, optimizer.wrt))
    optimizer.update(model, nnx.merge_state(zeros, gradients))
    nnx.update(model, unchanged)
    nnx.update(model, nnx.as_pure(statistics))
    if ema is not None and ema_decay is not None:
        ema = update_average(ema, model, decay=ema_decay, step=step)
    metrics = {"loss": value, "accuracy": accuracy, "gradient_norm": optax.tree.norm(nnx.to_pure_dict(gradients))}
    return TrainState(model, optimizer, ema), metrics


def recipe_step(recipe: Recipe, *, loss: Loss | None = None, axis_name: str | None = None) -> Step:
    """Returns `train_step` with the options of a recipe, as a function of state and batch."""
    return functools.partial(
        train_step,
        label_smoothing=recipe.label_smoothing,
        loss=loss,
        accumulate=recipe.accumulate,
        ema_decay=recipe.ema_decay,
        frozen=recipe.frozen,
        new_layers=recipe.new_layers,
        freeze_batchnorm=recipe.freeze_batchnorm,
        axis_name=axis_name,
    )


def eval_step(model: CamModel, batch: dict, *, loss: Loss | None = None, axis_name: str | None = None) -> dict:
    """Sums loss and correct answers over the examples of a batch; add the results up over batches.

    Args:
      model: runs in inference mode; left unchanged.
      batch: image (b, H, W, 3) uint8, or float in 0..255, label (b,) int, or what the loss takes, and mask (b,) bool,
        False on padding.
      loss: see `camjax.training.losses`; None for `SoftmaxCrossEntropy()`.
      axis_name: as in `train_step`; sums are over all devices.

    Returns:
      {"loss", "correct", "count", "weight"}: () float32 sums of losses, of what is right (as in `train_step`), of
      examples, and of the weights of their losses, which are 1 for a loss without weights. With a loss for images of
      several classes also {"logits" (b, C), "label" (b, C), "mask" (b,)}, of the examples of all devices: the average
      precision is no sum.
    """
    loss_function = SoftmaxCrossEntropy() if loss is None else loss
    logits = run_for_inference(inference_view(model), batch["image"])
    mask = batch["mask"].astype(jnp.float32)
    weights = loss_weights(loss_function, batch["label"])
    sums = {
        "loss": jnp.where(batch["mask"], losses_of(loss_function, logits, batch["label"]), 0.0).sum(),
        "correct": (_correctness(logits, batch["label"]) * mask).sum(),
        "count": mask.sum(),
        "weight": (mask if weights is None else weights * mask).sum(),
    }
    rows = {"logits": logits, "label": batch["label"], "mask": batch["mask"]} if is_multi_label(loss) else {}
    if axis_name is None:
        return sums | rows
    return jax.lax.psum(sums, axis_name) | jax.lax.all_gather(rows, axis_name, tiled=True)


def _correctness(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """(b,) float32: 1 where the highest logit is that of the label (b,); for labels (b, C), the share of right signs.

    Of several classes, one with a logit above 0, a probability above 0.5, is taken to be there.
    """
    if labels.ndim == logits.ndim:
        return ((logits > 0) == (labels > 0.5)).astype(jnp.float32).mean(-1)
    return (logits.argmax(-1).astype(jnp.int32) == labels.astype(jnp.int32)).astype(jnp.float32)


def _prepare_batchnorm(
    training: CamModel, frozen: Sequence[str], new_layers: Sequence[str], freeze_all: bool, axis_name: str | None
) -> set[tuple]:
    """Sets where each BatchNorm takes its statistics from; returns the paths of those with frozen parameters."""
    frozen_batchnorms: set[tuple] = set()
    for path, module in nnx.iter_modules(training):
        if isinstance(module, nnx.BatchNorm):
            module.axis_name = axis_name
            module.use_running_average = freeze_all or is_frozen(_place(path), frozen, new_layers)
            if freeze_all:
                frozen_batchnorms.add(path)
    return frozen_batchnorms


def _accumulated(gradient_of: Callable, parameters, statistics, keys, micro_batches: dict):
    """Returns the mean loss, accuracy and gradient over k micro-batches, and the BatchNorm statistics after the last.

    Args:
      gradient_of: loss, accuracy, statistics and gradient of one micro-batch, from `train_step`.
      parameters: the same for all micro-batches.
      statistics: of BatchNorm; each micro-batch updates those of the one before.
      keys: of the step; each micro-batch folds its index into them.
      micro_batches: dict of (k, b / k, ...) arrays.
    """
    k = micro_batches["label"].shape[0]

    def micro_step(carry, number_and_batch):
        sums, statistics = carry
        number, batch = number_and_batch
        own_keys = jax.tree.map(lambda key: jax.random.fold_in(key, number), keys)
        (loss, (accuracy, statistics)), gradients = gradient_of(parameters, statistics, own_keys, batch)
        sums = jax.tree.map(jnp.add, sums, (loss, accuracy, gradients))
        return (sums, statistics), None

    zeros = (jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, parameters))
    (sums, statistics), _ = jax.lax.scan(micro_step, (zeros, statistics), (jnp.arange(k), micro_batches))
    loss, accuracy, gradients = jax.tree.map(lambda total: total / k, sums)
    return loss, accuracy, statistics, gradients


def _micro_batches(batch: dict, accumulate: int) -> dict:
    """(b, ...) arrays -> (accumulate, b / accumulate, ...)."""
    size = batch["label"].shape[0]
    if accumulate < 1 or size % accumulate:
        raise InputError(f"accumulate={accumulate} with {size} images on a device: expected a divisor of {size}.")
    return {name: batch[name].reshape(accumulate, -1, *batch[name].shape[1:]) for name in ("image", "label")}


def _place(path: tuple) -> str:
    return ".".join(map(str, path))


def _keys_of_step(keys: nnx.State, step: jax.Array, axis_name: str | None) -> nnx.State:
    """Different keys for each step and, under a mapped axis, for each device of all processes.

    Those whose draws hold for the whole batch are the same on all devices.
    """

    def of_step(variable: nnx.Variable) -> nnx.Variable:
        key = jax.random.fold_in(variable.get_value(), step)
        if axis_name is not None and variable.get_metadata().get("tag") != SAME_ON_ALL_DEVICES:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        return variable.replace(key)

    return jax.tree.map(of_step, keys, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
