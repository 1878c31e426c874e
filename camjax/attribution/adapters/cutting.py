"""What the adapters have in common: a network is cut at layers by running it with their outputs replaced.

The features are the outputs of the layers when the network runs. The head is the whole network once more, with the
features in place of these outputs: the compiler drops what is not used any more. So connections that go around a layer
need no special case.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from camjax.attribution.network import CutNetwork, SharedWeights, Whole
from camjax.attribution.tokens import reshaped
from camjax.errors import InputError
from camjax.models.inference_mode import mode_arguments


def cut_at(
    layers: Sequence[str],
    weights: Any,
    capture: Callable,
    exchange: Callable,
    reshape: Callable | None,
    whole: Callable[..., Whole] | None = None,
) -> CutNetwork:
    """The network cut at layers.

    Args:
      layers: their names, for error messages.
      weights: what both functions take first, a tree of arrays.
      capture: (weights, images) -> for each layer, its outputs, one for each call.
      exchange: (weights, images, features) -> outputs of the network in which the features replace the outputs of the
        layers; see `in_place_of`.
      reshape: see `camjax.attribution.reshaped`; None where the layers give maps.
      whole: weights -> the network as a module of NNX, if it is one.

    Returns:
      The network. Features are a tuple for several layers. Its functions raise ValueError for a layer that is not
      called, is called more than once, or does not return a map.
    """
    several = len(layers) > 1

    def features_fn(weights, images):
        found = tuple(map(_only_output, layers, capture(weights, images)))
        for layer, output in zip(layers, found, strict=True):
            if reshape is None and output.ndim != 4:
                raise InputError(
                    f"the layer {layer!r} returns {output.shape}: expected (B, h, w, K). Tokens (B, T, K) become a map "
                    "by reshape=camjax.attribution.reshape_tokens(height, width)."
                )
        return found if several else found[0]

    def head_fn(weights, features, images):
        return exchange(weights, images, features if several else (features,))

    network = SharedWeights.of(features_fn, head_fn, whole, weights)
    return network if reshape is None else reshaped(network, reshape)


def in_place_of(output: jax.Array, features: jax.Array, layers: int) -> jax.Array:
    """The features, in the output's dtype, to replace a layer's output.

    With several layers the earlier ones act through the later ones, and so must their gradients: the features then have
    the output's own derivative as well.
    """
    features = features.astype(output.dtype)
    return features if layers == 1 else _with_derivative_of(output, features)


@jax.custom_jvp
def _with_derivative_of(output, features):
    return features


@_with_derivative_of.defjvp
def _with_derivative_of_jvp(primals, tangents):
    return primals[1], tangents[0] + tangents[1]


def layer_names(layers: str | Sequence[str]) -> tuple[str, ...]:
    """The names of one layer or several.

    Raises:
      ValueError: no layer, one given twice, or one that is not named, such as a module or a number.
    """
    names = tuple(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else (layers,)
    if kinds := [type(name).__name__ for name in names if not isinstance(name, str)]:
        raise InputError(f"a layer of type {', '.join(kinds)}: expected its path, as in 'blocks.10', or several paths.")
    if not names or len({*names}) < len(names):
        raise InputError(f"layers={layers!r}: expected the name of a layer, or several names, each once.")
    return names


def unknown_layer(layer: str, known: Iterable[str], network: str) -> InputError:
    """The error for a layer that a network does not have."""
    known = list(known)
    near = difflib.get_close_matches(layer, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    shown = ", ".join(known[:30]) + (f", and {len(known) - 30} more" if len(known) > 30 else "")
    return InputError(f"{network} has no layer {layer!r}.{hint} It has: {shown or 'none'}.")


def call(network: Callable, images: jax.Array) -> jax.Array:
    """`network(images)`, told to run for inference: how adapters run a network by default."""
    return network(images, **mode_arguments(network))


def _only_output(layer: str, outputs: Sequence[Any]) -> jax.Array:
    if not outputs:
        raise InputError(
            f"the layer {layer!r} is not called when the network runs: expected a layer whose `__call__` takes part."
        )
    if len(outputs) > 1:
        raise InputError(
            f"the layer {layer!r} is called {len(outputs)} times when the network runs, and has as many feature "
            "maps: expected a layer that is called once. Take the layer around it, or the one that follows a call."
        )
    if not hasattr(outputs[0], "ndim"):
        raise InputError(
            f"the layer {layer!r} returns {type(outputs[0]).__name__}: expected one array. Take a layer inside it."
        )
    return outputs[0]
