"""Networks of Flax NNX as explainers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
from flax import nnx

from camjax.attribution.adapters.cutting import call, cut_at, in_place_of, layer_names, unknown_layer
from camjax.attribution.explainers import Explainer
from camjax.models.base import CamModel
from camjax.models.inference_mode import inference_view, keeps_its_state


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
    names, known = layer_names(layers), _layers(model)
    for name in names:
        if name not in known:
            raise unknown_layer(name, known, type(model).__name__)
    structure, weights = nnx.split(inference_view(model))
    # The explainer's own variables: those of the model change with it.
    weights = jax.tree.map(lambda array: array, weights)

    def tapped(weights, exchanges):
        model = nnx.merge(structure, weights, copy=True)
        layers = _layers(model)
        for name, exchange in zip(names, exchanges, strict=True):
            # Python looks up `__call__` on the type: the layer gets a type of its own, and stays in its place in the
            # network, which may be an attribute, a list, or two of them.
            layer: Any = layers[name]
            layer.__class__ = _tapped(layer.__class__)
            layer.exchange = exchange
        return model

    def capture(weights, images):
        model = tapped(weights, [None] * len(names))
        with keeps_its_state(model):
            _, captured = nnx.capture(forward, _Output)(model, images)
        found = {".".join(map(str, path[:-1])): outputs for path, outputs in nnx.to_flat_state(captured)}
        return [found[name].get_value() if name in found else () for name in names]

    def exchange(weights, images, features):
        exchanges = [functools.partial(in_place_of, features=array, layers=len(names)) for array in features]
        model = tapped(weights, exchanges)
        with keeps_its_state(model):
            return forward(model, images)

    ours = model if isinstance(model, CamModel) and forward is call else None
    return Explainer(cut_at(names, weights, capture, exchange, reshape), combine, ours)


class _Output(nnx.Variable):
    """A layer's outputs, one for each call."""


@functools.cache  # NNX keeps every type it has seen
def _tapped(layer_type: type) -> type:
    """A type whose `__call__` keeps the layer's output, or replaces it."""

    def __call__(self, *args, **kwargs):
        output = layer_type.__call__(self, *args, **kwargs)
        if self.exchange is not None:
            return self.exchange(output)
        self.sow(_Output, "output", output)
        return output

    return type(layer_type)(layer_type.__name__, (layer_type,), {"__call__": __call__})


def _layers(model: nnx.Module) -> dict[str, nnx.Module]:
    """The submodules that can be called, by their paths."""
    return {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path and callable(module)}
