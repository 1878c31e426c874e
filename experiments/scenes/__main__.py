"""A small network trained from class labels alone, and where its class activation maps find the objects.

    python -m experiments.scenes            # about two minutes on two CPU cores; in one process alone

The data set *scenes* is made by camjax itself: a real handwritten digit in random size and place on a real
photograph of brick, grass or gravel. These are composites, not photographs of digits; their boxes are exact because
they follow from where the digit was put. Training sees images and labels, never a box. (`experiments.scene_objects` is
about another kind of scene: bathrooms, streets and other places.)

The table follows table 2 and section 3.2 of Zhou et al. 2016: a localization is right if its box has IoU >= 0.5 with
the true box. Top-1 localization uses the box of the predicted class, which must be the right class as well; GT-known
localization uses the box of the true class. The box encloses the largest connected part of the map above a share of its
maximum: 20 %, the paper's rule, or the share that is best on the validation split, which is then used on the test
split. The center box ignores the image: it is a square in the middle, with the side that is best on the validation
split.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from flax import nnx

import camjax
from camjax.cli.options import Count, Folder, OptionalFolder, at_least_one
from camjax.data.scenes import SIDE
from camjax.data.sources import open_source
from camjax.data.transforms import random_translation
from camjax.errors import InputError
from camjax.models.head import Pool
from camjax.processes import started_in_many
from camjax.terminal import Console
from camjax.training import Recipe, fit
from experiments.common.command import start
from experiments.scenes.localization import PAPER_THRESHOLD, example_figure, localize, results

BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a small network on scenes from class labels alone, and measure where its maps find the objects.

    Attributes:
      out: Where the run (checkpoints, metrics) and the figure go. The same command continues where it stopped.
      images: Number of images that training sees; 6000 are one epoch.
      pool: Global average ("gap") or max ("gmp") pooling.
      seed: Seed of the initial weights and of the order of the images.
      data_dir: Where scenes is prepared; tensorflow-datasets' default if not given.
    """

    out: Folder = Path("runs/scenes")
    images: Count = 15_000
    pool: Pool = "gap"
    seed: Count = 0
    data_dir: OptionalFolder = None

    def __post_init__(self):
        at_least_one(self, "images")


def main(options: Options) -> None:
    """Trains, measures and draws."""
    if started_in_many():
        raise InputError("this trial of two minutes works in one process alone, and several were started: start one.")
    console = Console()
    console.print(
        "Scenes are composites made by camjax: real handwritten digits (scikit-learn) in random size and place on real "
        "photographs of brick, grass and gravel (scikit-image). Their boxes follow from placement, and training does "
        "not see them: it sees images and labels.\n"
    )
    splits = {
        split: open_source("scenes", split, data_dir=options.data_dir) for split in ("train", "validation", "test")
    }
    info = splits["train"].info
    model = camjax.create_model("small_gap", info.num_classes, pool=options.pool, rngs=nnx.Rngs(options.seed))
    model.class_names = info.class_names
    steps = max(1, options.images // BATCH_SIZE)
    recipe = Recipe(
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rate=0.1,
        warmup_steps=steps // 10,
        weight_decay=5e-4,
        seed=options.seed,
    )
    augment = functools.partial(random_translation, max_shift=SIDE // 8)
    model = fit(model, splits["train"], recipe, run_dir=options.out, augment=augment)

    with console.status("drawing boxes"):
        validation, test = (localize(model, splits[split]) for split in ("validation", "test"))
    table, numbers = results(validation, test)
    console.print(table)
    console.print(
        "A box is right where its IoU with the true box is at least 0.5. Top-1 asks for the right class too, GT-known "
        f"gives it. CAM at {PAPER_THRESHOLD:.0%} of the map's maximum is the paper's rule; "
        f"{numbers['best_threshold']:.0%} is best on the validation split. The center box is a square in the middle "
        f"with {numbers['center_side']:.0%} of the image's side, which is best on the validation split too."
    )
    (options.out / "results.json").write_text(json.dumps(numbers, indent=2) + "\n")
    path = options.out / "localizations.png"
    example_figure(splits["test"], test, numbers["best_threshold"]).savefig(path)
    console.print(f"Saved {path}", soft_wrap=True)


if __name__ == "__main__":
    start("scenes", main, Options)
