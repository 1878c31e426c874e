"""Compares TS-CAM with the class activation maps of the same small transformer on scenes, each with three seeds.

    PYTHONPATH=. python docs/tscam_scenes.py [--out runs/tscam_scenes] [--seeds 3] [--epochs 60]

Both networks have the same blocks and train alike, by AdamW from random weights. In one a class token is there for
TS-CAM; in the other the patches' tokens are averaged in front of a dense layer, and the maps are exact. It prints the
rows of a table, means and standard deviations over the seeds, on the test images at the best thresholds. The same
command continues where it stopped. Cost: six trainings of 5,580 steps, each of about a fifth of a second of processor
time; a transformer without pretrained weights learns these scenes slowly, if at all in fewer.
"""

import argparse
import functools
import json
from pathlib import Path

from flax import nnx

import camjax
from camjax.cli.compilation_cache import keep_compiled_programs
from camjax.data.annotated import open_annotated
from camjax.data.scenes import SIDE
from camjax.data.transforms import random_translation
from camjax.evaluation import evaluate_localization
from camjax.files import write_whole
from camjax.models import vit, vit_blocks, with_wsol
from camjax.training import Recipe, fit
from experiments.wsol.tables import mean_and_deviation

SHOWN = ("MaxBoxAccV2", "MaxBoxAcc", "top-1 accuracy")
NETWORKS = {"cam": "scenes_vit_averaged", "tscam": "scenes_vit"}
"""Method of training -> the network that it trains."""

BATCH_SIZE = 64


def small(kind):
    """The constructor of a transformer for images of 64 x 64 pixels, with patches of 8 x 8."""
    rule = {"mean": (127.5,) * 3, "std": (127.5,) * 3, "channel_order": "rgb"}

    def build(num_classes: int = 10, *, rngs):
        return kind(num_classes, size="scenes", patch=8, side=SIDE, input_rule=rule, rngs=rngs)

    return build


def measured(method: str, seed: int, out: Path, epochs: float) -> dict[str, float]:
    """The numbers of `SHOWN` in percent; they are kept in a file of `out`."""
    kept = out / "results.json"
    if kept.exists():
        return json.loads(kept.read_text())
    train, test = (open_annotated("scenes", split) for split in ("train", "test"))
    model = camjax.create_model(NETWORKS[method], train.info.num_classes, rngs=nnx.Rngs(seed))
    model = with_wsol(model, method, rngs=nnx.Rngs(seed))
    model.class_names = train.info.class_names
    epoch = len(train) // BATCH_SIZE
    steps = round(epochs * epoch)
    recipe = Recipe(
        steps=steps,
        batch_size=BATCH_SIZE,
        algorithm="adamw",
        learning_rate=1e-3,
        warmup_steps=steps // 10,
        weight_decay=0.05,
        seed=seed,
    )
    augment = functools.partial(random_translation, max_shift=SIDE // 8)
    model = fit(model, train, recipe, run_dir=out / "run", augment=augment, checkpoint_every=5 * epoch)
    metrics = evaluate_localization(model, test, metrics=["ilsvrc", "maxboxacc", "maxboxaccv2"]).metrics["cam"]
    numbers = {name: metrics[name.lower()].compute()[name] for name in SHOWN[:2]}
    numbers[SHOWN[2]] = 100 - metrics["ilsvrc"].compute()["top1_classification_error"]
    write_whole(kept, json.dumps(numbers))
    return numbers


def table() -> None:
    """Trains, and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tscam_scenes"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=60)
    options = parser.parse_args()
    keep_compiled_programs()
    vit_blocks.SIZES["scenes"] = vit_blocks.Size(64, 4, 2, 128)
    camjax.register_model("scenes_vit", small(vit.ClassToken))
    camjax.register_model("scenes_vit_averaged", small(vit.AveragedTokens))
    found = {method: [] for method in NETWORKS}
    for seed in range(options.seeds):
        for method, of_seeds in found.items():
            of_seeds.append(measured(method, seed, options.out / f"{method}_{seed}", options.epochs))
            print(f"{method}, seed {seed}: {of_seeds[-1]}", flush=True)
    print(f"| method | {' | '.join(SHOWN)} |\n|{'---|' * (len(SHOWN) + 1)}")
    for method, of_seeds in found.items():
        cells = [mean_and_deviation([numbers[name] for numbers in of_seeds]) for name in SHOWN]
        print(f"| `{method}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    table()
