"""Networks of Flax NNX as explainers."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
from flax import nnx

from camjax.attribution.adapters.cutting import call, layer_names, unknown_layer
from camjax.attribution.explainers import Explainer
from camjax.attribution.module_layers import cut_module, layers_of
from camjax.models.base import CamModel


def explain_nnx(
    model: nnx.Module,
    layers: str | Sequence[str],
    *,
    forward: Callable[[nnx.Module, jax.Array], jax.Array] = call,
    reshape: Callable[[jax.Array], jax.Array] | None = None,
    combine: Literal["mean", "max"] = "mean",
) -> Explainer:
    """Explains a network of NNX at any of its layers.

    Args:
      model: any module. It runs in inference mode (no dropout, BatchNorm at its running statistics), and is not
        changed. The explainer has its weights as they are now. An argument of its `__call__` that tells the mode
        (`train`, `training`, `is_training`, `deterministic`, `use_running_average`) is given, too.
      layers: the path of a submodule, as "layer4.1" or "blocks.3.mlp", whose output is (B, h, w, K); or several paths.
        A submodule is called once, by `__call__`, when the network runs.
      forward: (model, images) -> outputs (B, ...), each image's from that image alone; `model(images)` by default.
        Choose the output to explain here, if there are several: `lambda model, images: model(images)["logits"]`.
      reshape: turns a layer's output that is not a map into one; see `camjax.attribution.reshape_tokens`.
      combine: how maps of several layers become one; see `camjax.attribution.combine_layers`.

    Returns:
      The explainer.

    Raises:
      ValueError: a layer that the model does not have; at a call, one that is not called, is called more than once, or
        does not return a map, or a network that runs for training.
    """
    names, known = layer_names(layers), layers_of(model)
    for name in names:
        if name not in known:
            raise unknown_layer(name, known, type(model).__name__)
    ours = model if isinstance(model, CamModel) and forward is call else None
    return Explainer(cut_module(model, names, forward, reshape), combine, ours)
