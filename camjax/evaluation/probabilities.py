"""The probabilities of a network's classes, for metrics that run it on changed images."""

import jax
from flax import nnx
from jax.tree_util import Partial

from camjax.cam import class_probabilities
from camjax.models.inference_mode import inference_view, run_for_inference
from camjax.models.layers import fold_batchnorm


def probabilities_fn(model: nnx.Module) -> Partial:
    """(b, H, W, 3) images -> (b, C) probabilities, with a snapshot of the model's weights, its BatchNorm folded."""
    return Partial(_probabilities, inference_view(fold_batchnorm(model)))


def _probabilities(model: nnx.Module, images: jax.Array) -> jax.Array:
    return class_probabilities(run_for_inference(model, images), getattr(model, "multi_label", False))
