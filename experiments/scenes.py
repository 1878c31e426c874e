"""A small network trained from class labels alone, and where its class activation maps find the objects.

    python -m experiments.scenes            # about two minutes on two CPU cores

The data set *scenes* is made by camjax itself: a real handwritten digit in random size and place on a real
photograph of brick, grass or gravel. These are composites, not photographs of digits; their boxes are exact because
they follow from where the digit was put. Training sees images and labels, never a box.

The table follows table 2 and section 3.2 of Zhou et al. 2016: a localization is right where its box has IoU >= 0.5
with the true box; top-1 localization asks for the right class as well, and draws the box of the predicted class;
GT-known localization draws the box of the true class. The box encloses the largest connected part of the map above
a share of its maximum: 20 %, the paper's rule, or the share that is best on the validation split, which is then
used on the test split. The center box looks at no image: it is a square in the middle, of the side that is best on
the validation split.
"""

import contextlib
import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from rich import box as boxes_of_rich
from rich.console import Console
from rich.table import Table

import camjax
from camjax.boxes import boxes_from_maps
from camjax.cli.errors import run_command
from camjax.data.loader import eval_batches
from camjax.data.scenes import SIDE
from camjax.data.sources import Source, open_source
from camjax.data.transforms import random_translation
from camjax.training import Recipe, fit

PROGRAM = "python -m experiments.scenes"
IOU = 0.5
PAPER_THRESHOLD = 0.2
THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
CENTER_SIDES = np.round(np.arange(0.1, 1.0, 0.05), 2)
EXAMPLES_SHOWN = 12
BATCH_SIZE = 64


@dataclass(frozen=True)
class Localizations:
    """What a network says of the n images of a source, at each of T thresholds.

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
    return np.asarray(camjax.box_iou(boxes, true_boxes)) >= IOU


def localize(model: camjax.models.CamModel, source: Source, batch_size: int = 100) -> Localizations:
    """Runs a network over a source, and draws the boxes at all `THRESHOLDS`."""
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
    return Localizations(*map(np.concatenate, of_images), np.concatenate(boxes, axis=1))


def center_boxes() -> np.ndarray:
    """(S, 4) squares in the middle, one for each of `CENTER_SIDES`."""
    low, high = (1 - CENTER_SIDES) / 2, (1 + CENTER_SIDES) / 2
    return np.stack([low, low, high, high], axis=-1)


def result_table(validation: Localizations, test: Localizations) -> tuple[Table, dict[str, float]]:
    """The table of the module's docstring, and its numbers (shares in 0..1) by name."""
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
    table = Table(
        "",
        f"CAM at {PAPER_THRESHOLD:.0%}",
        f"CAM at {THRESHOLDS[best]:.0%}",
        "center box",
        title=f"{len(test.labels)} test scenes that training never saw",
        box=boxes_of_rich.SIMPLE_HEAD,
    )
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("top-1 accuracy", *[f"{test.accuracy:.1%}"] * 2, "")
    for title, name in (("top-1 localization", "top1_localization"), ("GT-known localization", "gt_known")):
        table.add_row(title, *(f"{numbers[f'{name}_{column}']:.1%}" for column in ("20", "best", "center")))
    return table, numbers


def example_figure(source: Source, test: Localizations, threshold: float):
    """A figure of the first test images: maps of the true class, predicted and true boxes."""
    from camjax.viz import localization_figure

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


def main(
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/scenes"),
    images: Annotated[int, tyro.conf.arg(metavar="N")] = 15_000,
    pool: camjax.models.head.Pool = "gap",
    seed: int = 0,
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None,
) -> None:
    """Train a small network on scenes from class labels alone, and measure where its maps find the objects.

    Args:
      out: Where the run (checkpoints, metrics) and the figure go. The same command goes on where it stopped.
      images: Number of images that training sees; 6000 are one round through the training split.
      pool: Global average ("gap") or max ("gmp") pooling.
      seed: Of the initial weights and of the order of the images.
      data_dir: Where scenes is prepared; tfds' own place if not given.
    """
    console = Console(highlight=False)
    console.print(
        "Scenes are composites made by camjax: real handwritten digits (scikit-learn) in random size and place on real "
        "photographs of brick, grass and gravel (scikit-image). Their boxes follow from placement, and training does "
        "not see them: it sees images and labels.\n"
    )
    splits = {split: open_source("scenes", split, data_dir=data_dir) for split in ("train", "validation", "test")}
    info = splits["train"].info
    model = camjax.create_model("small_gap", info.num_classes, pool=pool, rngs=nnx.Rngs(seed))
    model.class_names = info.class_names
    steps = max(1, images // BATCH_SIZE)
    recipe = Recipe(
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rate=0.1,
        warmup_steps=steps // 10,
        weight_decay=5e-4,
        seed=seed,
    )
    augment = functools.partial(random_translation, max_shift=SIDE // 8)
    model = fit(model, splits["train"], recipe, run_dir=out, augment=augment)

    with console.status("drawing boxes"):
        validation, test = (localize(model, splits[split]) for split in ("validation", "test"))
    table, numbers = result_table(validation, test)
    console.print(table)
    console.print(
        "A box is right where its IoU with the true box is at least 0.5. Top-1 asks for the right class too, GT-known "
        f"gives it. CAM at {PAPER_THRESHOLD:.0%} of the map's maximum is the paper's rule; "
        f"{numbers['best_threshold']:.0%} is best on the validation split. The center box is a square in the middle "
        f"with {numbers['center_side']:.0%} of the image's side, which is best on the validation split too."
    )
    (out / "results.json").write_text(json.dumps(numbers, indent=2) + "\n")
    path = out / "localizations.png"
    example_figure(splits["test"], test, numbers["best_threshold"]).savefig(path)
    console.print(f"Saved {path}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, lambda: tyro.cli(main, prog=PROGRAM)))
