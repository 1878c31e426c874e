"""The training loop: batches, steps, metrics, evaluations and checkpoints."""

import contextlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from camjax.addresses import as_path
from camjax.checkpoints import KEPT, Checkpoints, checkpoint_bytes
from camjax.data.batches import Batches, source_or_batches
from camjax.data.loader import RandomAccessSource, train_batches
from camjax.data.prefetching import prefetch
from camjax.data.relabeled import class_names_of, with_classes_of
from camjax.data.transforms import Transform
from camjax.errors import InputError
from camjax.models import CamModel
from camjax.runs import checkpoints_of
from camjax.training.accuracy import evaluate
from camjax.training.checks import check_labels, check_room, check_writable, finite_means
from camjax.training.interruption import Interruption
from camjax.training.logs import MetricsLog
from camjax.training.losses import Loss, check_loss, is_multi_label, label_shape
from camjax.training.parallel import check_batch_size, parallel_eval_step, parallel_train_step, put_batch, replicate
from camjax.training.progress import Bar
from camjax.training.recipes import Recipe
from camjax.training.run_card import has_run_card, write_run_card
from camjax.training.run_lock import run_lock
from camjax.training.runs import describe_data, describe_run, start_run
from camjax.training.step import TrainState

_STEPS_AHEAD = 2
"""How many steps the host runs ahead of the devices. This keeps them busy while the next batch is sent; more would only
fill their memory, because each waiting step holds its batch."""


def fit(
    model: CamModel,
    source: RandomAccessSource | Iterable,
    recipe: Recipe,
    *,
    loss: Loss | None = None,
    run_dir: str | os.PathLike | None = None,
    augment: Transform | None = None,
    eval_source: RandomAccessSource | Iterable | None = None,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    log_every: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    num_workers: int = 0,
    num_threads: int = 4,
    progress: bool = True,
) -> CamModel:
    """Trains a classifier from class labels, on all devices of all processes.

    With a `run_dir`, the same call resumes an earlier run. The newest checkpoint holds the model, the optimizer, the
    averaged weights, the random state and the step, which also determines the position in the data. The number of
    devices and processes may change; other starting weights, another recipe, loss, data or augmentation are errors.

    SIGTERM, a preemption notice or Ctrl-C stops the run after the current step, with a checkpoint: see
    `camjax.training.interruption`.

    Another run in the same process, with an equal recipe, loss and kind of model, compiles no step again, unless the
    loss is a function of your own.

    Args:
      model: where training starts; left unchanged.
      source: the training examples; images are resized to `model.input_size`. If it has `info.class_names`, they are
        paired with the model's class names (see docs/data.md); a model without gets them.
        Or batches from elsewhere, such as a PyTorch `DataLoader`: see `camjax.data.Batches`.
      recipe: length, batch size, learning rate and optimizer.
      loss: a function of logits (b, C) and labels to (b,), see `camjax.training.losses`, such as
        `SoftmaxCrossEntropy(class_weights=...)`, or `SigmoidBinaryCrossEntropy()` for images of several classes, whose
        labels are C numbers in 0..1. None for `SoftmaxCrossEntropy(recipe.label_smoothing)`, and for evaluation
        without smoothing.
      run_dir: a folder, or an address of a bucket (gs://, s3://), for `run.json`, checkpoints, `metrics.jsonl`,
        TensorBoard event files and, at the end, `run_card.json`, `run_card.md` and `curves.png`. All processes must see
        it. None writes nothing.
      augment: random change of an image, see `camjax.data.transforms`; not for batches.
      eval_source: examples, or batches, for an evaluation every `eval_every` steps and at the end; it may lack classes.
      eval_every: in steps; None for only at the end.
      checkpoint_every: in steps; None for only at the end.
      log_every: steps between two lines of metrics, which are means over these steps.
      optimizer: replaces `recipe.optimizer()`.
      num_workers: reading processes, as in `train_batches`; not for batches.
      num_threads: reading threads, as in `train_batches`; not for batches.
      progress: show a progress bar.

    Returns:
      The trained model, with averaged weights if the recipe asks for them. Its `multi_label` is that of the loss.

    Raises:
      ValueError: sizes that do not fit together, labels without a class in the model, or a run directory that holds
        another run or that not all processes see.
      TrainingError: the loss is no longer finite. Earlier checkpoints stay.
      OSError: the run directory is not writable, or has no room for the checkpoints; raised before the first step.
      SystemExit: after SIGTERM, with exit code 143.
      KeyboardInterrupt: after Ctrl-C.
    """
    began = time.time()
    check_batch_size(recipe.batch_size, recipe.accumulate)
    _check_intervals(eval_every=eval_every, checkpoint_every=checkpoint_every, log_every=log_every)
    classes = model.head.num_classes
    _check_loss(loss, recipe, classes)
    examples = with_classes_of(source_or_batches(source, num_workers), model.class_names, classes)
    if isinstance(examples, Batches) and augment is not None:
        raise InputError(f"augment={augment!r} with {examples!r}: change images where the batches are made.")
    model = _named(model, examples, is_multi_label(loss))
    evaluated = None
    if eval_source is not None:
        evaluated = with_classes_of(source_or_batches(eval_source), model.class_names, classes)
    state = TrainState.create(model, recipe, optimizer=optimizer)
    with contextlib.ExitStack() as stack:
        run = None
        if run_dir is not None:
            description = describe_run(model, recipe, loss) | describe_data(
                examples, augment=augment, eval_source=evaluated
            )
            run = stack.enter_context(_RunDirectory(as_path(run_dir), description))
            state = run.restore(state)
        start = int(state.step)
        _check_same_start(start)
        if run is not None:
            run.set_aside(start)
            saves = sum(_is_due(step, checkpoint_every, recipe.steps) for step in range(start + 1, recipe.steps + 1))
            run.begin(state, saves, KEPT if evaluated is not None else KEPT - 1)
        bar = stack.enter_context(Bar(recipe.steps, start, shown=progress and jax.process_index() == 0))
        interruption = stack.enter_context(Interruption())

        state = replicate(state)
        train_step = parallel_train_step(recipe, loss)
        eval_step = parallel_eval_step(loss)
        learning_rate = recipe.schedule()

        def log(step: int, group: str, metrics: dict[str, float]) -> None:
            if run is not None:
                run.log(step, group, metrics)

        def evaluate_at(state: TrainState, step: int) -> dict[str, float] | None:
            """The metrics on `eval_source`, if there is one; stops the run if that is requested."""
            if evaluated is None:
                return None
            metrics = evaluate(
                state.evaluated,
                evaluated,
                batch_size=recipe.batch_size // recipe.accumulate,
                loss=loss,
                step=eval_step,
                num_workers=0 if isinstance(evaluated, Batches) else num_workers,
                num_threads=num_threads,
                stop=interruption.requested,
                wait=interruption.unless_requested,
            )
            if metrics is None:
                save_and_leave(state, step)
            else:
                log(step, "eval", metrics)
            return metrics

        def save_and_leave(state: TrainState, step: int) -> NoReturn:
            kept = "nothing was saved, because it had no run_dir"
            if run is not None:
                run.save(state)
                run.checkpoints.wait()
                kept = f"saved in {run.directory}; the same command continues from there"
            interruption.leave(f"the run stopped after step {step} of {recipe.steps}, {kept}.")

        was_due = evaluated is not None and start > 0 and _is_due(start, eval_every, recipe.steps)
        if run is not None and was_due and not run.checkpoints.has_metrics(start):
            # The process that took this step stopped before its evaluation.
            run.save(state, evaluate_at(state, start))

        form: dict[str, Any] = {
            "start_step": start,
            "size": model.input_size,
            "label_shape": label_shape(loss, classes),
        }
        batches: Iterator
        if isinstance(examples, Batches):
            # A finished run does not pass over all that it has seen.
            batches = examples.for_training(recipe.batch_size, **form) if start < recipe.steps else iter(())
        else:
            batches = train_batches(
                examples,
                batch_size=recipe.batch_size,
                seed=recipe.seed,
                augment=augment,
                num_workers=num_workers,
                num_threads=num_threads,
                **form,
            )
        on_devices = stack.enter_context(prefetch(batches, lambda batch: put_batch(check_labels(batch, classes))))

        pending: list[dict] = []
        clock = time.perf_counter()
        for step in range(start + 1, recipe.steps + 1):
            batch = interruption.unless_requested(next, on_devices)
            if batch is None:
                step -= 1
            else:
                state, metrics = train_step(state, batch)
                pending.append(metrics)
            if len(pending) > _STEPS_AHEAD:
                jax.block_until_ready(pending[-1 - _STEPS_AHEAD])
            stopping = batch is None or interruption.requested()
            evaluating = evaluated is not None and _is_due(step, eval_every, recipe.steps)
            saving = run is not None and _is_due(step, checkpoint_every, recipe.steps)
            if pending and (evaluating or saving or stopping or _is_due(step, log_every, recipe.steps)):
                # Here the host waits for the devices. A state is saved only after its loss has been checked.
                means = finite_means(pending, step - len(pending) + 1, examples, recipe)
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                means["images_per_second"] = recipe.batch_size * len(pending) / seconds
                if optimizer is None:
                    means["learning_rate"] = float(learning_rate(step - 1))
                pending = []
                bar.update(step, means)
                log(step, "train", means)
            if stopping:
                save_and_leave(state, step)
            evaluation = evaluate_at(state, step) if evaluating else None
            if run is not None and saving:
                run.save(state, evaluation)
            if evaluating or saving:
                clock = time.perf_counter()
    if run is not None and jax.process_index() == 0 and (start < recipe.steps or not run.was_finished):
        write_run_card(run.directory, state.evaluated, recipe, start=start, seconds=time.time() - began)
    return _on_default_device(state.evaluated)


class _RunDirectory(contextlib.AbstractContextManager["_RunDirectory"]):
    """What a run writes while it trains: checkpoints and metrics.

    Attributes:
      directory: of the run; created if it does not exist.
      checkpoints: of the run.
      was_finished: whether an earlier process has finished the run.
    """

    def __init__(self, directory: Path, description: dict):
        self.directory = directory
        check_writable(directory)
        self._log: MetricsLog | None = None
        with contextlib.ExitStack() as stack:
            if jax.process_index() == 0:
                stack.enter_context(run_lock(directory))
            start_run(directory, description)
            self.was_finished = has_run_card(directory)
            self.checkpoints = stack.enter_context(Checkpoints(checkpoints_of(directory)))
            self._stack = stack.pop_all()

    def __exit__(self, *exception) -> None:
        # Closing the checkpoints waits for the last one.
        with self._stack:
            if self._log is not None:
                self._log.close()

    def restore(self, state: TrainState) -> TrainState:
        """The state of the newest checkpoint that is not damaged, or `state` if there is no checkpoint."""
        if not self.checkpoints.steps():
            return state
        return self.checkpoints.restore(state)

    def set_aside(self, start: int) -> None:
        """Moves the damaged checkpoints after the step that the run goes on from out of its way."""
        if moved := self.checkpoints.set_aside(start):
            names = ", ".join(map(str, moved))
            warnings.warn(f"The run goes on from step {start}. Moved aside: {names}.", stacklevel=3)

    def begin(self, state: TrainState, saves: int, most: int) -> None:
        """Checks that the disk has room for the checkpoints, and opens the log.

        Args:
          state: where the run starts.
          saves: number of checkpoints that it will write.
          most: number of checkpoints that are kept at most.
        """
        # While a checkpoint is written there is one more.
        room = min(saves, max(1, most + 1 - len(self.checkpoints.steps())))
        check_room(self.directory, checkpoint_bytes(state), room)
        if jax.process_index() == 0 and (saves or not self.was_finished):
            self._log = MetricsLog(self.directory, int(state.step))

    def log(self, step: int, group: str, metrics: dict[str, float]) -> None:
        """Writes metrics, in the first process."""
        if self._log is not None:
            self._log.write(step, group, metrics)

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Writes a checkpoint, see `Checkpoints.save`, after the metrics up to it: a run that resumes has them all."""
        if self._log is not None:
            self._log.flush()
        self.checkpoints.save(state, metrics)


def _named(model: CamModel, source: RandomAccessSource | Batches, multi_label: bool) -> CamModel:
    """The model as it is trained: with the class names of its examples, if it has none and they have, and its mode."""
    names = class_names_of(source)
    named = model.class_names is not None or not names or all(map(str.isdecimal, names))
    if named and getattr(model, "multi_label", False) == multi_label:
        return model
    model = jax.tree.map(lambda leaf: leaf, model)  # a new object, so that the caller's stays unchanged
    if not named:
        model.class_names = names
    model.multi_label = multi_label
    return model


def _check_loss(loss: Loss | None, recipe: Recipe, num_classes: int) -> None:
    """Raises ValueError for a loss that is none, and for a recipe's label smoothing that it would not have."""
    if loss is None:
        return
    if recipe.label_smoothing:
        raise InputError(
            f"recipe.label_smoothing={recipe.label_smoothing} is of the default loss, and loss={loss!r} is given. Take "
            "it out of the recipe (dataclasses.replace(recipe, label_smoothing=0.0)) and, for "
            "SoftmaxCrossEntropy(label_smoothing=...), give it there."
        )
    check_loss(loss, num_classes)


def _is_due(step: int, every: int | None, steps: int) -> bool:
    """Whether an action is due after a step: every `every` steps, and after the last one."""
    return step == steps or (every is not None and step % every == 0)


def _check_intervals(**intervals: int | None) -> None:
    """Raises ValueError for an interval below one step."""
    for name, value in intervals.items():
        if value is not None and value < 1:
            raise InputError(f"{name}={value}: expected a number of steps, at least 1.")


def _check_same_start(start: int) -> None:
    """Raises ValueError if the processes found different checkpoints."""
    if jax.process_count() > 1:
        starts = multihost_utils.process_allgather(np.int32(start)).tolist()
        if len(set(starts)) > 1:
            raise InputError(
                f"The newest checkpoints of the processes are of steps {starts}: run_dir has to be a folder that all "
                "processes see."
            )


def _on_default_device(model: CamModel) -> CamModel:
    """The model on one device, like a newly created one: every later use of replicated arrays would run on all."""
    return jax.device_put(model, jax.local_devices()[0])
