"""What experiments share of the benchmark for weakly supervised localization (Choe et al. 2020, arXiv:2001.07437)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from camjax.data.annotation import AnnotatedSource
from camjax.data.transforms import Transform, compose, random_horizontal_flip, resize_then_random_crop
from camjax.evaluation.figures import cases_figure, curve_figure, save_figures
from camjax.evaluation.report import summary, write_results
from camjax.evaluation.runner import Evaluation, evaluate_localization
from camjax.models import CamModel
from camjax.processes import is_first
from camjax.terminal import Console, progress
from camjax.weights.fingerprint import weights_sha256

THRESHOLD_STEP = 0.001  # of the benchmark's published numbers
SMALL_LARGE = (224, 256)

# MaxBoxAccV2, of OpenImages PxAP, of a box in the middle, as published. By the benchmark's lists that of every tenth
# validation image of ImageNet is 52.9.
CENTER_BOX = {"cub": 59.7, "imagenet": 52.5, "openimages": 45.8}
CENTER_BOX_NOTE = (
    "The published center box of CUB, 59.7, is called MaxBoxAccV2 and is its MaxBoxAcc: by the benchmark's own lists "
    "its MaxBoxAccV2 is 56.8."
)


def augmentation(input_size: tuple[int, int]) -> Transform:
    """Squash, crop at random, flip: to 256 and 224 pixels, or in this proportion to another input size."""
    small, large = SMALL_LARGE
    height, width = (round(side * large / small) for side in input_size)
    return compose(resize_then_random_crop((height, width), input_size), random_horizontal_flip)


def evaluate_split(
    model: CamModel,
    source: AnnotatedSource,
    directory: Path,
    subject: Mapping,
    *,
    metrics: Sequence[str],
    batch_size: int,
    workers: int,
    console: Console,
    figures: bool = True,
) -> Evaluation:
    """Evaluates a trained network as published, and writes results and figures; continues an interrupted evaluation.

    Args:
      model: trained.
      source: the images of a split.
      directory: where.
      subject: describes model and data, in JSON's types.
      metrics: names of `camjax.metrics.METRICS`.
      batch_size: images at a time.
      workers: processes that read images.
      console: shows progress.
      figures: whether to draw the threshold curves and, of a source with boxes, the best and worst cases.
    """
    sha256 = weights_sha256(model)
    with progress(f"evaluating on {source.info.split}", console) as update:
        evaluation = evaluate_localization(
            model,
            source,
            metrics=metrics,
            threshold_step=THRESHOLD_STEP,
            batch_size=batch_size,
            run_dir=directory,
            resume=True,
            options={"weights_sha256": sha256},
            num_workers=workers,
            progress=update,
        )
    described = {**subject, "weights_sha256": sha256, "dataset": source.info.name, "split": source.info.split}
    results = summary(evaluation, described)
    if is_first():
        write_results(directory, results)
    if is_first() and figures:
        drawn = {"thresholds": curve_figure(evaluation)}
        if source.has_boxes:
            drawn["cases"] = cases_figure(source, evaluation.cases)
        save_figures(directory, drawn)
    return evaluation
