"""Networks of Flax NNX as explainers."""

import collections
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
from flax import nnx
from jax.typing import ArrayLike

from camjax.attribution.adapters.cutting import call, cut_at, in_place_of, layer_names, unknown_layer
from camjax.attribution.explainers import Explainer
from camjax.attribution.network import CutNetwork, SharedWeights
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
    ours = model if isinstance(model, CamModel) and forward is call else None
    return Explainer(_cut(model, layers, forward, reshape), combine, ours)


def nnx_cutter(model: nnx.Module, layers: str | Sequence[str]) -> Callable[[nnx.Module], CutNetwork]:
    """Cuts any network of the model's structure at layers; arguments and errors are those of `explain_nnx`.

    Returns:
      A function of a module with weights of its own, which may be traced. What it returns has one structure for all, so
      that other weights compile nothing.
    """
    network = _cut(model, layers, call)
    assert isinstance(network, SharedWeights)
    _, functions = network.tree_flatten()
    return lambda other: SharedWeights.of(*functions, nnx.split(inference_view(other))[1])


def nnx_layers(model: nnx.Module) -> dict[str, nnx.Module]:
    """The submodules that can be called, by their paths."""
    return {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path and callable(module)}


def nnx_map_sizes(model: nnx.Module, images: ArrayLike) -> dict[str, tuple[int, int]]:
    """The sizes (h, w) of the maps that submodules return, by their paths, in the order in which they return them.

    Those that are not called once, or return anything but a map, are left out. Nothing is computed.
    """
    names, weights, tapped = _tap(model, list(nnx_layers(model)))
    returned: list[tuple[str, tuple[int, ...]]] = []

    def note(name, output):
        returned.append((name, getattr(output, "shape", ())))
        return output

    def run(weights, images):
        model = tapped(weights, [functools.partial(note, name) for name in names])
        with keeps_its_state(model):
            return call(model, images)

    jax.eval_shape(run, weights, images)
    calls = collections.Counter(name for name, _ in returned)
    return {name: (shape[1], shape[2]) for name, shape in returned if calls[name] == 1 and len(shape) == 4}


def _tap(model, layers):
    """Names of layers, weights, and (weights, exchanges) -> the model with a function, or None, at each output."""
    names, known = layer_names(layers), nnx_layers(model)
    for name in names:
        if name not in known:
            raise unknown_layer(name, known, type(model).__name__)
    structure, weights = nnx.split(inference_view(model))
    # The explainer's own variables: those of the model change with it.
    weights = jax.tree.map(lambda array: array, weights)

    def tapped(weights, exchanges):
        model = nnx.merge(structure, weights, copy=True)
        layers = nnx_layers(model)
        for name, exchange in zip(names, exchanges, strict=True):
            # Python looks up `__call__` on the type: the layer gets a type of its own, and stays in its place in the
            # network, which may be an attribute, a list, or two of them.
            layer: Any = layers[name]
            layer.__class__ = _tapped(layer.__class__)
            layer.exchange = exchange
        return model

    return names, weights, tapped


def _cut(model, layers, forward, reshape=None):
    """The network cut at layers."""
    names, weights, tapped = _tap(model, layers)

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

    return cut_at(names, weights, capture, exchange, reshape)


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
