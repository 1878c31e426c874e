"""The options of commands that train, and what they change of a recipe: one name, one meaning and one sentence each."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from camjax.cli.options import ALONE, Count, Flag, OptionalCount, OptionalRate, Processes, arg
from camjax.errors import InputError

if TYPE_CHECKING:
    from camjax.training import Recipe


@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """What to change of a recipe.

    Attributes:
      epochs: Epochs, in place of the recipe's; warm-up and decays keep their shares.
      learning_rate: The peak of the learning rate, in place of the recipe's.
      accumulate: Parts that a batch is split into, one after the other in the memory of one.
      ema_decay: Average the weights with this decay, such as 0.9999, and evaluate and keep the average.
      freeze: "backbone" trains only the new layers, "batchnorm" keeps all BatchNorms as they are in --weights.
      workers: Processes that read images; 0 reads in threads.
    """

    epochs: Annotated[float | None, arg("N", default=False)] = None
    learning_rate: OptionalRate = None
    accumulate: Count = 1
    ema_decay: Annotated[float | None, arg("SHARE", default=False)] = None
    freeze: Annotated[Literal["backbone", "batchnorm"] | None, arg("{backbone,batchnorm}", default=False)] = None
    workers: Count = 0

    def __post_init__(self):
        more_than_zero(self, "epochs")

    def changed(self, recipe: "Recipe", num_examples: int, *, batch_size: int | None = None, steps: int | None = None):
        """The recipe with the changes that the options ask for.

        Args:
          recipe: for `num_examples`, with its own number of steps and batch size.
          num_examples: training images.
          batch_size: in place of the recipe's. The learning rate changes in proportion, and the number of epochs stays.
          steps: the length, in place of that in epochs.

        Raises:
          ValueError: numbers that do not fit together.
        """
        batch_size = batch_size or recipe.batch_size
        factor = batch_size / recipe.batch_size
        epochs_in_steps = self.epochs and self.epochs * num_examples / batch_size
        return replace(
            of_length(recipe, steps or epochs_in_steps or recipe.steps / factor),
            batch_size=batch_size,
            learning_rate=recipe.learning_rate * factor if self.learning_rate is None else self.learning_rate,
            accumulate=self.accumulate,
            ema_decay=recipe.ema_decay if self.ema_decay is None else self.ema_decay,
            frozen=("backbone",) if self.freeze == "backbone" else recipe.frozen,
            freeze_batchnorm=recipe.freeze_batchnorm or self.freeze == "batchnorm",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RecipeOptions):
    """How a network trains, where the run goes, and which processes take part.

    Attributes:
      batch_size: Images a step, over all devices, in place of the recipe's. The number of epochs stays; the learning
        rate grows in proportion, and in `camjax train`, from trained weights, as the square root.
      steps: The length in steps, in place of --epochs.
      dtype: The type in which convolutions compute: float32, or bfloat16 for accelerators.
      seed: Seed of random weights, of the order of the images and of their augmentation.
      eval_every: Steps between two evaluations; about an epoch if not given.
      checkpoint_every: Steps between two checkpoints, a divisor of --eval-every; about 1,000 if not given.
      dry_run: Describe the run (settings, parameters, memory, steps), and do not train.
      processes: Which processes train together.
    """

    batch_size: OptionalCount = None
    steps: OptionalCount = None
    dtype: Annotated[Literal["float32", "bfloat16"] | None, arg("{float32,bfloat16}", default=False)] = None
    seed: Count = 0
    eval_every: OptionalCount = None
    checkpoint_every: OptionalCount = None
    dry_run: Flag = False
    processes: Processes = ALONE

    def __post_init__(self):
        more_than_zero(self, "batch_size", "epochs", "steps", "eval_every", "checkpoint_every")
        for wrong, message in (
            (self.steps and self.epochs, "--steps and --epochs: leave out one of them."),
            (
                self.checkpoint_every and (self.eval_every or 0) % self.checkpoint_every,
                f"--eval-every {self.eval_every} is no multiple of --checkpoint-every {self.checkpoint_every}: the "
                "best checkpoint is the best of those that are evaluated.",
            ),
        ):
            if wrong:
                raise InputError(message)

    def join(self) -> None:
        """Joins the other processes of the run, except for a dry run, which needs none; before any use of JAX."""
        if not self.dry_run:
            self.processes.join(preemption=True)

    def changed_recipe(self, recipe: "Recipe", num_examples: int) -> "Recipe":
        """The recipe with the changes that the options ask for, see `RecipeOptions.changed`."""
        changed = self.changed(recipe, num_examples, batch_size=self.batch_size, steps=self.steps)
        return replace(changed, seed=self.seed)

    def intervals(self, steps_per_epoch: int) -> tuple[int, int]:
        """Steps between two checkpoints, and between two evaluations; the second is a multiple of the first."""
        every = self.checkpoint_every or self.eval_every
        every = every or max(1, steps_per_epoch // max(1, steps_per_epoch // 1000))
        return every, self.eval_every or every * max(1, round(steps_per_epoch / every))


def of_length(recipe: "Recipe", steps: float) -> "Recipe":
    """The recipe with another number of steps; warm-up and decays keep their shares."""
    times = {name: getattr(recipe, name) for name in ("warmup_steps", "decay_every", "decay_first")}
    scaled = {name: max(1, round(time * steps / recipe.steps)) for name, time in times.items() if time}
    return replace(recipe, steps=max(1, round(steps)), **scaled)


def more_than_zero(options: object, *names: str) -> None:
    """Raises ValueError for the first of the named options that is 0 or less; None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected more than 0.")
