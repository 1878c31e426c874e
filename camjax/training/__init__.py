"""Training from class labels alone, in parallel over all devices, with checkpoints that bring a run back."""

from camjax.training.checkpoints import Checkpoints
from camjax.training.evaluation import evaluate
from camjax.training.fit import TrainingError, fit
from camjax.training.recipes import Recipe
from camjax.training.runs import load_run
from camjax.training.step import TrainState, eval_step, train_step

__all__ = [
    "Checkpoints",
    "Recipe",
    "TrainState",
    "TrainingError",
    "eval_step",
    "evaluate",
    "fit",
    "load_run",
    "train_step",
]
