"""Classification accuracy of a model on a source, in parallel over all devices."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from camjax.data.loader import RandomAccessSource, eval_batches
from camjax.data.relabeled import with_classes_of
from camjax.models import CamModel
from camjax.training.parallel import check_batch_size, parallel_eval_step, replicate


def evaluate(
    model: CamModel,
    source: RandomAccessSource,
    *,
    batch_size: int,
    step: Callable[..., dict] | None = None,
    num_workers: int = 0,
    num_threads: int = 4,
    stop: Callable[[], bool] | None = None,
    wait: Callable[..., Any] | None = None,
) -> dict[str, float] | None:
    """Measures the loss and the accuracy of a classifier on a source, each example exactly once.

    Args:
      model: runs in inference mode; left unchanged.
      source: the examples; images are resized to `model.input_size`. Classes are paired by name where source and model
        have names, see `camjax.class_names.match_class_names`.
      batch_size: images per step over all devices of all processes.
      step: from `parallel_eval_step`, to compile only once for several evaluations.
      num_workers: reading processes, as in `eval_batches`.
      num_threads: reading threads, as in `eval_batches`.
      stop: called before each batch and at the end; True stops the evaluation.
      wait: called as `wait(next, batches, None)` for the next batch; None instead of one makes `stop` decide.

    Returns:
      {"loss": mean cross-entropy in nats, "accuracy": top-1, in 0..1}, or None if `stop` stopped it.

    Raises:
      ValueError: a batch size that the devices cannot share, an example that cannot be read, or a class or a label that
        the model does not have.
    """
    check_batch_size(batch_size)
    step = parallel_eval_step() if step is None else step
    source = with_classes_of(source, model.class_names, model.head.num_classes)
    model = replicate(model)
    batches = eval_batches(
        source, batch_size=batch_size, size=model.input_size, num_workers=num_workers, num_threads=num_threads
    )
    with contextlib.closing(batches):
        sums = {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "count")}
        for batch in batches if wait is None else iter(functools.partial(wait, next, batches, None), None):
            if stop is not None and stop():
                return None
            sums = jax.tree.map(jnp.add, sums, step(model, batch))
    if stop is not None and stop():
        return None
    return {"loss": float(sums["loss"] / sums["count"]), "accuracy": float(sums["correct"] / sums["count"])}
