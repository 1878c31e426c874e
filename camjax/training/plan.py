"""The size of a run before it starts, for `--dry-run`."""

import dataclasses
import functools
import json
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from camjax.checkpoints import checkpoint_bytes
from camjax.data.batches import Batches, source_or_batches
from camjax.data.loader import RandomAccessSource
from camjax.models import CamModel
from camjax.training.losses import Loss, check_loss, is_multi_label, label_shape
from camjax.training.parallel import check_batch_size
from camjax.training.recipes import Recipe
from camjax.training.run_card import count_parameters
from camjax.training.step import TrainState, recipe_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The size of a run. `str(plan)` is a readable text.

    Attributes:
      model: what it was created as.
      recipe: resolved.
      devices: number of devices that share a batch, over all processes.
      parameters: number of parameters.
      examples: number of training examples; None where it is not known, as of batches from elsewhere.
      steps: of the run.
      epochs: passes through the training examples, or None.
      state_bytes: on each device: parameters, statistics, optimizer and averaged weights. A checkpoint takes as much,
        before compression.
      batch_bytes: on each device: its images and labels of one step.
      working_bytes: on each device: activations, gradients and other temporary arrays of the compiled step.
    """

    model: dict | str
    recipe: dict
    devices: int
    parameters: int
    examples: int | None
    steps: int
    epochs: float | None
    state_bytes: int
    batch_bytes: int
    working_bytes: int

    @property
    def device_bytes(self) -> int:
        """The memory that a device needs: for the state, this batch, the next one, and the compiled step."""
        return self.state_bytes + 2 * self.batch_bytes + self.working_bytes

    def __str__(self) -> str:
        return "\n".join(
            (
                f"model       {self.model}, {self.parameters:,} parameters",
                f"recipe      {json.dumps(self.recipe)}",
                f"length      {self.steps:,} steps of {self.recipe['batch_size']} images"
                + ("" if self.examples is None else f": {self.epochs:.2f} epochs of {self.examples:,} examples"),
                f"devices     {self.devices}, {self.recipe['batch_size'] // self.devices} images each",
                f"memory      {_mega(self.device_bytes)} on each device: state {_mega(self.state_bytes)}, two batches "
                f"{_mega(2 * self.batch_bytes)}, activations and gradients {_mega(self.working_bytes)}",
                f"checkpoint  {_mega(self.state_bytes)} each, at most",
            )
        )


def describe_plan(
    model: CamModel,
    recipe: Recipe,
    source: RandomAccessSource | Iterable,
    *,
    loss: Loss | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Plan:
    """Determines the size of a run without taking a step.

    The memory is XLA's figure for the step compiled for one device with its share of the batch; several devices need a
    little more, for the sums that they exchange. This compiles for as long as the start of the run would.

    Args:
      model: where training would start.
      recipe: of the run.
      source: the training examples, or batches; none is read.
      loss: as in `fit`.
      optimizer: replaces `recipe.optimizer()`.

    Returns:
      Steps, parameters and bytes.

    Raises:
      ValueError: sizes that do not fit together.
      NotImplementedError: XLA does not report the memory on these devices.
    """
    check_batch_size(recipe.batch_size, recipe.accumulate)
    if loss is not None:
        check_loss(loss, model.head.num_classes)
    given = source_or_batches(source)
    examples = None if isinstance(given, Batches) else len(given)
    share = recipe.batch_size // jax.device_count()
    state = jax.eval_shape(functools.partial(TrainState.create, recipe=recipe, optimizer=optimizer), model)
    batch = {
        "image": jax.ShapeDtypeStruct((share, *model.input_size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct(
            (share, *label_shape(loss, model.head.num_classes)), jnp.float32 if is_multi_label(loss) else jnp.int32
        ),
    }
    memory = jax.jit(recipe_step(recipe, loss=loss), donate_argnums=0).lower(state, batch).compile().memory_analysis()
    if memory is None:
        raise NotImplementedError(f"XLA reports no memory on {jax.default_backend()}: plan the run elsewhere.")
    return Plan(
        model=model.created_as or type(model).__name__,
        recipe=dataclasses.asdict(recipe),
        devices=jax.device_count(),
        parameters=count_parameters(model),
        examples=examples,
        steps=recipe.steps,
        epochs=None if examples is None else recipe.steps * recipe.batch_size / examples,
        state_bytes=checkpoint_bytes(state),
        batch_bytes=sum(array.size * array.dtype.itemsize for array in batch.values()),
        working_bytes=memory.temp_size_in_bytes,
    )


def _mega(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
