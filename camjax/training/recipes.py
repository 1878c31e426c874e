"""How a network is trained: length, batch, learning rate and optimizer, in one value that can be written to a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from camjax.training.groups import scale_new_layers


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum, the optimizer of the field.

    Attributes:
      steps: number of steps.
      batch_size: images per step, over all devices of all processes.
      learning_rate: its peak, after the warm-up.
      warmup_steps: number of steps in which the learning rate rises linearly from 0 (Goyal et al. 2017).
      decay: what the learning rate does after the warm-up. "cosine": half a cosine down to 0 at the last step
        (Loshchilov and Hutter 2017). "step": times `decay_rate` after every `decay_every` steps. "constant".
      decay_every: for decay="step", in steps, counted from the first step.
      decay_rate: for decay="step".
      momentum: of Nesterov's accelerated gradient.
      weight_decay: times the weight, added to its gradient (the L2 penalty of Caffe and PyTorch). Convolutions and
        dense kernels decay; biases and BatchNorm's parameters do not.
      new_layers_factor: the learning rate of new layers over that of the others, which is `learning_rate`.
      new_layers: their places in the model, as in `camjax.training.groups.parameter_groups`; of no account where the
        factor is 1.
      label_smoothing: share of the target that is spread over all classes.
      seed: of the order of the data and its augmentation.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 0
    decay: Literal["cosine", "step", "constant"] = "cosine"
    decay_every: int | None = None
    decay_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    new_layers_factor: float = 1.0
    new_layers: Sequence[str] = field(default=("head",), hash=False)
    label_smoothing: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.new_layers, str):
            # A list, as run.json gives it back: the recipe of a run then equals the one that it was written from.
            object.__setattr__(self, "new_layers", list(self.new_layers))
        wrong = [
            f"{name}={getattr(self, name)!r}: expected {expected}"
            for name, fits, expected in (
                ("steps", self.steps >= 1, "at least 1"),
                ("batch_size", self.batch_size >= 1, "at least 1"),
                ("learning_rate", self.learning_rate > 0, "a positive number"),
                ("warmup_steps", 0 <= self.warmup_steps <= self.steps, "0..steps"),
                ("decay", self.decay in ("cosine", "step", "constant"), '"cosine", "step" or "constant"'),
                (
                    "decay_every",
                    (self.decay_every or 0) >= 1 if self.decay == "step" else self.decay_every is None,
                    'a number of steps with decay="step", None otherwise',
                ),
                ("decay_rate", 0 < self.decay_rate <= 1, "above 0 and at most 1"),
                ("momentum", 0 <= self.momentum < 1, "0 <= momentum < 1"),
                ("weight_decay", self.weight_decay >= 0, "0 or more"),
                ("new_layers_factor", self.new_layers_factor > 0, "a positive number"),
                (
                    "new_layers",
                    not isinstance(self.new_layers, str) and len(self.new_layers) > 0,
                    'places in the model, as ("head",)',
                ),
                ("label_smoothing", 0 <= self.label_smoothing < 1, "0 <= label_smoothing < 1"),
                ("seed", self.seed >= 0, "0 or more"),
            )
            if not fits
        ]
        if wrong:
            raise ValueError("; ".join(wrong) + ".")

    def schedule(self) -> optax.Schedule:
        """The learning rate as a function of the number of steps taken."""
        after = {
            "cosine": lambda: optax.cosine_decay_schedule(self.learning_rate, max(1, self.steps - self.warmup_steps)),
            "constant": lambda: optax.constant_schedule(self.learning_rate),
            "step": self._steps_down,
        }[self.decay]()
        if not self.warmup_steps:
            return after
        rise = optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps)
        return optax.join_schedules([rise, after], [self.warmup_steps])

    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer, with the weight decay before the momentum as in Caffe and PyTorch."""
        steps = [
            optax.add_decayed_weights(self.weight_decay, mask=_decays),
            optax.sgd(self.schedule(), momentum=self.momentum, nesterov=True),
        ]
        if self.new_layers_factor != 1:
            steps.append(scale_new_layers(self.new_layers_factor, self.new_layers))
        return optax.chain(*steps)

    def _steps_down(self) -> optax.Schedule:
        # join_schedules starts its second schedule at 0; the decay counts from the run's first step.
        def learning_rate(step):
            return self.learning_rate * self.decay_rate ** jnp.floor((step + self.warmup_steps) / self.decay_every)

        return learning_rate


def _decays(parameters):
    """True for what has more than one axis: kernels, not biases and scales."""
    return jax.tree.map(lambda parameter: jnp.ndim(parameter) > 1, parameters)
