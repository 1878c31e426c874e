"""Table 4 of Zhou et al. 2016: birds classified by GAP features of whole images and of the parts that maps show.

`experiments/cub/__main__.py` describes the experiment, and what the paper leaves open.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from camjax.data.annotation import AnnotatedSource
from camjax.data.archives import base_name
from camjax.errors import InputError
from camjax.features import gap_features, map_images
from camjax.features.svm import LinearSVM, fit_linear_svm
from camjax.inference import make_localize_fn, make_localize_fns
from camjax.metrics.localization.box_overlap import iou_matrix, reaches_iou
from camjax.models import CamModel
from camjax.processes import in_first, is_first
from camjax.terminal import Console, progress
from camjax.viz import localization_figure
from experiments.common.map_figure import squashed
from experiments.common.stages import Stages, load_arrays
from experiments.common.svm import load_localizer, save_svm
from experiments.common.table import is_whole, result_table

IOU = 0.5
WHOLE = (0.0, 0.0, 1.0, 1.0)
CHANCE_DRAWS = 200
BIRDS_SHOWN = 12

# Name, the paper's accuracy, and our stage.
ROWS = (
    ("GAP features, full image", 63.0, "full image"),
    ("GAP features, crop by the CAM box", 67.8, "CAM crop"),
    ("GAP features, crop by the true box", 70.5, "true crop"),
    ("Alignments", 53.6, None),
    ("Alignments, with boxes", 67.0, None),
    ("DPD", 51.0, None),
    ("DeCAF+DPD", 65.0, None),
    ("PANDA R-CNN", 76.4, None),
)


@dataclass(frozen=True)
class Birds:
    """A split of the data set.

    Attributes:
      source: n images.
      labels: (n,) int32.
      boxes: (n, 4) float32, the one true box of each image.
    """

    source: AnnotatedSource
    labels: np.ndarray
    boxes: np.ndarray


def read_birds(source: AnnotatedSource) -> Birds:
    """The labels and true boxes of a split.

    Raises:
      ValueError: an image does not have exactly one box; the message names it.
    """
    annotations = [source.annotation(index) for index in range(len(source))]
    for annotation in annotations:
        if len(annotation.boxes) != 1:
            raise InputError(
                f"{annotation.filename!r} in {source!r} has {len(annotation.boxes)} boxes: expected images with one "
                "object each, as in caltech_birds2011."
            )
    labels = np.array([annotation.label for annotation in annotations], np.int32)
    return Birds(source, labels, np.concatenate([annotation.boxes for annotation in annotations]))


def run_table4(
    model: CamModel,
    train: Birds,
    test: Birds,
    stages: Stages,
    out: Path,
    subject: Mapping,
    *,
    threshold: float,
    penalties: tuple[float, ...],
    batch_size: int,
    console: Console,
) -> dict[str, dict]:
    """Runs the four stages of the table.

    Args:
      model: gives the features.
      train: the training images.
      test: the test images.
      stages: keep the results.
      out: the folder of the SVMs, the boxes and the figure.
      subject: describes model and data, in JSON's types.
      threshold: of the boxes, a share of the map's maximum.
      penalties: candidates, see `camjax.features.svm`.
      batch_size: images at a time.
      console: shows progress.

    Returns:
      Stage -> results. For the classifiers: accuracy (percent of the test images), penalty, cross_validation (penalty
      -> accuracy). For "CAM box": the numbers of `_localize`.
    """
    svm_file, boxes_file, figure_file = out / "svm.npz", out / "boxes.npz", out / "birds.png"
    fitting = {**subject, "penalties": list(penalties)}
    localizing = {**fitting, "threshold": threshold}

    def classify(name: str, boxes: tuple | None = None, file: Path | None = None) -> dict:
        """Trains and tests on whole images, or on the parts in the boxes of the training and test images."""
        features = []
        for part, birds, of_part in zip(("training", "test"), (train, test), boxes or (None, None), strict=True):
            with progress(f"{name}: features of {part} images", console) as update:
                of_birds = gap_features(model, birds.source, boxes=of_part, batch_size=batch_size, progress=update)
            features.append(of_birds)

        def fit() -> dict:
            with console.status(f"{name}: fitting the support vector machines"):
                svm = fit_linear_svm(features[0], train.labels, train.source.info.num_classes, penalties=penalties)
            if file is not None:
                save_svm(file, svm)
            return _numbers(svm, svm.decision_values(features[1]).argmax(1) == test.labels)

        return in_first(fit)

    def cam_box() -> dict:
        localizer = load_localizer(model, svm_file)
        numbers, boxes = _localize(localizer, train, test, threshold, batch_size, console)
        if is_first():
            np.savez(boxes_file, **boxes)
            birds_figure(localizer, test, threshold).savefig(figure_file)
        return numbers

    def cam_crop() -> dict:
        of_train, of_test = load_arrays(boxes_file, "train", "test")
        return classify("CAM crop", (of_train, of_test))

    def full_image() -> dict:
        return classify("full image", file=svm_file)

    def true_crop() -> dict:
        return classify("true crop", (train.boxes, test.boxes))

    run = functools.partial(stages.run, together=True)
    return {
        "full image": run("full image", fitting, full_image, files=[svm_file]),
        "CAM box": run("CAM box", localizing, cam_box, files=[boxes_file, figure_file]),
        "CAM crop": run("CAM crop", localizing, cam_crop),
        "true crop": run("true crop", fitting, true_crop),
    }


def _numbers(svm: LinearSVM, right: np.ndarray) -> dict:
    return {
        "accuracy": 100 * float(right.mean()),
        "penalty": svm.penalty,
        "cross_validation": {f"{penalty:g}": 100 * value for penalty, value in svm.cross_validation.items()},
    }


def _localize(
    localizer: CamModel, train: Birds, test: Birds, threshold: float, batch_size: int, console: Console
) -> tuple[dict, dict]:
    """Draws the boxes that images are cut to: of the true class in training images, of the predicted in test images.

    Returns:
      Numbers, in percent of the images: localized (the box of the predicted class has IoU >= 0.5 with the true box),
      gt_known (the same for the box of the true class), train_gt_known, chance; and how many images have no region, so
      that their box is the whole image. Then {"train": (n, 4), "test": (n, 4)}.
    """
    localize = make_localize_fns(localizer, ["cam"], threshold=threshold)
    found = []
    for part, birds in (("training", train), ("test", test)):

        def boxes_of(images, indices, labels=birds.labels):
            out = localize(images, labels[indices])["cam"]
            assert out.asked is not None, "the labels are asked for"
            return (out.top.boxes, out.asked.boxes), (out.top.valid, out.asked.valid)

        with progress(f"CAM box: {part} images", console) as update:
            found_in_part = map_images(
                boxes_of, birds.source, localizer.input_size, batch_size=batch_size, progress=update
            )
        boxes, valid = (np.concatenate(of_classes, axis=1) for of_classes in found_in_part)
        found.append((np.where(valid[..., None], boxes, WHOLE), valid))
    (train_boxes, train_valid), (test_boxes, test_valid) = found
    # In each image the box of the predicted class comes first, the box of the true class last.
    numbers = {
        "localized": _share_right(test_boxes[:, 0], test.boxes),
        "gt_known": _share_right(test_boxes[:, 1], test.boxes),
        "train_gt_known": _share_right(train_boxes[:, 1], train.boxes),
        "chance": chance(test.boxes),
        "without_region": int((~test_valid[:, 0]).sum()),
        "train_without_region": int((~train_valid[:, 1]).sum()),
    }
    return numbers, {"train": train_boxes[:, 1], "test": test_boxes[:, 0]}


def _share_right(boxes: np.ndarray, true_boxes: np.ndarray) -> float:
    """(n, 4) boxes and true boxes -> percent with IoU >= 0.5."""
    return 100 * float(reaches_iou(boxes[:, None], true_boxes[:, None], IOU).mean())


def chance(true_boxes: np.ndarray, draws: int = CHANCE_DRAWS, seed: int = 0) -> float:
    """The percentage of boxes between two uniform random points that have IoU >= 0.5 with a true box.

    Args:
      true_boxes: (n, 4).
      draws: boxes for each image.
      seed: of the points.
    """
    points = np.random.default_rng(seed).uniform(size=(2, len(true_boxes), draws, 2))
    boxes = np.concatenate([points.min(0), points.max(0)], axis=-1)
    return 100 * float((iou_matrix(boxes, true_boxes[:, None]) >= IOU).mean())


def birds_figure(localizer: CamModel, birds: Birds, threshold: float) -> Figure:
    """A figure of images from the whole split: maps and boxes of the predicted classes, and true boxes."""
    chosen = np.unique(np.linspace(0, len(birds.labels) - 1, BIRDS_SHOWN).astype(int))
    images = [birds.source[i]["image"] for i in chosen]
    localize = make_localize_fn(localizer, threshold=threshold)
    out = localize(squashed(images, localizer.input_size))
    names = birds.source.info.class_names
    predictions = np.asarray(out.class_ids)[:, 0]
    titles = [
        names[label] + ("" if label == prediction else f", taken for {names[prediction]}")
        for label, prediction in zip(birds.labels[chosen], predictions, strict=True)
    ]
    maps, boxes = np.asarray(out.maps)[:, 0], np.asarray(out.boxes)[:, 0]
    return localization_figure(images, list(maps), list(boxes), list(birds.boxes[chosen]), titles)


def is_published_data(data: Mapping) -> bool:
    """Whether our numbers are on all images of CUB-200-2011, as the published ones are.

    Args:
      data: dataset, splits and images, two of each: for training and for testing.
    """
    images = dict(zip(data["splits"], data["images"], strict=True))
    return base_name(data["dataset"]) == "caltech_birds2011" and is_whole(data["dataset"], images)


def images_in_words(data: Mapping) -> str:
    """What our numbers are on, in words; `data` as in `is_published_data`."""
    dataset = "CUB-200-2011" if base_name(data["dataset"]) == "caltech_birds2011" else data["dataset"]
    train, test = data["images"]
    return f"{test:,} test images of {dataset}, {train:,} for training"


NOT_PUBLISHED_DATA = "Published numbers are on all 5,794 test images of CUB-200-2011: they are left out beside others."


def table4(results: Mapping[str, Mapping], network: str, data: Mapping) -> list[Table]:
    """Our accuracies and localization numbers, beside the paper's if they are on the same images.

    Args:
      results: of `run_table4`.
      network: the name of ours.
      data: what ours are on, as in `is_published_data`.
    """
    compared = is_published_data(data)
    columns = ["paper"] * compared + [f"ours, {network}"]
    caption = None if compared else NOT_PUBLISHED_DATA
    accuracies = result_table(f"Table 4. Accuracy on {images_in_words(data)} (%)", *columns, caption=caption)
    for name, accuracy, stage in ROWS:
        if stage or compared:
            ours = f"{results[stage]['accuracy']:.1f}" if stage else ""
            accuracies.add_row(name, *[f"{accuracy:.1f}"] * compared, ours)
    title = f"Images whose box has IoU >= {IOU} with the bird's, of {images_in_words(data)} (%)"
    boxes = result_table(title, *columns, caption=caption)
    for name, paper, key in (
        ("CAM box of the predicted class", "41.0", "localized"),
        ("CAM box of the true class", "", "gt_known"),
        ("chance", "5.5", "chance"),
    ):
        boxes.add_row(name, *[paper] * compared, f"{results['CAM box'][key]:.1f}")
    return [accuracies, boxes]
