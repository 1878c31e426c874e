"""Training from class labels alone, in parallel over all devices, with checkpoints to resume from.

Recipes from publications are in `camjax.training.published`.
"""

from camjax.checkpoints import Checkpoints, TrainingError
from camjax.processes import initialize
from camjax.runs import load_run
from camjax.training import published
from camjax.training.accuracy import evaluate
from camjax.training.loop import fit
from camjax.training.losses import (
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
    balanced_class_weights,
    positive_weights,
)
from camjax.training.plan import Plan, describe_plan
from camjax.training.recipes import Recipe
from camjax.training.step import TrainState, eval_step, train_step

__all__ = [
    "Checkpoints",
    "Plan",
    "Recipe",
    "SigmoidBinaryCrossEntropy",
    "SoftmaxCrossEntropy",
    "TrainState",
    "TrainingError",
    "balanced_class_weights",
    "describe_plan",
    "eval_step",
    "evaluate",
    "fit",
    "initialize",
    "load_run",
    "positive_weights",
    "published",
    "train_step",
]
