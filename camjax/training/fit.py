"""The training loop: batches, steps, metrics, evaluations and checkpoints."""

import contextlib
import os
import time
from pathlib import Path

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from camjax.checkpoints import KEPT, Checkpoints, checkpoint_bytes
from camjax.data.loader import Augment, RandomAccessSource, train_batches
from camjax.data.prefetching import prefetch
from camjax.models import CamModel
from camjax.runs import checkpoints_of
from camjax.training.checks import check_classes, check_room, check_writable, finite_means
from camjax.training.evaluation import evaluate
from camjax.training.interruption import Interruption
from camjax.training.logs import MetricsLog
from camjax.training.parallel import check_batch_size, parallel_eval_step, parallel_train_step, put_batch, replicate
from camjax.training.progress import Bar
from camjax.training.recipes import Recipe
from camjax.training.run_card import has_run_card, write_run_card
from camjax.training.runs import describe_data, describe_run, start_run
from camjax.training.step import TrainState

_STEPS_AHEAD = 2
"""How far the host runs ahead of the devices: far enough to keep them busy while the next batch is sent, and no
further, because each step that waits holds its batch in their memory."""


def fit(
    model: CamModel,
    source: RandomAccessSource,
    recipe: Recipe,
    *,
    run_dir: str | os.PathLike | None = None,
    augment: Augment | None = None,
    eval_source: RandomAccessSource | None = None,
    eval_every: int | None = None,
    checkpoint_every: int | None = None,
    log_every: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    num_workers: int = 0,
    num_threads: int = 4,
    progress: bool = True,
) -> CamModel:
    """Trains a classifier from class labels, on all devices of all processes.

    With a `run_dir` the same call goes on where an earlier one stopped: the newest checkpoint holds model, optimizer,
    averaged weights, random state and step, and the place in the data follows from the step. Another number of devices
    or processes may take it up; other weights to start from, another recipe, other data or another augmentation is an
    error.

    SIGTERM, a preemption notice or Ctrl-C ends the run after the step that it comes in, with a checkpoint; see
    `camjax.training.interruption`.

    Args:
      model: where training starts; left as it is.
      source: the training examples; images are resized to `model.input_size`.
      recipe: length, batch size, learning rate and optimizer.
      run_dir: for `run.json`, checkpoints, `metrics.jsonl`, TensorBoard event files, and at the end `run_card.json`,
        `run_card.md` and `curves.png`; None writes nothing. All processes have to see it.
      augment: random change of an image, see `camjax.data.transforms`.
      eval_source: examples for an evaluation every `eval_every` steps and at the end.
      eval_every: in steps; None for the end alone.
      checkpoint_every: in steps; None for the end alone.
      log_every: steps between two lines of metrics, which are means over these steps.
      optimizer: in place of `recipe.optimizer()`.
      num_workers: processes that read, as in `train_batches`.
      num_threads: threads that read, as in `train_batches`.
      progress: whether to show a progress bar.

    Returns:
      The trained model; with averaged weights where the recipe asks for them.

    Raises:
      ValueError: sizes that do not fit together, labels that the model has no class for, a run directory that holds
        another run, or that the processes do not share.
      TrainingError: the loss is no longer finite. Checkpoints before that stay.
      OSError: the run directory can't be written to, or has no room for the checkpoints; said before the first step.
      SystemExit: after SIGTERM, with exit code 143.
      KeyboardInterrupt: after Ctrl-C.
    """
    began = time.time()
    check_batch_size(recipe.batch_size, recipe.accumulate)
    for name, value in (
        ("eval_every", eval_every),
        ("checkpoint_every", checkpoint_every),
        ("log_every", log_every),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: expected a number of steps, at least 1.")
    check_classes(model, source)
    run_dir = None if run_dir is None else Path(run_dir)
    main_process = jax.process_index() == 0

    state = TrainState.create(model, recipe, optimizer=optimizer)
    finished = False
    with contextlib.ExitStack() as stack:
        checkpoints = log = None
        if run_dir is not None:
            check_writable(run_dir)
            data = describe_data(source, augment=augment, eval_source=eval_source)
            start_run(run_dir, describe_run(model, recipe) | data)
            finished = has_run_card(run_dir)
            checkpoints = stack.enter_context(Checkpoints(checkpoints_of(run_dir)))
            if checkpoints.steps():
                state = checkpoints.restore(state)
        start = int(state.step)
        _check_same_start(start)
        if checkpoints is not None:
            saves = sum(_is_due(step, checkpoint_every, recipe.steps) for step in range(start + 1, recipe.steps + 1))
            most = (KEPT if eval_source is not None else KEPT - 1) + 1  # one more while it is written
            room = min(saves, max(1, most - len(checkpoints.steps())))
            check_room(run_dir, checkpoint_bytes(state), room)
            if main_process:
                log = stack.enter_context(contextlib.closing(MetricsLog(run_dir, start)))
        bar = stack.enter_context(Bar(recipe.steps, start, shown=progress and main_process))
        interruption = stack.enter_context(Interruption())

        state = replicate(state)
        train_step = parallel_train_step(recipe)
        eval_step = parallel_eval_step()
        learning_rate = recipe.schedule()

        def run_evaluation(state: TrainState, step: int) -> dict[str, float] | None:
            evaluation = evaluate(
                state.evaluated,
                eval_source,
                batch_size=recipe.batch_size // recipe.accumulate,
                step=eval_step,
                num_workers=num_workers,
                num_threads=num_threads,
                stop=interruption.requested,
            )
            if evaluation is not None and log is not None:
                log.write(step, "eval", evaluation)
            return evaluation

        def save_and_leave(state: TrainState, step: int) -> None:
            kept = "nothing was saved, because it had no run_dir"
            if checkpoints is not None:
                checkpoints.save(state)
                checkpoints.wait()
                kept = f"saved in {run_dir}; the same command goes on from there"
            interruption.leave(f"the run stopped after step {step} of {recipe.steps}, {kept}.")

        batches = train_batches(
            source,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            start_step=start,
            size=model.input_size,
            augment=augment,
            num_workers=num_workers,
            num_threads=num_threads,
        )
        batches = stack.enter_context(prefetch(batches, put_batch))

        pending = []
        clock = time.perf_counter()
        for step in range(start + 1, recipe.steps + 1):
            state, metrics = train_step(state, next(batches))
            pending.append(metrics)
            if len(pending) > _STEPS_AHEAD:
                jax.block_until_ready(pending[-1 - _STEPS_AHEAD])
            stopping = interruption.requested()
            evaluating = eval_source is not None and _is_due(step, eval_every, recipe.steps)
            saving = checkpoints is not None and _is_due(step, checkpoint_every, recipe.steps)
            if evaluating or saving or stopping or _is_due(step, log_every, recipe.steps):
                # Here the host waits for the devices. No state is saved whose loss has not been looked at.
                means = finite_means(pending, step - len(pending) + 1, source, recipe)
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                means["images_per_second"] = recipe.batch_size * len(pending) / seconds
                if optimizer is None:
                    means["learning_rate"] = float(learning_rate(step - 1))
                pending = []
                bar.update(step, means)
                if log is not None:
                    log.write(step, "train", means)
            evaluation = None
            if evaluating and not stopping:
                evaluation = run_evaluation(state, step)
                stopping = evaluation is None
            if stopping:
                save_and_leave(state, step)
            if saving:
                checkpoints.save(state, evaluation)
            if evaluating or saving:
                clock = time.perf_counter()
        broken_off = start == recipe.steps and eval_source is not None and run_dir is not None and not finished
        if broken_off and run_evaluation(state, start) is None:
            save_and_leave(state, start)
    if run_dir is not None and main_process and (start < recipe.steps or not finished):
        write_run_card(run_dir, state.evaluated, recipe, start=start, seconds=time.time() - began)
    return _on_default_device(state.evaluated)


def _is_due(step: int, every: int | None, steps: int) -> bool:
    """Whether what happens every so many steps, and at the end, happens after a step."""
    return step == steps or (every is not None and step % every == 0)


def _check_same_start(start: int) -> None:
    """Raises ValueError where the processes found different checkpoints."""
    if jax.process_count() > 1:
        starts = multihost_utils.process_allgather(np.int32(start)).tolist()
        if len(set(starts)) > 1:
            raise ValueError(
                f"The newest checkpoints of the processes are of steps {starts}: run_dir has to be a folder that all "
                "processes see."
            )


def _on_default_device(model: CamModel) -> CamModel:
    """The model on one device, as a model that has just been created: copies on all would follow it everywhere."""
    return jax.device_put(model, jax.local_devices()[0])
