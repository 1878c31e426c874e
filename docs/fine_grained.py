"""Measures how often maps lie on the part that tells a class from its look-alikes: CAM's, and Finer-CAM's.

    PYTHONPATH=. python docs/fine_grained.py [--out runs/fine_grained] [--seeds 5]

For each seed it trains `small_gap` on the built-in *look_alikes* from class labels alone, and computes the maps of the
true classes of the 630 test images. Two numbers say where they lie: how often the largest value is in the part's box
(the pointing game, without tolerance), and which share of the positive values is (relevance mass). It prints the rows
of a table: means over the seeds with 95 % intervals, and the differences to CAM, seed by seed. The same command
continues where it stopped. Cost: five trainings of 10,000 images.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flax import nnx
from scipy import stats

import camjax
from camjax.attribution import targets
from camjax.data.annotated import open_annotated
from camjax.data.loader import eval_batches
from camjax.data.look_alikes import CLASS_NAMES, MARGIN, family_members
from camjax.data.sources import open_source
from camjax.data.transforms import random_translation
from camjax.metrics import PointingGame, Relevance
from camjax.training import Recipe, fit
from experiments.common.stages import Stages

STEPS, BATCH_SIZE = 156, 64
MAPS = {
    "CAM": lambda explain, images, labels: explain(images, labels, "cam"),
    "Finer-CAM, the three closest outputs": lambda explain, images, labels: explain(images, labels, "finercam"),
    "Finer-CAM, the rest of the family": lambda explain, images, labels: explain(
        images, targets.finer(labels, similar=family_members(labels)), "gradcam"
    ),
}


def trained(seed: int, out: Path) -> camjax.models.CamModel:
    """A network with the recipe of `experiments.scenes`."""
    model = camjax.create_model("small_gap", len(CLASS_NAMES), rngs=nnx.Rngs(seed))
    recipe = Recipe(
        steps=STEPS,
        batch_size=BATCH_SIZE,
        learning_rate=0.1,
        warmup_steps=STEPS // 10,
        weight_decay=5e-4,
        seed=seed,
    )
    augment = functools.partial(random_translation, max_shift=MARGIN)
    train = open_source("look_alikes", "train")
    return fit(model, train, recipe, run_dir=out / str(seed), augment=augment, checkpoint_every=100, progress=False)


def on_the_part(maps: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """In percent: how many maps (B, h, w) have their maximum in the box (B, 4), and the mean share of each in it."""
    found = {}
    for metric in (PointingGame(tolerance=0), Relevance()):
        metric.update(maps, boxes, image_sizes=size)
        found |= metric.compute()
    return {name: found[name] for name in ("pointing_game", "relevance_mass")}


def numbers(model: camjax.models.CamModel) -> dict[str, dict[str, float]]:
    """Those of all `MAPS`, and the accuracy of the classes, on the test images."""
    test = open_annotated("look_alikes", "test")
    boxes = np.concatenate([test.annotation(i).boxes for i in range(len(test))])
    explain = camjax.explainer(model.features, model.head)
    right, maps = [], {name: [] for name in MAPS}
    for batch in eval_batches(test, batch_size=90):
        images, labels = batch["image"], batch["label"]
        for name, of_name in MAPS.items():
            found = of_name(explain, images, labels)
            maps[name].append(np.asarray(found.maps)[:, 0][batch["mask"]])
        right.append((np.asarray(found.outputs).argmax(-1) == labels)[batch["mask"]])
    measured = {name: on_the_part(np.concatenate(of), boxes, model.input_size) for name, of in maps.items()}
    return {**measured, "accuracy": {"accuracy": 100 * float(np.concatenate(right).mean())}}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the half-width of its 95 % interval by Student's t."""
    spread = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return float(np.mean(values)), float(spread)


def main() -> None:
    """Trains, measures, and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/fine_grained"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    stages = Stages(options.out)
    settings = {"steps": STEPS, "batch_size": BATCH_SIZE, "maps": list(MAPS)}
    runs = [
        stages.run(f"seed {seed}", settings, lambda seed=seed: numbers(trained(seed, options.out)))
        for seed in range(options.seeds)
    ]
    print("Accuracy of the classes: {:.1f} ± {:.1f}".format(*interval([run["accuracy"]["accuracy"] for run in runs])))
    heads = ("maps", "largest value on the part", "more than CAM", "share on the part", "more than CAM")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in MAPS:
        cells = []
        for number in ("pointing_game", "relevance_mass"):
            values = np.array([run[name][number] for run in runs])
            of_cam = np.array([run["CAM"][number] for run in runs])
            cells.append("{:.1f} ± {:.1f}".format(*interval(values)))
            cells.append("" if name == "CAM" else "{:.1f} ± {:.1f}".format(*interval(values - of_cam)))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
