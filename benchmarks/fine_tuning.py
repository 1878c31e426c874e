"""What the settings of `camjax.training.fine_tuning` are worth: the recipe, and changes of one setting at a time.

    python -m benchmarks.fine_tuning [--side 64] [--seeds 1] [VARIANT ...]

fine-tunes EfficientNet-Lite0 and prints the accuracy of each variant in percent, as rows of a Markdown table.

The classes are 17 photographs that scikit-image and scikit-learn ship: 170 cut-outs of one part of each photograph to
train on, and 510 of the other part to measure accuracy. All are blurred, turned, noisy and of changed colors at random.
Some 12 minutes of processor time for a seed of all variants.
"""

import argparse
import time
import warnings
from dataclasses import replace

import cv2
import numpy as np
from flax import nnx
from skimage import data, io
from sklearn.datasets import load_sample_image

import camjax
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
_EXAMPLES = TRAIN * len(PHOTOGRAPHS)


def variants() -> dict[str, tuple[Recipe, float | None]]:
    """Name -> recipe, and the momentum of BatchNorm's statistics, None for the network's own."""
    recipe = fine_tuning(_EXAMPLES)
    usual = replace(recipe, freeze_batchnorm=False, learning_rate=3 * recipe.learning_rate)
    return {
        "the recipe": (recipe, None),
        f"only {EPOCHS} epochs": (fine_tuning(_EXAMPLES, epochs=EPOCHS), None),
        "only the head (`--freeze backbone`)": (replace(recipe, frozen=("backbone",)), None),
        "averaged weights, `ema_decay=0.99`": (replace(recipe, ema_decay=0.99), None),
        "three times the learning rate": (replace(recipe, learning_rate=3 * recipe.learning_rate), None),
        "ten times the learning rate": (replace(recipe, learning_rate=10 * recipe.learning_rate), None),
        "BatchNorm trained, three times the learning rate": (usual, None),
        "BatchNorm trained so, with statistics of about 10 steps": (usual, 0.9),
    }


def cut_outs(seed: int, side: int) -> tuple[list[dict], list[dict]]:
    """Examples to train on and to measure with, from disjoint parts of photographs: (side, side, 3) uint8 images."""
    train: list[dict] = []
    validation: list[dict] = []
    for label, read in enumerate(PHOTOGRAPHS):
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


def accuracy(recipe: Recipe, momentum: float | None, seed: int, side: int) -> float:
    """Accuracy after a run, in percent."""
    train, validation = cut_outs(seed, side)
    with warnings.catch_warnings(action="ignore"):  # the new head is meant
        model = camjax.load_model("efficientnet_lite0", num_classes=len(PHOTOGRAPHS), rngs=nnx.Rngs(seed))
    model.input_size = (side, side)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm) and momentum is not None:
            module.momentum = momentum
    augment = fine_tuning_augmentation(model.input_size)
    model = fit(model, train, replace(recipe, seed=seed), augment=augment, progress=False)
    found = evaluate(model, validation, batch_size=30)
    assert found is not None, "nothing stops it"
    return 100 * found["accuracy"]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", help="parts of their names; all if not given")
    parser.add_argument("--side", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    print("| variant | steps | accuracy, % | processor time of a run, s |\n|---|---|---|---|")
    for name, (recipe, momentum) in variants().items():
        if options.variants and not any(part in name for part in options.variants):
            continue
        began = time.process_time()
        found = [accuracy(recipe, momentum, seed, options.side) for seed in range(options.seeds)]
        seconds = (time.process_time() - began) / options.seeds
        print(f"| {name} | {recipe.steps} | {np.mean(found):.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
