"""Where a network's maps find the objects of the data set "scenes": boxes at many thresholds, table and figure."""

import contextlib
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

import camjax
from camjax.boxes import boxes_from_maps
from camjax.data.loader import eval_batches
from camjax.data.sources import Source
from camjax.models import CamModel
from camjax.viz import localization_figure
from experiments.common.table import result_table

IOU = 0.5
PAPER_THRESHOLD = 0.2
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
CENTER_SIDES = np.round(np.arange(0.1, 1.0, 0.05), 2)
EXAMPLES_SHOWN = 12


@dataclass(frozen=True)
class Localizations:
    """The predictions and boxes of a network for the n images of a source, at each of T thresholds.

    Attributes:
      labels: (n,) true classes.
      predictions: (n,) predicted classes.
      true_boxes: (n, 4).
      maps: (n, h, w) raw maps of the true classes.
      boxes: (T, n, 2, 4) of the true and of the predicted class.
    """

    labels: np.ndarray
    predictions: np.ndarray
    true_boxes: np.ndarray
    maps: np.ndarray
    boxes: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of images whose predicted class is the true one."""
        return float((self.labels == self.predictions).mean())

    @functools.cached_property
    def hits(self) -> np.ndarray:
        """(T, n, 2) bool: whether the boxes of the true and of the predicted class are right."""
        return is_right(self.boxes, self.true_boxes[:, None])

    def gt_known(self) -> np.ndarray:
        """(T,) share of images whose box of the true class is right."""
        return self.hits[..., 0].mean(1)

    def top1(self) -> np.ndarray:
        """(T,) share of images whose predicted class and its box are right."""
        return (self.hits[..., 1] & (self.labels == self.predictions)).mean(1)


def is_right(boxes: np.ndarray, true_boxes: np.ndarray) -> np.ndarray:
    """(..., 4) boxes and true boxes -> (...) bool: IoU >= 0.5."""
    return np.asarray(_box_iou(boxes, true_boxes)) >= IOU


_box_iou = jax.jit(camjax.box_iou)  # one program instead of one for each operation


def localize(model: CamModel, source: Source, batch_size: int = 100) -> Localizations:
    """Runs a network over a source, and computes the boxes at all `THRESHOLDS`."""
    cam_fn = camjax.make_cam_fn(model, top_k=None)

    @jax.jit
    def step(images, labels):
        out = cam_fn(images)
        predictions = out.logits.argmax(-1).astype(labels.dtype)
        maps = jnp.take_along_axis(out.maps, jnp.stack([labels, predictions], 1)[..., None, None], axis=1)
        boxes, _ = jax.vmap(lambda threshold: boxes_from_maps(maps, images.shape[1:3], threshold))(THRESHOLDS)
        return predictions, maps[:, 0], boxes

    rows = []
    with contextlib.closing(eval_batches(source, batch_size=batch_size)) as batches:
        for batch in batches:
            predictions, maps, boxes = jax.device_get(step(batch["image"], batch["label"]))
            real = batch["mask"]
            rows.append((batch["label"][real], predictions[real], batch["bbox"][real], maps[real], boxes[:, real]))
    *of_images, boxes = zip(*rows, strict=True)
    labels, predictions, true_boxes, maps = map(np.concatenate, of_images)
    return Localizations(labels, predictions, true_boxes, maps, np.concatenate(boxes, axis=1))


def center_boxes() -> np.ndarray:
    """(S, 4) squares in the middle, one for each of `CENTER_SIDES`."""
    low, high = (1 - CENTER_SIDES) / 2, (1 + CENTER_SIDES) / 2
    return np.stack([low, low, high, high], axis=-1)


def results(validation: Localizations, test: Localizations) -> tuple[Table, dict[str, float]]:
    """The table of the experiment, and its numbers (shares in 0..1) by name."""
    paper = int(np.argmin(np.abs(THRESHOLDS - PAPER_THRESHOLD)))
    best = int(validation.gt_known().argmax())
    side = int(is_right(center_boxes()[:, None], validation.true_boxes).mean(1).argmax())
    center_hits = is_right(center_boxes()[side], test.true_boxes)
    numbers = {
        "top1_accuracy": test.accuracy,
        "top1_localization_20": float(test.top1()[paper]),
        "top1_localization_best": float(test.top1()[best]),
        "top1_localization_center": float((center_hits & (test.labels == test.predictions)).mean()),
        "gt_known_20": float(test.gt_known()[paper]),
        "gt_known_best": float(test.gt_known()[best]),
        "gt_known_center": float(center_hits.mean()),
        "best_threshold": float(THRESHOLDS[best]),
        "center_side": float(CENTER_SIDES[side]),
    }
    columns = f"CAM at {PAPER_THRESHOLD:.0%}", f"CAM at {THRESHOLDS[best]:.0%}", "center box"
    table = result_table(f"{len(test.labels)} test scenes that training never saw", *columns)
    table.add_row("top-1 accuracy", *[f"{test.accuracy:.1%}"] * 2, "")
    for title, name in (("top-1 localization", "top1_localization"), ("GT-known localization", "gt_known")):
        table.add_row(title, *(f"{numbers[f'{name}_{column}']:.1%}" for column in ("20", "best", "center")))
    return table, numbers


def example_figure(source: Source, test: Localizations, threshold: float) -> Figure:
    """A figure of the first test images: maps of the true class, predicted and true boxes."""
    shown = range(min(EXAMPLES_SHOWN, len(source)))
    names = source.info.class_names
    index = int(np.argmin(np.abs(THRESHOLDS - threshold)))
    return localization_figure(
        [source[i]["image"] for i in shown],
        [test.maps[i] for i in shown],
        [test.boxes[index, i, 0] for i in shown],
        [test.true_boxes[i] for i in shown],
        titles=[_title(names[test.labels[i]], names[test.predictions[i]]) for i in shown],
    )


def _title(label: str, prediction: str) -> str:
    return label if label == prediction else f"{label}, taken for {prediction}"
