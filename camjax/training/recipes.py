"""Recipes: length, batch size, learning rate and optimizer of a training, as one value that a file can hold."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from camjax.errors import InputError
from camjax.training.groups import BACKBONE, freeze, is_at, scale_new_layers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Stochastic gradient descent with momentum, or AdamW, and its settings.

    Attributes:
      steps: number of steps.
      batch_size: images per step, over all devices of all processes.
      accumulate: number of equal parts that a batch is split into. They go through the network one after the other, in
        the memory of one, and the step is that of the whole batch. See `camjax.training.train_step` for BatchNorm.
      learning_rate: peak learning rate, after the warm-up.
      warmup_steps: number of steps over which the learning rate rises linearly from 0 (Goyal et al. 2017).
      decay: of the learning rate, after the warm-up. "cosine": half a cosine down to 0 at the last step (Loshchilov and
        Hutter 2017). "step": times `decay_rate` after every `decay_every` steps. "constant".
      decay_every: for decay="step", in steps, counted from the first step.
      decay_first: for decay="step", the step of the first decay, from which the later ones are counted; None for
        `decay_every`.
      decay_rate: for decay="step".
      algorithm: "sgd", or "adamw" (Loshchilov and Hutter 2019), with which transformers are trained.
      momentum: share of the last update that goes into the next, in 0..1; of AdamW the decay of the first moment.
      nesterov: Nesterov's momentum; False for classical momentum, as in Caffe. Of SGD alone.
      weight_decay: times the weight, added to its gradient (the L2 penalty of Caffe and PyTorch); of AdamW, taken from
        the weight at the learning rate. Convolutions and dense kernels decay; biases and BatchNorm's parameters do not.
      new_layers_factor: ratio of the new layers' learning rate to that of the others, which is `learning_rate`.
      new_layers: their places in the model, as in `camjax.training.groups.parameter_groups`; ignored if the factor is 1
        and `frozen` does not contain "backbone".
      frozen: places that are not trained, named in the same way. Their parameters and BatchNorm statistics stay
        unchanged to the last bit. "backbone" means all but the new layers.
      freeze_batchnorm: every BatchNorm uses its initial running statistics, and keeps them, its scale and its bias: for
        fine-tuning in small batches.
      ema_decay: decay of averaged weights, which are evaluated and kept instead of those of the last step: 0.9999
        averages over about 10,000 steps (`camjax.training.averages`). None for no average.
      label_smoothing: share of the target that is spread over all classes.
      seed: of the data's order and augmentation.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float
    warmup_steps: int = 0
    decay: Literal["cosine", "step", "constant"] = "cosine"
    decay_every: int | None = None
    decay_first: int | None = None
    decay_rate: float = 0.1
    algorithm: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    new_layers_factor: float = 1.0
    new_layers: Sequence[str] = field(default=("head",), hash=False)
    frozen: Sequence[str] = field(default=(), hash=False)
    freeze_batchnorm: bool = False
    ema_decay: float | None = None
    label_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self):
        for name in ("new_layers", "frozen"):
            if not isinstance(getattr(self, name), str):
                # A list, as JSON has it: a recipe read from run.json equals the one that was written.
                object.__setattr__(self, name, list(getattr(self, name)))
        for name, value in vars(self).items():
            if isinstance(value, np.generic | np.ndarray | jax.Array):  # Python's number: a file can hold it
                object.__setattr__(self, name, value.item())
        wrong = [
            f"{name}={getattr(self, name)!r}: expected {expected}"
            for name, fits, expected in (
                ("steps", self.steps >= 1, "at least 1"),
                ("batch_size", self.batch_size >= 1, "at least 1"),
                (
                    "accumulate",
                    self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
                    f"at least 1, and a divisor of batch_size={self.batch_size}",
                ),
                ("learning_rate", self.learning_rate > 0, "a positive number"),
                ("warmup_steps", 0 <= self.warmup_steps <= self.steps, "0..steps"),
                ("decay", self.decay in ("cosine", "step", "constant"), '"cosine", "step" or "constant"'),
                (
                    "decay_every",
                    (self.decay_every or 0) >= 1 if self.decay == "step" else self.decay_every is None,
                    'a number of steps with decay="step", None otherwise',
                ),
                (
                    "decay_first",
                    self.decay_first is None or (self.decay == "step" and self.decay_first >= 1),
                    'a step, at least 1, with decay="step", or None',
                ),
                ("decay_rate", 0 < self.decay_rate <= 1, "above 0 and at most 1"),
                ("algorithm", self.algorithm in ("sgd", "adamw"), '"sgd" or "adamw"'),
                ("momentum", 0 <= self.momentum < 1, "0 <= momentum < 1"),
                ("weight_decay", self.weight_decay >= 0, "0 or more"),
                ("new_layers_factor", self.new_layers_factor > 0, "a positive number"),
                (
                    "new_layers",
                    not isinstance(self.new_layers, str) and len(self.new_layers) > 0,
                    'places in the model, such as ("head",)',
                ),
                (
                    "frozen",
                    not isinstance(self.frozen, str) and not self._frozen_and_new(),
                    'places in the model, such as ("backbone",), without new layers that have a new_layers_factor',
                ),
                ("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "0 < ema_decay < 1, or None"),
                ("label_smoothing", 0 <= self.label_smoothing < 1, "0 <= label_smoothing < 1"),
                ("seed", self.seed >= 0, "0 or more"),
            )
            if not fits
        ]
        if wrong:
            raise InputError("; ".join(wrong) + ".")

    def schedule(self) -> optax.Schedule:
        """Returns the learning rate as a function of the number of steps taken."""
        return _schedule(self)

    def optimizer(self) -> optax.GradientTransformation:
        """Returns the optimizer: SGD with the weight decay before the momentum as in Caffe and PyTorch, or AdamW."""
        return _optimizer(self)

    def _frozen_and_new(self) -> bool:
        """Whether new layers have a `new_layers_factor` and lie in a frozen place."""
        places = [name for name in self.frozen if name != BACKBONE]
        return self.new_layers_factor != 1 and any(is_at(name, places) for name in self.new_layers)


# Equal recipes share one schedule and one optimizer: with others of the same numbers a step would compile again.
@functools.lru_cache(maxsize=8)
def _schedule(recipe: Recipe) -> optax.Schedule:
    schedules: dict[str, Callable[[], optax.Schedule]] = {
        "cosine": lambda: optax.cosine_decay_schedule(recipe.learning_rate, max(1, recipe.steps - recipe.warmup_steps)),
        "constant": lambda: optax.constant_schedule(recipe.learning_rate),
        "step": functools.partial(_steps_down, recipe),
    }
    after = schedules[recipe.decay]()
    if recipe.warmup_steps:
        rise = optax.linear_schedule(0.0, recipe.learning_rate, recipe.warmup_steps)
        after = optax.join_schedules([rise, after], [recipe.warmup_steps])
    # As float32, because optax's schedules mix integers and floats, which a user of JAX can forbid.
    return jax.jit(lambda count: jnp.asarray(after(jnp.asarray(count, jnp.float32)), jnp.float32))


def _steps_down(recipe: Recipe) -> optax.Schedule:
    first = recipe.decay_every if recipe.decay_first is None else recipe.decay_first

    # join_schedules starts its second schedule at 0, but the decay counts from the run's first step.
    def learning_rate(step):
        times = jnp.floor((step + recipe.warmup_steps - first) / recipe.decay_every) + 1
        return recipe.learning_rate * recipe.decay_rate ** jnp.maximum(times, 0)

    return learning_rate


@functools.lru_cache(maxsize=8)
def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    if recipe.algorithm == "adamw":
        steps = [optax.adamw(recipe.schedule(), b1=recipe.momentum, weight_decay=recipe.weight_decay, mask=_decays)]
    else:
        steps = [
            optax.add_decayed_weights(recipe.weight_decay, mask=_decays),
            optax.sgd(recipe.schedule(), momentum=recipe.momentum, nesterov=recipe.nesterov),
        ]
    if recipe.new_layers_factor != 1:
        steps.append(scale_new_layers(recipe.new_layers_factor, recipe.new_layers))
    optimizer = optax.chain(*steps)
    if recipe.frozen:
        optimizer = freeze(optimizer, recipe.frozen, recipe.new_layers)
    # In one program: by itself the start of each parameter would be one.
    return optax.GradientTransformation(jax.jit(optimizer.init), optimizer.update)


def _decays(parameters):
    """True for parameters with more than one axis: kernels, but not biases and scales."""
    return jax.tree.map(lambda parameter: jnp.ndim(parameter) > 1, parameters)
