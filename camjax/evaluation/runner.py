"""The loop of an evaluation: every image once, through every method, into every metric."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from camjax.attribution.methods import common_image_size
from camjax.data.annotation import AnnotatedSource
from camjax.data.loader import eval_batches
from camjax.data.relabeled import with_classes_of
from camjax.errors import InputError, reading
from camjax.evaluation.batches import computed_batches
from camjax.evaluation.cases import Cases
from camjax.evaluation.run_files import RunFiles, merge_images
from camjax.evaluation.tally import Tally
from camjax.evaluation.truth import First, read_truth
from camjax.inference import make_localize_fns
from camjax.metrics import METRICS, StreamingMetric
from camjax.metrics.streaming import THRESHOLD_STEP
from camjax.models import CamModel
from camjax.outputs import BoundNetwork
from camjax.processes import in_first

SAVE_SECONDS = 10
"""How often the state is saved."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
      metrics: method -> name of `camjax.metrics.METRICS` -> the metric, over all images.
      counts: status -> number of images.
      num_images: the number of images of the split, or of its first `limit`: the sum of `counts`.
      seconds: wall time, over all the runs that it took.
      cases: the best and worst images of the first method.
      threshold_step: of the metrics that are `stepped`.
    """

    metrics: dict[str, dict[str, StreamingMetric]]
    counts: dict[str, int]
    num_images: int
    seconds: float
    cases: Cases
    threshold_step: float


def evaluate_localization(
    model: CamModel | BoundNetwork,
    source: AnnotatedSource,
    *,
    methods: Sequence[str] = ("cam",),
    metrics: Sequence[str] = ("ilsvrc",),
    threshold: float = 0.2,
    threshold_step: float = THRESHOLD_STEP,
    layer: str | None = None,
    batch_size: int = 32,
    crop: Literal["center"] | None = None,
    limit: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    save_maps: bool = False,
    options: Mapping[str, Any] | None = None,
    num_workers: int = 0,
    num_threads: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measures how good maps are, over a whole split, on all devices of all processes.

    Images are resized to the model's input, and boxes compared in the stored image's own frame. Each image is counted
    exactly once: scored, without boxes (in classification error only), unreadable, or excluded by a list.

    Args:
      model: a classifier; what it has to have depends on the method. An exported network will do, at its own method,
        for all metrics but those that change its images.
      source: annotated images, from `camjax.data.open_annotated`. Its classes are found among the model's by
        name, see docs/data.md.
      methods: names of `camjax.attribution.METHODS`.
      metrics: names of `camjax.metrics.METRICS`. Those that need scores run the network on changed images, two to
        hundreds of times each.
      threshold: of the paper's box rule, a share of the map's maximum.
      threshold_step: between the thresholds that MaxBoxAcc and PxAP look at: 0.01 as wsolevaluation's evaluator of
        stored maps, or 0.001 as its training and inference, where published numbers come from.
      layer: as in `camjax.make_cam_fn`, of all methods.
      batch_size: images per step over all devices of all processes.
      crop: None squashes each image to the input; "center" takes its largest centered part of the input's aspect,
        by the model's `crop_share` and `interpolation` if it has them.
      limit: evaluate the first `limit` images only.
      run_dir: where to keep the state, a table of images, and maps; None keeps nothing.
      resume: continue the evaluation in `run_dir`, if it has one, with as many processes.
      save_maps: write the map of each image's true class, in wsolevaluation's layout; of several methods, each has a
        folder of its own in it.
      options: further things that the results depend on, in JSON's types, such as the weights' hash. A run can be
        resumed only with the same ones.
      num_workers: as in `camjax.data.eval_batches`.
      num_threads: as in `camjax.data.eval_batches`.
      progress: called with the number of images done and of all images after each batch.

    Returns:
      `Evaluation`, the same in every process but for its seconds, and the same as of one process that has as many
      devices as all of them together, to the bit.

    Raises:
      ValueError: options that do not fit together, or the source or the model; labels that the model has no class for;
        a run to resume that has other options, or was written by another version of camjax.
      FileExistsError: `run_dir` holds an evaluation, and `resume` is False.
    """
    _check_options(methods, metrics, batch_size, crop, limit)
    _check_source(source, metrics)
    if isinstance(model, BoundNetwork) and (wrong := [name for name in metrics if "scores" in METRICS[name].needs]):
        raise InputError(
            f"metrics {', '.join(wrong)} of an exported network: they change images by parts of a gray level, and it "
            "takes whole ones (uint8). Take the network that it was exported from."
        )
    classes = model.num_classes
    source = with_classes_of(source, model.class_names, classes)
    if (resume or save_maps) and run_dir is None:
        raise InputError("resume and save_maps need a run_dir.")
    if limit is not None and limit < len(source):
        source = First(source, limit)
    image_size = common_image_size(model, methods)
    tally = Tally(model, methods, metrics, source.info.class_names, threshold_step, layer)
    localize = make_localize_fns(
        model, methods, threshold=threshold, top_k=min(5, classes), top_boxes=False, layer=layer
    )
    with_masks = any("masks" in METRICS[name].needs for name in metrics)
    start, seconds = 0, 0.0
    with contextlib.ExitStack() as stack:
        files = None
        if run_dir is not None:
            results_depend_on = {
                "dataset": source.info.name,
                "split": source.info.split,
                "images": len(source),
                "methods": list(methods),
                "metrics": list(metrics),
                "threshold": threshold,
                "threshold_step": threshold_step,
                "batch_size": batch_size,
                "crop": crop,
                **({} if layer is None else {"layer": layer}),
                "processes": jax.process_count(),
                **(options or {}),
            }
            files = stack.enter_context(contextlib.closing(RunFiles(run_dir, results_depend_on, tally.columns, resume)))
            if files.state:
                start, seconds = files.state["batches"], files.state["seconds"]
                with reading(run_dir, "an evaluation of camjax", f"Delete {run_dir}, and start again."):
                    tally.restore(files.state, files.arrays)
        batches = computed_batches(
            source,
            localize,
            functools.partial(read_truth, source, num_classes=classes, with_masks=with_masks),
            batch_size=batch_size,
            size=image_size,
            crop=crop,
            **crop_rule(model),
            start_batch=start,
            num_workers=num_workers,
            num_threads=num_threads,
        )
        clock = saved = time.monotonic()
        for done, computed in enumerate(stack.enter_context(contextlib.closing(batches)), start + 1):
            rows = tally.add(computed)
            finished = min(done * batch_size, len(source))
            if files:
                if save_maps:
                    for method, sample in computed.samples.items():
                        folder = method if len(methods) > 1 else "."
                        files.write_maps(computed.known.truth, sample.asked.maps[:, 0], folder)
                files.write_images(rows)
                if time.monotonic() - saved > SAVE_SECONDS or finished == len(source):
                    saved = time.monotonic()
                    state = {"batches": done, "seconds": seconds + saved - clock, **tally.state()}
                    files.save(state, tally.cases.arrays())
            if progress:
                progress(finished, len(source))
        seconds += time.monotonic() - clock
    counts = tally.merge_across_processes()
    if run_dir is not None:
        in_first(functools.partial(merge_images, run_dir))
    if sum(counts.values()) != len(source):
        raise RuntimeError(f"{sum(counts.values())} images were counted of {len(source)}; please report this.")
    return Evaluation(tally.metrics, counts, len(source), seconds, tally.cases, threshold_step)


def crop_rule(model: Any) -> dict[str, Any]:
    """How center crops are taken for a model: those of `crop_share` and `interpolation` that it says."""
    return {name: getattr(model, name) for name in ("crop_share", "interpolation") if hasattr(model, name)}


def first_images(
    source: AnnotatedSource, count: int, size: tuple[int, int], crop: Literal["center"] | None = None, **rule: Any
) -> np.ndarray:
    """The first images of a source that can be read, at most `count`, the same in every process.

    Args:
      source: annotated images.
      count: their number.
      size: (H, W) to which they are resized.
      crop: as in `evaluate_localization`.
      **rule: of center crops, see `crop_rule`.

    Returns:
      (B, H, W, 3) uint8.
    """
    found: list[np.ndarray] = []
    batches = eval_batches(
        source, batch_size=count, size=size, crop=crop, **rule, unreadable="mark", shard_index=0, shard_count=1
    )
    with contextlib.closing(batches):
        for batch in batches:
            found += [*batch["image"][batch["mask"]]]
            if len(found) >= count:
                break
    return np.stack(found[:count]) if found else np.zeros((0, *size, 3), np.uint8)


def _check_options(
    methods: Sequence[str], metrics: Sequence[str], batch_size: int, crop: str | None, limit: int | None
) -> None:
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        raise InputError(f"batch_size={batch_size}: expected a positive multiple of the {devices} devices.")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: expected a number of images, at least 1.")
    for names in (methods, metrics):
        if not names or len({*names}) < len(names):
            raise InputError(
                f"methods={list(methods)}, metrics={list(metrics)}: expected at least one of each, each once."
            )
    for name in metrics:
        if name not in METRICS:
            raise InputError(f"metric {name!r} is not known: expected some of {', '.join(METRICS)}.")
        if METRICS[name].whole_images and crop:
            raise InputError(f"metric {name!r} is defined on whole images: leave out crop={crop!r}.")


def _check_source(source: AnnotatedSource, metrics: Sequence[str]) -> None:
    if not hasattr(source, "has_boxes"):
        raise InputError(
            f"source={source!r}: expected annotated images, as camjax.data.open_annotated(data_set_or_folder, split, "
            "boxes=...) opens them."
        )
    for name in metrics:
        for need, has in (("masks", source.has_masks), ("boxes", source.has_boxes)):
            if need in METRICS[name].needs and not has:
                raise InputError(
                    f"metric {name!r} needs {need}, and {source!r} has none: give --{need}, or leave it out."
                )
