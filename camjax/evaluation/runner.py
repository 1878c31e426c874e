"""The loop of an evaluation: every image once, through every method, into every metric."""

import collections
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from camjax.attribution.methods import common_image_size
from camjax.data.annotation import AnnotatedSource
from camjax.data.loader import Batch, eval_batches
from camjax.evaluation.faithfulness import FaithfulnessScorer
from camjax.evaluation.run_files import RunFiles
from camjax.evaluation.saved_maps import save_score_maps
from camjax.evaluation.scoring import SCORES
from camjax.evaluation.truth import STATUSES, First, TruthReader, statuses_of
from camjax.inference import Localization, TopAndAsked, make_localize_fns
from camjax.metrics import FAITHFULNESS
from camjax.metrics.box_overlap import iou_matrix
from camjax.metrics.streaming import StreamingMetric, merge_across_processes
from camjax.models import CamModel

SAVE_SECONDS = 10


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      metrics: method -> name of `SCORES` or `FAITHFULNESS` -> the metric, over all images.
      counts: status -> number of images; together all images of the split (or of its first `limit`).
      num_images: their number.
      seconds: wall time, over all the times that it was taken up.
    """

    metrics: dict[str, dict[str, StreamingMetric]]
    counts: dict[str, int]
    num_images: int
    seconds: float


def evaluate_localization(
    model: CamModel,
    source: AnnotatedSource,
    *,
    methods: Sequence[str] = ("cam",),
    metrics: Sequence[str] = ("ilsvrc",),
    threshold: float = 0.2,
    batch_size: int = 32,
    crop: Literal["center"] | None = None,
    limit: int | None = None,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    save_maps: bool = False,
    options: dict | None = None,
    num_workers: int = 0,
    num_threads: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measures how well maps localize, over a whole split, on all devices of all processes.

    Images are resized to the model's input, and boxes compared in the stored image's own frame. Each image is counted
    exactly once: scored, without boxes (in classification error only), unreadable, or excluded by a list.

    Args:
      model: a classifier; what it has to have depends on the method.
      source: annotated images, from `camjax.data.annotated.open_annotated`.
      methods: names of `camjax.attribution.METHODS`.
      metrics: names of `SCORES` and of `camjax.metrics.FAITHFULNESS`. The latter run the network on changed images,
        two to hundreds of times each.
      threshold: of the paper's box rule, a share of the map's maximum.
      batch_size: images per step over all devices of all processes.
      crop: None squashes each image to the input; "center" takes its largest centered part of the input's aspect.
      limit: evaluate the first so many images alone.
      run_dir: where to keep the state, a table of images, and maps; None keeps nothing.
      resume: go on where an evaluation in `run_dir` stopped, if there is one.
      save_maps: write the first method's map of each image's true class, in wsolevaluation's layout.
      options: further things that the results depend on, such as the weights' hash: what a run is resumed with has to
        be the same.
      num_workers: as in `eval_batches`.
      num_threads: as in `eval_batches`.
      progress: called with the images done and their number after each batch.

    Returns:
      `Evaluation`, the same in every process.

    Raises:
      ValueError: options that do not fit together, or the source or the model; labels that the model has no class for.
      FileExistsError: `run_dir` holds an evaluation, and `resume` is False.
    """
    devices = jax.local_devices()
    classes = getattr(model.head, "num_classes", None)
    _check(source, methods, metrics, crop, limit, batch_size, run_dir, resume, save_maps, classes)
    if limit is not None and limit < len(source):
        source = First(source, limit)
    size = common_image_size(model, methods)
    localize = make_localize_fns(model, methods, threshold=threshold, top_k=min(5, classes))
    results = {
        method: {name: SCORES[name].make(classes) if name in SCORES else FAITHFULNESS[name]() for name in metrics}
        for method in methods
    }
    scorer = FaithfulnessScorer(model, devices) if any(name in FAITHFULNESS for name in metrics) else None
    counts: collections.Counter = collections.Counter()
    start, seconds = 0, 0.0
    with contextlib.ExitStack() as stack:
        files = None
        if run_dir is not None:
            given = {
                "dataset": source.info.name,
                "split": source.info.split,
                "images": len(source),
                "methods": list(methods),
                "metrics": list(metrics),
                "threshold": threshold,
                "batch_size": batch_size,
                "crop": crop,
                "processes": jax.process_count(),
                **(options or {}),
            }
            columns = ["index", "filename", "status", "label", "prediction", *(f"{name}_iou" for name in methods)]
            files = stack.enter_context(contextlib.closing(RunFiles(run_dir, given, columns, resume)))
            if files.state:
                start, seconds = files.state["batches"], files.state["seconds"]
                counts.update(files.state["counts"])
                for method, name in itertools.product(methods, metrics):
                    results[method][name].restore(files.state["metrics"][method][name])
        clock = saved = time.monotonic()
        batches = stack.enter_context(
            contextlib.closing(
                eval_batches(
                    source,
                    batch_size=batch_size,
                    size=size,
                    crop=crop,
                    unreadable="mark",
                    start_batch=start,
                    num_workers=num_workers,
                    num_threads=num_threads,
                )
            )
        )
        needs_masks = any(SCORES[name].needs_masks for name in metrics if name in SCORES)
        reader = TruthReader(source, classes, needs_masks, size)
        pool = stack.enter_context(ThreadPoolExecutor(max(1, num_threads // 2)))
        for done, (batch, truth, outs) in enumerate(_computed(batches, localize, devices, reader, pool), start + 1):
            annotations, truth = truth
            statuses = statuses_of(batch, annotations)
            counts.update(status for status in statuses if status)
            for method, out in outs.items():
                outs[method] = out = _in_image(out, truth.view) if crop else out
                for name, metric in results[method].items():
                    if name in SCORES:
                        SCORES[name].update(metric, out, truth)
                    else:
                        files_of = [a.filename if a else "" for a in annotations]
                        scorer.update(metric, name, batch["image"], out, truth.counted, files_of)
            if files:
                files.write_images(_rows(batch, annotations, statuses, outs))
            if save_maps:
                save_score_maps(Path(run_dir), annotations, outs[methods[0]].maps[:, -1], truth.counted)
            finished = min(done * batch_size, len(source))
            if files and (time.monotonic() - saved > SAVE_SECONDS or finished == len(source)):
                saved = time.monotonic()
                files.save(
                    {
                        "batches": done,
                        "seconds": seconds + saved - clock,
                        "counts": dict(counts),
                        "metrics": {m: {n: metric.state() for n, metric in of.items()} for m, of in results.items()},
                    }
                )
            if progress:
                progress(finished, len(source))
        seconds += time.monotonic() - clock
    counts = _total(counts)
    if sum(counts.values()) != len(source):
        raise RuntimeError(f"{sum(counts.values())} images were counted of {len(source)}; please report this.")
    for of_method in results.values():
        for name in of_method:
            of_method[name] = merge_across_processes(of_method[name])
    return Evaluation(results, counts, len(source), seconds)


def _computed(
    batches: Iterator[Batch], localize: Callable, devices: list, read_truth: TruthReader, pool: ThreadPoolExecutor
) -> Iterator[tuple[Batch, tuple, dict[str, Localization]]]:
    """The batches with what is known and what each method says; a batch is under way while the one before is scored."""
    waiting = collections.deque()
    for batch in batches:
        truth = pool.submit(read_truth, batch)
        # The labels of the images go to the methods; annotations carry them too, and are checked there.
        parts = zip(*(np.split(batch[key], len(devices)) for key in ("image", "label")), strict=True)
        parts = [jax.device_put(part, device) for part, device in zip(parts, devices, strict=True)]
        outs = [localize(images, labels) for images, labels in parts]
        waiting.append((batch, truth, outs))
        if len(waiting) > 1:
            yield _finished(*waiting.popleft())
    while waiting:
        yield _finished(*waiting.popleft())


def _finished(batch: Batch, truth, outs: list[dict[str, TopAndAsked]]) -> tuple[Batch, tuple, dict[str, Localization]]:
    """Waits for a batch, and joins what came from each device."""
    joined = {name: _of_all_classes(jax.device_get([of_device[name] for of_device in outs])) for name in outs[0]}
    return batch, truth.result(), joined


def _of_all_classes(outs: list[TopAndAsked]) -> Localization:
    """The top classes and last the label, of the images of all devices."""
    logits = np.concatenate([top.logits for top, _ in outs])
    fields = (
        np.concatenate([np.concatenate([top[i], asked[i]], axis=1) for top, asked in outs])
        for i in range(1, len(Localization._fields))
    )
    return Localization(logits, *fields)


def _in_image(out: Localization, view: np.ndarray) -> Localization:
    """Boxes of the view that the network saw as boxes of the stored image."""
    corner = view[:, None, [0, 1, 0, 1]]
    extent = view[:, None, [2, 3, 2, 3]] - corner
    boxes = np.where(out.valid[..., None], np.clip(corner + out.boxes * extent, 0, 1), 0)
    return out._replace(boxes=boxes.astype(np.float32))


def _rows(batch: Batch, annotations: Sequence, statuses: Sequence[str], outs: dict[str, Localization]) -> list[list]:
    """Rows of `images.csv`."""
    rows = []
    for i, (annotation, status) in enumerate(zip(annotations, statuses, strict=True)):
        if not status:
            continue
        row = [int(batch["index"][i]), annotation.filename, status, annotation.label]
        if status in ("scored", "without boxes"):
            row.append(int(next(iter(outs.values())).class_ids[i, 0]))
        if status == "scored":
            for out in outs.values():
                iou = iou_matrix(out.boxes[i, -1:], annotation.boxes).max() if out.valid[i, -1] else 0.0
                row.append(f"{iou:.4f}")
        rows.append(row)
    return rows


def _total(counts: collections.Counter) -> dict[str, int]:
    """The counts of all processes."""
    if jax.process_count() > 1:
        import json

        from jax.experimental import multihost_utils

        text = np.zeros(4096, np.uint8)
        own = json.dumps(dict(counts)).encode()
        text[: len(own)] = np.frombuffer(own, np.uint8)
        gathered = np.asarray(multihost_utils.process_allgather(text, tiled=False))
        counts = collections.Counter()
        for row in gathered:
            counts.update(json.loads(bytes(row).rstrip(b"\0")))
    return {status: counts.get(status, 0) for status in (*STATUSES, *sorted(set(counts) - set(STATUSES)))}


def _check(source, methods, metrics, crop, limit, batch_size, run_dir, resume, save_maps, classes) -> None:
    """Says what does not fit together before anything is computed."""
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise ValueError(f"batch_size={batch_size}: expected a positive multiple of the {devices} devices.")
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: expected a number of images, at least 1.")
    if not methods or not metrics or len({*methods}) < len(methods) or len({*metrics}) < len(metrics):
        raise ValueError(f"methods={list(methods)}, metrics={list(metrics)}: expected at least one of each, each once.")
    for name in metrics:
        if name in FAITHFULNESS:
            continue
        if name not in SCORES:
            known = ", ".join((*SCORES, *FAITHFULNESS))
            raise ValueError(f"metric {name!r} is not known: expected some of {known}.")
        if SCORES[name].needs_masks and not source.has_masks:
            raise ValueError(f"metric {name!r} asks for masks, and {source!r} has none: give --masks, or leave it out.")
        if SCORES[name].needs_boxes and not source.has_boxes:
            raise ValueError(f"metric {name!r} asks for boxes, and {source!r} has none: give --boxes, or leave it out.")
        if SCORES[name].whole_image and crop:
            raise ValueError(f"metric {name!r} is defined on whole images: leave out crop={crop!r}.")
    if (resume or save_maps) and run_dir is None:
        raise ValueError("resume and save_maps need a run_dir.")
    if source.info.num_classes != classes:
        raise ValueError(
            f"{source!r} has {source.info.num_classes} classes, and the model {classes}. Give a model that was trained "
            "on these classes."
        )
