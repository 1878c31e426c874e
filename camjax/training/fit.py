"""The training loop: batches, steps, a progress bar, metrics and checkpoints."""

import contextlib
import math
import os
import time
from pathlib import Path

import jax
import optax
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from camjax.data.loader import Augment, RandomAccessSource, train_batches
from camjax.models import CamModel
from camjax.training.checkpoints import Checkpoints
from camjax.training.evaluation import evaluate
from camjax.training.logs import MetricsLog
from camjax.training.parallel import check_batch_size, parallel_eval_step, parallel_train_step, replicate
from camjax.training.recipes import Recipe
from camjax.training.runs import checkpoints_of, describe_run, start_run
from camjax.training.step import TrainState


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


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
    random state and step, and the place in the data follows from the step.

    Args:
      model: where training starts; left as it is.
      source: the training examples; images are resized to `model.input_size`.
      recipe: length, batch size, learning rate and optimizer.
      run_dir: for `run.json`, checkpoints, `metrics.jsonl` and TensorBoard event files; None writes nothing.
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
      The trained model.

    Raises:
      ValueError: sizes that do not fit together, labels that the model has no class for, a run directory that holds
        another run.
      TrainingError: the loss is no longer finite. Checkpoints before that stay.
      OSError: the run directory can't be written to.
    """
    check_batch_size(recipe.batch_size)
    for name, value in (
        ("eval_every", eval_every),
        ("checkpoint_every", checkpoint_every),
        ("log_every", log_every),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: expected a number of steps, at least 1.")
    _check_classes(model, source)
    run_dir = None if run_dir is None else Path(run_dir)
    main_process = jax.process_index() == 0

    state = TrainState(model, nnx.Optimizer(model, optimizer or recipe.optimizer(), wrt=nnx.Param))
    with contextlib.ExitStack() as stack:
        checkpoints = log = None
        if run_dir is not None:
            start_run(run_dir, describe_run(model, recipe))
            checkpoints = stack.enter_context(Checkpoints(checkpoints_of(run_dir)))
            if checkpoints.steps():
                state = checkpoints.restore(state)
        start = int(state.step)
        if run_dir is not None and main_process:
            log = stack.enter_context(contextlib.closing(MetricsLog(run_dir, start)))
        bar = stack.enter_context(_Bar(recipe.steps, start, shown=progress and main_process))

        state = replicate(state)
        train_step = parallel_train_step(label_smoothing=recipe.label_smoothing)
        eval_step = parallel_eval_step()
        learning_rate = recipe.schedule()
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
        stack.enter_context(contextlib.closing(batches))

        pending = []
        clock = time.perf_counter()
        for step in range(start + 1, recipe.steps + 1):
            state, metrics = train_step(state, next(batches))
            pending.append(metrics)
            last = step == recipe.steps
            evaluating = eval_source is not None and (last or (eval_every is not None and step % eval_every == 0))
            saving = checkpoints is not None and (
                last or (checkpoint_every is not None and step % checkpoint_every == 0)
            )
            if evaluating or saving or last or step % log_every == 0:
                # Here the host waits for the devices; between two such steps it runs ahead of them.
                means = _means(pending, first_step=step - len(pending) + 1)
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                means["images_per_second"] = recipe.batch_size * len(pending) / seconds
                if optimizer is None:
                    means["learning_rate"] = float(learning_rate(step - 1))
                pending = []
                bar.update(step, means)
                if log is not None:
                    log.write(step, "train", means)
            evaluation = None
            if evaluating:
                evaluation = evaluate(
                    state.model,
                    eval_source,
                    batch_size=recipe.batch_size,
                    step=eval_step,
                    num_workers=num_workers,
                    num_threads=num_threads,
                )
                if log is not None:
                    log.write(step, "eval", evaluation)
            if saving:
                checkpoints.save(state, evaluation)
            if evaluating or saving:
                clock = time.perf_counter()
    return _on_default_device(state.model)


def _check_classes(model: CamModel, source: RandomAccessSource) -> None:
    """Raises ValueError where a source says that it has other classes than the model."""
    info = getattr(source, "info", None)
    if info is not None and info.num_classes != model.head.num_classes:
        raise ValueError(
            f"data set {info.name!r} has {info.num_classes} classes, the model {model.head.num_classes}: "
            f"create it with num_classes={info.num_classes}."
        )


def _means(pending: list[dict], first_step: int) -> dict[str, float]:
    """The mean of each metric over some steps.

    Raises:
      TrainingError: a loss is not finite.
    """
    pending = jax.device_get(pending)
    for i, metrics in enumerate(pending):
        if not math.isfinite(metrics["loss"]):
            raise TrainingError(
                f"The loss of step {first_step + i} is {metrics['loss']}: training has diverged. Start again with a "
                "lower learning rate or a longer warm-up; checkpoints before this step stay."
            )
    return {name: float(sum(metrics[name] for metrics in pending) / len(pending)) for name in pending[0]}


def _on_default_device(model: CamModel) -> CamModel:
    """The model on one device, as a model that has just been created: copies on all would follow it everywhere."""
    return jax.device_put(model, jax.local_devices()[0])


class _Bar(contextlib.AbstractContextManager):
    """A progress bar with the latest loss, accuracy and speed."""

    def __init__(self, steps: int, start: int, *, shown: bool):
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._progress.add_task("compiling", total=steps, completed=start)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *exception) -> None:
        self._progress.stop()

    def update(self, step: int, means: dict[str, float]) -> None:
        """Moves the bar to a step."""
        text = "loss {loss:.3f}  accuracy {accuracy:.3f}  {images_per_second:.0f} images/s".format(**means)
        self._progress.update(self._task, completed=step, description=text)
