"""What the recipe of `camjax.training.fine_tuning` reaches beside PyTorch, and what its settings are worth.

    python -m benchmarks.fine_tuning [--side 64] [--batch-size 32] [--epochs N] [--seeds 1] [VARIANT ...]

fine-tunes EfficientNet-Lite0 and prints the accuracy of each variant in percent, as rows of a Markdown table: the
recipe, changes of one setting at a time, and PyTorch's usual fine-tuning at several learning rates.

The classes are 17 photographs that scikit-image and scikit-learn ship: 170 cut-outs of one part of each photograph to
train on, and 510 of the other part to measure accuracy. All are blurred, turned, noisy and of changed colors at random.
Each seed draws other cut-outs, another head and another order; all variants have the same cut-outs and, but for the
shorter one, as many steps.
Some 8 minutes of processor time for a seed of all variants.
"""

import argparse
import functools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from flax import nnx
from skimage import data, io
from sklearn.datasets import load_sample_image

import camjax
from benchmarks import fine_tuning_torch
from camjax.training import Recipe, evaluate, fit
from camjax.training.fine_tuning import EPOCHS, fine_tuning, fine_tuning_augmentation

PHOTOGRAPHS = (
    *(data.brick, data.grass, data.gravel, data.camera, data.coins, data.moon, data.page, data.coffee, data.chelsea),
    *(data.astronaut, data.rocket, data.retina, data.immunohistochemistry, data.hubble_deep_field),
    lambda: io.imread(f"{data.data_dir}/motorcycle_left.png"),
    lambda: load_sample_image("china.jpg"),
    lambda: load_sample_image("flower.jpg"),
)
TRAIN, VALIDATION = 10, 30  # cut-outs of each photograph
_SPLIT = 0.55  # where a photograph is cut in two, as a share of its longer side
PYTORCH_RATES = (0.003, 0.01, 0.03)


Run = Callable[[Recipe, list[dict], list[dict]], float]
"""Of a recipe, on examples to train on and to measure with: accuracy in percent."""


def variants(num_examples: int, batch_size: int = 32, epochs: float | None = None) -> dict[str, tuple[Recipe, Run]]:
    """Name -> recipe, and what runs it."""
    recipe = fine_tuning(num_examples, batch_size=batch_size, epochs=epochs)
    short = fine_tuning(num_examples, batch_size=batch_size, epochs=EPOCHS)
    return {
        "the recipe": (recipe, by_camjax),
        f"only {EPOCHS} epochs": (short, by_camjax),
        "only the head (`--freeze backbone`)": (replace(recipe, frozen=("backbone",)), by_camjax),
        "averaged weights (`--ema-decay 0.99`)": (replace(recipe, ema_decay=0.99), by_camjax),
        "three times the learning rate": (replace(recipe, learning_rate=3 * recipe.learning_rate), by_camjax),
        "PyTorch by the same recipe": (recipe, fine_tuning_torch.by_recipe),
        **{
            f"PyTorch as usual, learning rate {rate}": (
                recipe,
                functools.partial(fine_tuning_torch.usual, learning_rate=rate),
            )
            for rate in PYTORCH_RATES
        },
    }


def cut_outs(seed: int, side: int, photographs: Sequence = PHOTOGRAPHS) -> tuple[list[dict], list[dict]]:
    """Examples to train on and to measure with, from disjoint parts of photographs: (side, side, 3) uint8 images."""
    train: list[dict] = []
    validation: list[dict] = []
    for label, read in enumerate(photographs):
        photograph = read()
        photograph = photograph if photograph.ndim == 3 else np.repeat(photograph[..., None], 3, axis=-1)
        axis = int(np.argmax(photograph.shape[:2]))
        parts = np.split(photograph, [int(_SPLIT * photograph.shape[axis])], axis)
        for number, (examples, part, count) in enumerate(
            zip((train, validation), parts, (TRAIN, VALIDATION), strict=True)
        ):
            rng = np.random.default_rng((seed, number, label))
            examples += [{"image": _cut_out(part, side, rng), "label": label} for _ in range(count)]
    return train, validation


def _cut_out(part: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    extent = int(min(part.shape[:2]) * rng.uniform(0.25, 0.6))
    y, x = (rng.integers(0, length - extent, endpoint=True) for length in part.shape[:2])
    image = cv2.resize(part[y : y + extent, x : x + extent], (side, side), interpolation=cv2.INTER_AREA)
    image = image.astype(np.float32)
    gray = image.mean(axis=-1, keepdims=True)
    image = (gray + (image - gray) * rng.uniform(0, 1)) * rng.uniform(0.7, 1, size=3)
    image = (image - 128) * rng.uniform(0.4, 1.1) + 128 * rng.uniform(0.6, 1.4)
    image = np.rot90(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 2.0)), rng.integers(4))
    image = image + rng.normal(0, rng.uniform(0, 15), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def by_camjax(recipe: Recipe, train: list[dict], validation: list[dict]) -> float:
    """Accuracy after a run of camjax, in percent."""
    side, num_classes = len(train[0]["image"]), 1 + max(example["label"] for example in train)
    with warnings.catch_warnings(action="ignore"):  # the new head is meant
        model = camjax.load_model("efficientnet_lite0", num_classes=num_classes, rngs=nnx.Rngs(recipe.seed))
    model.input_size = (side, side)
    model = fit(model, train, recipe, augment=fine_tuning_augmentation(side), progress=False)
    found = evaluate(model, validation, batch_size=30)
    assert found is not None, "nothing stops it"
    return 100 * found["accuracy"]


def measured(
    names: Sequence[str] = (),
    *,
    seeds: int = 1,
    side: int = 64,
    photographs: Sequence = PHOTOGRAPHS,
    batch_size: int = 32,
    epochs: float | None = None,
) -> dict[str, list[float]]:
    """Prints the table of the variants whose names have one of `names` in them, all if there are none.

    Returns:
      Name of a variant -> accuracy for each seed, in percent.
    """
    print(
        "| variant | steps | accuracy, % | for each seed | processor time of a run, s |\n|---|---|---|---|---|",
        flush=True,
    )
    found = {}
    for name, (recipe, run) in variants(TRAIN * len(photographs), batch_size, epochs).items():
        if names and not any(part in name for part in names):
            continue
        began = time.process_time()
        found[name] = [run(replace(recipe, seed=seed), *cut_outs(seed, side, photographs)) for seed in range(seeds)]
        seconds = (time.process_time() - began) / seeds
        spread = f" ± {np.std(found[name], ddof=1):.1f}" if seeds > 1 else ""
        each = ", ".join(f"{value:.1f}" for value in found[name])
        print(f"| {name} | {recipe.steps} | {np.mean(found[name]):.1f}{spread} | {each} | {seconds:.0f} |", flush=True)
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help="parts of their names; all if not given")
    parser.add_argument("--side", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=float, help="as in `camjax train`; as many as its recipe has if not given")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each variant; ± is their standard deviation")
    options = parser.parse_args()
    settings = vars(options)
    measured(settings.pop("variants"), **settings)


if __name__ == "__main__":
    main()
