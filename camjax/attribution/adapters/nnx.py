"""Networks of Flax NNX as explainers."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from camjax.attribution.adapters.cutting import call, layer_names, unknown_layer
from camjax.attribution.explainers import Explainer
from camjax.attribution.module_layers import cut_module, layers_of, outputs_of_layers
from camjax.attribution.network import CutNetwork, SharedWeights, Whole
from camjax.attribution.tokens import ByImage, reshaped
from camjax.errors import InputError
from camjax.models.base import CamModel
from camjax.models.inference_mode import inference_view
from camjax.models.vit import VisionTransformer
from camjax.models.vit_blocks import AttentionWeights


def explain_nnx(
    model: nnx.Module,
    layers: str | Sequence[str],
    *,
    forward: Callable[[nnx.Module, jax.Array], jax.Array] = call,
    reshape: Callable[[jax.Array], jax.Array] | None = None,
    combine: Literal["mean", "max"] | None = "mean",
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
      reshape: turns a layer's output that is not a map into one; see `camjax.attribution.reshape_tokens`. The vision
        transformers of camjax need none.
      combine: how maps of several layers become one, see `camjax.attribution.combine_layers`; None leaves them a tuple,
        in the order of the layers.

    Returns:
      The explainer.

    Raises:
      ValueError: a layer that the model does not have; at a call, one that is not called, is called more than once, or
        does not return a map, or a network that runs for training.
    """
    ours = model if isinstance(model, CamModel) and forward is call else None
    network = cut_module(model, _known(model, layers), forward, reshape or _reshape_of(ours))
    return Explainer(network, combine, ours)


def nnx_cutter(model: nnx.Module, layers: str | Sequence[str]) -> Callable[[nnx.Module], CutNetwork]:
    """Cuts any network of the model's structure at layers; arguments and errors are those of `explain_nnx`.

    Returns:
      A function of a module with weights of its own, which may be traced. What it returns has one structure for all, so
      that other weights compile nothing.
    """
    reshape = _reshape_of(model)
    network = cut_module(model, _known(model, layers), call, reshape)
    assert isinstance(network, SharedWeights)
    inside, functions = network.tree_flatten()
    if reshape is not None:
        _, functions = inside[0].tree_flatten()

    def cut(other):
        network = SharedWeights.of(*functions, nnx.split(inference_view(other))[1])
        return network if reshape is None else reshaped(network, reshape)

    return cut


def nnx_map_sizes(model: nnx.Module, images: ArrayLike) -> dict[str, tuple[int, int]]:
    """The sizes (h, w) of the maps that submodules return, by their paths, in the order in which they return them.

    Those that are not called once, or return anything but a map, are left out. Of a vision transformer of camjax they
    are the blocks' first LayerNorms, whose tokens become maps. Nothing is computed.
    """
    if isinstance(model, VisionTransformer):
        grid = model.grid(*np.shape(images)[1:3])
        return {f"blocks.{i}.norm1": grid for i in range(len(model.blocks))}
    outputs = outputs_of_layers(Whole(inference_view(model), call), images)
    return {output.name: (output.shape[1], output.shape[2]) for output in outputs}


def _reshape_of(model: Any) -> ByImage | None:
    """What makes maps of the tokens of camjax's vision transformers."""
    return ByImage(model.stride, model.other_tokens) if isinstance(model, VisionTransformer) else None


def _known(model: nnx.Module, layers: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(model, nnx.Module):
        kind = f"{type(model).__module__.partition('.')[0]}'s {type(model).__name__}"
        raise InputError(
            f"{kind} is not a flax.nnx.Module: expected one, or for others explain_linen, explain_equinox or "
            "camjax.explainer. A network of another framework has to be written in JAX; its weights can be copied."
        )
    names, known = layer_names(layers), layers_of(model)
    for name in names:
        if name not in known:
            raise unknown_layer(name, known, type(model).__name__)
        if isinstance(known[name], AttentionWeights):
            raise InputError(
                f"the layer {name!r} returns attention weights, which are no map: expected the layer in front of it, "
                f"{name.replace('attention.weights', 'norm1')!r}, or a method that reads attention, such as legrad."
            )
        if isinstance(model, VisionTransformer) and not model.counts_at(name):
            raise InputError(
                f"the layer {name!r} follows the last block's attention, from which on the class token alone counts: "
                "the gradients of the patches are zero there, and so are the maps. Take the last block's input norm, "
                f"{model.last_norm!r}, or a layer before it."
            )
    return names
