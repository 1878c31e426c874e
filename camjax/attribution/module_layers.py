"""Layers inside a network of NNX: cut at by their names, or found by what they are."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.attribution.adapters.cutting import cut_at, in_place_of
from camjax.attribution.network import CutNetwork, Whole
from camjax.models.inference_mode import inference_view, keeps_its_state


def layers_of(model: nnx.Module) -> dict[str, nnx.Module]:
    """The submodules that can be called, by their paths."""
    return {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path and callable(module)}


def cut_module(
    model: nnx.Module, names: Sequence[str], run: Callable[[Any, jax.Array], jax.Array], reshape: Any = None
) -> CutNetwork:
    """A module cut at some of its layers.

    Args:
      model: is not changed; the network has its weights as they are now.
      names: of `layers_of(model)`.
      run: (model, images) -> outputs.
      reshape: see `camjax.attribution.reshaped`; None where the layers give maps.
    """
    structure, weights = nnx.split(inference_view(model))
    # The network's own variables: those of the model change with it.
    weights = jax.tree.map(lambda array: array, weights)

    def capture(weights, images):
        model = _tapped(nnx.merge(structure, weights, copy=True), dict.fromkeys(names))
        with keeps_its_state(model):
            _, captured = nnx.capture(run, _Output)(model, images)
        found = {".".join(map(str, path[:-1])): outputs for path, outputs in nnx.to_flat_state(captured)}
        return [found[name].get_value() if name in found else () for name in names]

    def exchange(weights, images, features):
        exchanges = [functools.partial(in_place_of, features=array, layers=len(names)) for array in features]
        model = _tapped(nnx.merge(structure, weights, copy=True), dict(zip(names, exchanges, strict=True)))
        with keeps_its_state(model):
            return run(model, images)

    def whole(weights):
        return Whole(nnx.merge(structure, weights, copy=True), run)

    return cut_at(names, weights, capture, exchange, reshape, whole)


class Output(NamedTuple):
    """What a layer returned when the network ran.

    Attributes:
      name: of `layers_of`.
      shape: of the array.
    """

    name: str
    shape: tuple[int, ...]


def outputs_of_layers(whole: Whole, images: Any) -> list[Output]:
    """The arrays (B, h, w, K) that layers return, in the order in which their calls end; the network is only traced.

    Those of layers that are called more than once are left out.
    """
    structure, weights = nnx.split(whole.module)
    found: list[Output] = []

    def run(weights, images):
        model = nnx.merge(structure, weights, copy=True)
        taps = {name: functools.partial(_noted, found, name) for name in layers_of(model)}
        return whole.run(_tapped(model, taps), images)

    jax.eval_shape(run, weights, images)
    names = [output.name for output in found]
    return [output for output in found if len(output.shape) == 4 and names.count(output.name) == 1]


def last_layers(outputs: Sequence[Output], smallest: tuple[int, int], count: int) -> list[str]:
    """The last layer of each of the `count` smallest sizes of feature maps, from the largest to the smallest.

    Args:
      outputs: of a network's layers, in the order of their calls.
      smallest: (h, w) of the network's last feature map; what is smaller is a part of some layer, as the squeezed
        features of an attention are.
      count: number of layers.

    Returns:
      Names of layers that are not parts of a layer with another size: at these the network has one feature map, and
      not the branches of a block.
    """
    sizes = {output.name: output.shape[1:3] for output in outputs}
    last = {
        size: name
        for name, size in sizes.items()
        if size[0] * size[1] >= smallest[0] * smallest[1]
        and all(sizes.get(outer, size) == size for outer in _around(name))
    }
    chosen = sorted(last, key=lambda size: size[0] * size[1])[:count]
    return [last[size] for size in reversed(chosen)]


def _around(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def biases_of(whole: Whole, outputs: Sequence[Output]) -> dict[str, jax.Array]:
    """Convolutions, dense layers and BatchNorms that add a bias to a feature map -> the bias, (K,) float32.

    A BatchNorm's, with its running statistics, is `bias - mean scale / sqrt(var + epsilon)`.
    """
    layers = layers_of(whole.module)
    found = {}
    for output in outputs:
        layer: Any = layers[output.name]
        if not isinstance(layer, nnx.Conv | nnx.ConvTranspose | nnx.Linear | nnx.BatchNorm):
            continue
        bias = None if layer.bias is None else layer.bias[...].astype(jnp.float32)
        if isinstance(layer, nnx.BatchNorm):
            factor = jax.lax.rsqrt(layer.var[...] + layer.epsilon)
            factor = factor if layer.scale is None else factor * layer.scale[...]
            bias = (0 if bias is None else bias) - layer.mean[...] * factor
        if bias is not None:
            found[output.name] = bias
    return found


class _Output(nnx.Variable):
    """A layer's outputs, one for each call."""


def _tapped(model: Any, taps: Mapping[str, Callable | None]) -> Any:
    """The model, changed: each of these layers keeps its output, or passes it on through a function."""
    layers = layers_of(model)
    for name, tap in taps.items():
        # Python looks up `__call__` on the type: the layer gets a type of its own, and stays in its place in the
        # network, which may be an attribute, a list, or two of them.
        layer: Any = layers[name]
        layer.__class__ = _tapped_type(layer.__class__)
        layer.exchange = tap
    return model


@functools.cache  # NNX keeps every type it has seen
def _tapped_type(layer_type: type) -> type:
    """A type whose `__call__` keeps the layer's output, or replaces it."""

    def __call__(self, *args, **kwargs):
        output = layer_type.__call__(self, *args, **kwargs)
        if self.exchange is not None:
            return self.exchange(output)
        self.sow(_Output, "output", output)
        return output

    return type(layer_type)(layer_type.__name__, (layer_type,), {"__call__": __call__})


def _noted(found: list[Output], name: str, output: Any) -> Any:
    found.append(Output(name, tuple(getattr(output, "shape", ()))))
    return output
