"""The search for hyperparameters: what is drawn for a trial, and how a trial is trained and scored."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from camjax.checks import num_classes
from camjax.cli.training_run import run_training, starting_model
from camjax.data.annotation import AnnotatedSource
from camjax.data.transforms import Transform
from camjax.errors import InputError
from camjax.models import CamModel, with_wsol
from camjax.models.shapes import model_shapes
from camjax.models.vit import VisionTransformer
from camjax.models.wsol.table import WSOL, new_layers
from camjax.terminal import Console
from camjax.training import Recipe, TrainingError
from camjax.training.published import tscam, wsol
from experiments.wsol.data import Dataset

NETWORKS = ("vgg16", "inception_v3", "resnet50")
LOG10_RATES = (-5.0, 0.0)
MAPS = (14, 28)
SCENES_EPOCHS = 2.5
SCENES_TRANSFORMER = (20.0, 1e-3, 0.05)
"""Epochs, AdamW's learning rate and weight decay, of a transformer from random weights."""


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What a trial trains with.

    Attributes:
      network: of the registry.
      learning_rate: of the layers that have ImageNet weights.
      wsol: the training method and its options, as in `camjax.create_model`.
    """

    network: str
    learning_rate: float
    wsol: Mapping[str, Any]


def network_names(network: str) -> tuple[str, ...]:
    """The networks of the registry that a name stands for: those of the benchmark have maps of two sizes."""
    if network in NETWORKS:
        return tuple(f"{network}_wsol{'_28x28' * (size == 28)}" for size in MAPS)
    return (network,)


def base_recipe(dataset: Dataset, network: str, num_examples: int) -> Recipe:
    """The benchmark's settings for a network of the registry; for other networks those of its ResNet-50.

    Vision transformers have those of TS-CAM. Scenes have settings of their own, those of `experiments.scenes`.
    """
    known = network in {name for of in NETWORKS for name in network_names(of)}
    transformer = not known and is_transformer(network)
    if dataset.settings == "scenes":
        epochs, rate, decay = SCENES_TRANSFORMER if transformer else (SCENES_EPOCHS, 0.1, 5e-4)
        steps = max(10, round(epochs * num_examples / 64))
        return Recipe(
            steps=steps,
            batch_size=64,
            algorithm="adamw" if transformer else "sgd",
            learning_rate=rate,
            warmup_steps=steps // 10,
            weight_decay=decay,
        )
    if transformer:
        return tscam(dataset.settings, num_examples=num_examples)
    recipe = wsol(network if known else "resnet50_wsol", dataset.settings, num_examples=num_examples)
    return recipe if known else dataclasses.replace(recipe, new_layers=("head",))


@functools.cache
def is_transformer(network: str) -> bool:
    """Whether a network of the registry is a vision transformer."""
    return isinstance(model_shapes(network), VisionTransformer)


def draw(
    seed: int, trial: int, network: str, method: str, fixed: Mapping[str, float], learning_rate: float | None
) -> Hyperparameters:
    """The hyperparameters of a trial, from the ranges that the benchmark searched.

    The learning rate is log-uniform in 1e-5..1, the map is 14 x 14 or 28 x 28, and `camjax.models.wsol.table` has the
    ranges of the methods' own. Each trial depends on its number and the seed alone.

    Args:
      seed: of the search.
      trial: number, from 0.
      network: as given.
      method: of `camjax.models.wsol.table.WSOL`.
      fixed: options of the method that are not drawn.
      learning_rate: one that is not drawn, or None.
    """
    random = np.random.default_rng((seed, trial))
    rate = 10 ** random.uniform(*LOG10_RATES)
    names = network_names(network)
    name = names[random.integers(len(names))]
    options = {**WSOL[method].draw(random), **fixed}
    return Hyperparameters(name, learning_rate or float(rate), {"method": method, **options})


def starting_point(
    parameters: Hyperparameters, recipe: Recipe, weights: str | None, train: AnnotatedSource, seed: int
) -> tuple[CamModel, Recipe]:
    """The network to train, with new layers, and the recipe of its training.

    Args:
      parameters: of the trial.
      recipe: for the network, with all that is not searched.
      weights: of the original network, trained on ImageNet, or "random".
      train: training images.
      seed: of new layers and draws, and of the order of the images.
    """
    model = starting_model(
        parameters.network,
        weights,
        train.info.num_classes,
        from_scratch=weights == "random",
        head="new",
        seed=seed,
    )
    model = with_wsol(model, parameters.wsol, rngs=nnx.Rngs(seed))
    num_classes(model)  # raises for a network without maps now, and not when it has been trained
    model.class_names = train.info.class_names
    places = new_layers(model, recipe.new_layers)
    rate = parameters.learning_rate
    return model, dataclasses.replace(recipe, learning_rate=rate, new_layers=places, seed=seed)


def train_in(
    directory: Path,
    model: CamModel,
    recipe: Recipe,
    train: AnnotatedSource,
    *,
    augment: Transform,
    workers: int,
    console: Console,
) -> CamModel | str:
    """Trains to the last step in a run directory, and continues an interrupted run; what is wrong if it diverges."""
    epoch = max(1, len(train) // recipe.batch_size)
    try:
        trained = run_training(
            model,
            train,
            recipe,
            out=directory,
            augment=augment,
            intervals=(epoch, epoch),
            console=console,
            workers=workers,
        )
    except TrainingError as error:
        return str(error)
    assert trained is not None  # as after a dry run
    return trained


def best_of(trials: Mapping[int, Mapping]) -> int:
    """The number of the trial with the best score; of equal ones the first.

    Raises:
      ValueError: no trial has a score.
    """
    scores = {number: trial["score"] for number, trial in trials.items() if trial["score"] is not None}
    if not scores:
        raise InputError(f"none of {len(trials)} trials trained to its end: give --trials more, or --learning-rate.")
    return max(scores, key=lambda number: (scores[number], -number))
