"""Measures the table of docs/reproducing_cub.md: what each convention is worth, on the built-in scenes.

    python docs/reproducing_cub.py [--out runs/conventions]

It trains `small_gap` for each of three seeds on scenes that are cut to 64 x 48 pixels, so that squashing and cropping
differ, and evaluates the 600 test images by every convention: about ten minutes on two idle cores.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import numpy as np
from flax import nnx

import camjax
from camjax.data.annotated import open_annotated
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.scenes import SIDE
from camjax.data.transforms import random_translation
from camjax.evaluation.runner import evaluate_localization
from camjax.training import Recipe, fit

HEIGHT = 48
STEPS = 234


class Oblong(AnnotatedSource):
    """Scenes without some of their rows, at the top and at the bottom; the digit stays whole.

    Args:
      split: of scenes.
      pixels_more: how many pixels on a grid of 224 the far sides of the boxes for MaxBoxAcc are moved out.
    """

    def __init__(self, split: str, pixels_more: int = 0):
        self._source, self._more = open_annotated("scenes", split), pixels_more
        self.info, self.has_boxes = self._source.info, True

    def __getitem__(self, index: int) -> dict:
        example = self._source[index]
        top, _ = self._top(index)
        return {**example, "image": example["image"][top : top + HEIGHT]}

    def annotation(self, index: int) -> Annotation:
        """The scene's annotation, with its box in the cut image."""
        whole = self._source.annotation(index)
        top, (y0, x0, y1, x1) = self._top(index)
        box = np.array([[(y0 - top) / HEIGHT, x0 / SIDE, (y1 - top) / HEIGHT, x1 / SIDE]], np.float32)
        wsol = np.minimum(box + np.array([0, 0, self._more, self._more]) / 224, 1).astype(np.float32)
        return dataclasses.replace(whole, boxes=box, wsol_boxes=wsol)

    def _top(self, index: int) -> tuple[int, np.ndarray]:
        """The first row, and the box in pixels of the scene."""
        box = np.rint(self._source.annotation(index).boxes[0] * SIDE).astype(int)
        low, high = max(0, box[2] - HEIGHT), min(box[0], SIDE - HEIGHT)
        return int(np.random.default_rng(index).integers(low, high + 1)), box


def trained(seed: int, out: Path) -> camjax.models.CamModel:
    """A network of scenes' usual recipe."""
    model = camjax.create_model("small_gap", 10, rngs=nnx.Rngs(seed))
    recipe = Recipe(
        steps=STEPS, batch_size=64, learning_rate=0.1, warmup_steps=STEPS // 10, weight_decay=5e-4, seed=seed
    )
    augment = functools.partial(random_translation, max_shift=SIDE // 8)
    return fit(model, Oblong("train"), recipe, run_dir=out / str(seed), augment=augment)


def numbers(model: camjax.models.CamModel) -> dict[str, float]:
    """Every convention's number, in percent."""
    metrics = ("ilsvrc", "maxboxacc", "maxboxaccv2", "thresholds")
    test, validation, coarse, wider = (
        evaluate_localization(model, source, metrics=metrics, threshold_step=step).metrics["cam"]
        for source, step in (
            (Oblong("test"), 0.001),
            (Oblong("validation"), 0.001),
            (Oblong("test"), 0.01),
            (Oblong("test", pixels_more=1), 0.001),
        )
    )
    cropped = evaluate_localization(model, Oblong("test"), metrics=("ilsvrc",), crop="center").metrics["cam"]
    found, ilsvrc = {name: metric.compute() for name, metric in test.items()}, test["ilsvrc"].compute()
    of_validation, curve = validation["maxboxacc"].curve()["MaxBoxAcc_50"], test["maxboxacc"].curve()["MaxBoxAcc_50"]
    best_of_validation = validation["thresholds"].curve().gt_known_localization.argmax()
    return {
        "MaxBoxAccV2: all contours, mean of IoU 0.3, 0.5, 0.7": found["maxboxaccv2"]["MaxBoxAccV2"],
        "  at IoU 0.5": found["maxboxaccv2"]["MaxBoxAccV2_50"],
        "MaxBoxAcc: the largest contour, IoU 0.5": found["maxboxacc"]["MaxBoxAcc"],
        "  true boxes one pixel of 224 wider": wider["maxboxacc"].compute()["MaxBoxAcc"],
        "  thresholds in steps of 0.01": coarse["maxboxacc"].compute()["MaxBoxAcc"],
        "  at the threshold that is best on validation": float(curve[of_validation.argmax()]),
        "GT-known, largest component of the map above a share of its maximum: best share": found["thresholds"][
            "best_gt_known_localization"
        ],
        "  the share that is best on validation": float(
            test["thresholds"].curve().gt_known_localization[best_of_validation]
        ),
        "  a share of 20 %": ilsvrc["gt_known_localization"],
        "  a share of 20 %, center crop": cropped["ilsvrc"].compute()["gt_known_localization"],
        "Top-1 localization: the predicted class, which has to be right": 100 - ilsvrc["top1_localization_error"],
    }


def main() -> None:
    """Trains, measures, and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/conventions"))
    out = parser.parse_args().out
    rows = [numbers(trained(seed, out)) for seed in range(3)]
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"| {name} | {np.mean(values):.1f} | {', '.join(f'{value:.1f}' for value in values)} |")


if __name__ == "__main__":
    main()
