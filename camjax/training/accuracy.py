"""Loss and accuracy of a model on a source, in parallel over all devices."""

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from camjax.data.batches import Batches, source_or_batches
from camjax.data.loader import RandomAccessSource, eval_batches
from camjax.data.relabeled import with_classes_of
from camjax.models import CamModel
from camjax.training.losses import Loss, is_multi_label, label_shape
from camjax.training.parallel import check_batch_size, parallel_eval_step, replicate
from camjax.training.precision import mean_average_precision


def evaluate(
    model: CamModel,
    source: RandomAccessSource | Iterable,
    *,
    batch_size: int,
    loss: Loss | None = None,
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
        have names, see docs/data.md. Or batches from elsewhere, see `camjax.data.Batches`.
      batch_size: images per step over all devices of all processes.
      loss: as in `fit`; None for the cross-entropy of the softmax.
      step: from `parallel_eval_step(loss)`, to compile only once for several evaluations.
      num_workers: reading processes, as in `eval_batches`; not for batches.
      num_threads: reading threads, as in `eval_batches`; not for batches.
      stop: called before each batch and at the end; True stops the evaluation.
      wait: called as `wait(next, batches, None)` for the next batch; None instead of one makes `stop` decide.

    Returns:
      {"loss": the mean loss, weighted if the loss has weights, "accuracy": top-1, in 0..1}, or None if `stop` stopped
      it. For images of several classes the accuracy is the share of right decisions, class by class, at a probability
      of 0.5, and there is also "mean_average_precision", in 0..1: see `camjax.training.precision`. It keeps all logits
      and labels in memory, 5 bytes for each image and class.

    Raises:
      ValueError: a batch size that the devices cannot share, an example that cannot be read, a class or a label that
        the model does not have, or labels that the loss does not take.
    """
    check_batch_size(batch_size)
    step = parallel_eval_step(loss) if step is None else step
    classes = model.head.num_classes
    examples = with_classes_of(source_or_batches(source, num_workers), model.class_names, classes)
    model = replicate(model)
    shape = label_shape(loss, classes)
    batches = (
        examples.for_evaluation(batch_size, size=model.input_size, label_shape=shape)
        if isinstance(examples, Batches)
        else eval_batches(
            examples,
            batch_size=batch_size,
            size=model.input_size,
            label_shape=shape,
            num_workers=num_workers,
            num_threads=num_threads,
        )
    )
    sums: dict[str, Any] = {}
    logits, labels = [], []
    with contextlib.closing(batches):
        for batch in batches if wait is None else iter(functools.partial(wait, next, batches, None), None):
            if stop is not None and stop():
                return None
            found = step(model, batch)
            if is_multi_label(loss):
                rows, of_rows, mask = (np.asarray(found.pop(name)) for name in ("logits", "label", "mask"))
                logits.append(rows[mask])
                labels.append(of_rows[mask] > 0.5)
            sums = jax.tree.map(jnp.add, sums, found) if sums else found
    if stop is not None and stop():
        return None
    loss_or_0 = float(sums["loss"] / sums["weight"]) if sums["weight"] else 0.0  # 0 where no image's class counts
    metrics = {"loss": loss_or_0, "accuracy": float(sums["correct"] / sums["count"])}
    if is_multi_label(loss):
        metrics["mean_average_precision"] = mean_average_precision(np.concatenate(logits), np.concatenate(labels))
    return metrics
