"""Compares TS-CAM with the class activation maps of the same small transformer on scenes, each with three seeds.

    PYTHONPATH=. python docs/tscam_scenes.py [--out runs/tscam_scenes] [--seeds 3] [--steps 2400]

As TS-CAM starts from a DeiT, a transformer first learns the classes by its class token, from random weights. From there
two networks train on alike, by AdamW for a quarter as many steps: in one TS-CAM's head takes the place of the class
token's; in the other the patches' tokens are averaged in front of a dense layer, and the maps are exact. A third
network averages from the start, for as many steps in all. The last row has the attention of TS-CAM's class token in
place of its maps, and so names no class.

It prints the rows of a table, means and standard deviations over the seeds, on the test images at the best thresholds.
The same command continues where it stopped. Cost: 19,800 steps, each of about a twelfth of a second of processor time.
"""

import argparse
import functools
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

import camjax
from camjax.cli.compilation_cache import keep_compiled_programs
from camjax.data.annotated import open_annotated
from camjax.data.scenes import SIDE
from camjax.data.transforms import random_translation
from camjax.evaluation import evaluate_localization
from camjax.files import write_whole
from camjax.models import CamModel, vit, vit_blocks, with_wsol
from camjax.training import Recipe, fit
from experiments.wsol.tables import mean_and_deviation

SHOWN = ("MaxBoxAccV2", "MaxBoxAcc", "top-1 accuracy")
ROWS = {
    "tscam": "`tscam`, from the class token's weights",
    "cam": "`cam`, from the class token's weights",
    "averaged": "`cam`, from random weights",
    "attention": "the attention in `tscam`, alone",
}

PATCH, WIDTH = 8, 64


def small(kind):
    """The constructor of a transformer for scenes."""
    rule = {"mean": (92.0,) * 3, "std": (37.0,) * 3, "channel_order": "rgb"}  # of the training images

    def build(num_classes: int = 10, *, rngs):
        return kind(num_classes, size="scenes", patch=PATCH, side=SIDE, input_rule=rule, rngs=rngs)

    return build


def with_random_weights(network: str, seed: int) -> CamModel:
    """A network with random weights, with which so narrow a transformer learns from few images.

    Kernels have a variance of one over their inputs, as the usual 0.0004 is for tokens of hundreds of numbers.
    Positions are sines and cosines of row and column (Beyer et al. 2022, arXiv:2205.01580), and are trained as well.
    """
    model = camjax.create_model(network, rngs=nnx.Rngs(seed))
    for path, weights in nnx.to_flat_state(nnx.state((model.patches, model.blocks), nnx.Param)):
        if path[-1] == "kernel":
            weights.set_value(weights[...] / (0.02 * math.sqrt(math.prod(weights.shape[:-1]))))
    angles = np.arange(SIDE // PATCH)[:, None] * 100.0 ** -np.linspace(0, 1, WIDTH // 4, endpoint=False)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    rows, columns = np.repeat(waves, len(waves), axis=0), np.tile(waves, (len(waves), 1))
    positions = np.pad(np.concatenate([rows, columns], axis=-1), ((1, 0), (0, 0)))
    model.positions.set_value(jnp.asarray(positions[None], jnp.float32))
    return model


def trained(model: CamModel, seed: int, steps: int, run_dir: Path) -> CamModel:
    """A network after its training, which continues where it stopped."""
    recipe = Recipe(
        steps=steps,
        batch_size=32,
        algorithm="adamw",
        learning_rate=1e-3,
        warmup_steps=min(100, steps // 4),
        weight_decay=0.05,
        seed=seed,
    )
    augment = functools.partial(random_translation, max_shift=SIDE // 8)
    return fit(model, open_annotated("scenes", "train"), recipe, run_dir=run_dir, augment=augment, checkpoint_every=300)


def model_of(row: str, seed: int, out: Path, steps: int) -> CamModel:
    """The trained network of a row of `ROWS`."""
    folder = out / f"{row}_{seed}"
    if row == "averaged":
        return trained(with_random_weights("scenes_vit_averaged", seed), seed, steps + steps // 4, folder)
    if row == "attention":
        model = nnx.clone(model_of("tscam", seed, out, steps))
        model.head.classes.kernel.set_value(jnp.zeros_like(model.head.classes.kernel[...]))
        model.head.classes.bias.set_value(jnp.ones_like(model.head.classes.bias[...]))  # every class's map is one
        return model
    classifier = trained(with_random_weights("scenes_vit", seed), seed, steps, out / f"classes_{seed}")
    if row == "tscam":
        model = with_wsol(classifier, "tscam", rngs=nnx.Rngs(seed))
    else:
        model = camjax.create_model("scenes_vit_averaged", rngs=nnx.Rngs(seed))
        for part in ("patches", "class_token", "positions", "blocks", "norm"):
            setattr(model, part, getattr(classifier, part))
    return trained(model, seed, steps // 4, folder)


def measured(row: str, seed: int, out: Path, steps: int) -> dict[str, float]:
    """The numbers of `SHOWN` in percent; they are kept in a file."""
    kept = out / f"{row}_{seed}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    model = model_of(row, seed, out, steps)
    test = open_annotated("scenes", "test")
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
    parser.add_argument("--steps", type=int, default=2400, help="of the class token's training")
    options = parser.parse_args()
    keep_compiled_programs()
    vit_blocks.SIZES["scenes"] = vit_blocks.Size(WIDTH, depth=3, heads=4, hidden=128)
    camjax.register_model("scenes_vit", small(vit.ClassToken))
    camjax.register_model("scenes_vit_averaged", small(vit.AveragedTokens))
    found = {row: [] for row in ROWS}
    for seed in range(options.seeds):
        for row, of_seeds in found.items():
            of_seeds.append(measured(row, seed, options.out, options.steps))
            print(f"{row}, seed {seed}: {of_seeds[-1]}", flush=True)
    print(f"| maps | {' | '.join(SHOWN)} |\n|{'---|' * (len(SHOWN) + 1)}")
    for row, of_seeds in found.items():
        cells = [mean_and_deviation([numbers[name] for numbers in of_seeds]) for name in SHOWN]
        print(f"| {ROWS[row]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    table()
