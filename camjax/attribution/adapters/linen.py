"""Networks of Flax Linen as explainers."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict

from camjax.attribution.adapters.cutting import call, cut_at, in_place_of, layer_names, unknown_layer
from camjax.attribution.explainers import Explainer
from camjax.models.inference_mode import keeps_its_state


def explain_linen(
    module: nn.Module,
    variables: Any,
    layers: str | Sequence[str],
    *,
    forward: Callable[[nn.Module, jax.Array], jax.Array] = call,
    reshape: Callable[[jax.Array], jax.Array] | None = None,
    combine: Literal["mean", "max"] = "mean",
) -> Explainer:
    """Explains a network of Linen at any of its layers.

    Args:
      module: of the network.
      variables: of the network, {"params": ..., "batch_stats": ...}, as from `module.init`.
      layers: the path of a submodule, as "Block_3" or "encoder.Conv_0", whose output is (B, h, w, K); or several paths.
        A submodule is called once, by `__call__`, when the network runs.
      forward: (module, images) -> outputs (B, ...), each image's from that image alone; `module(images)` by default,
        with the argument for inference mode (`train`, `training`, `deterministic`, ...), if there is one. Another is
        given here: `lambda module, images: module(images, mode="test")`.
      reshape: turns a layer's output that is not a map into one; see `camjax.attribution.reshape_tokens`.
      combine: how maps of several layers become one; see `camjax.attribution.combine_layers`.

    Returns:
      The explainer. At a call, it raises ValueError for a layer that the network does not have, that is not called
      by `__call__`, is called more than once, or does not return a map.

    Raises:
      ValueError: no layer, or one given twice.
    """
    names = layer_names(layers)

    def capture(variables, images):
        found = run(variables, images, lambda module, method: method == "__call__" and ".".join(module.path) in names)
        for name in names:
            if name not in found:
                every_call = jax.eval_shape(
                    lambda variables, images: run(variables, images, lambda _, method: method == "__call__"),
                    variables,
                    images,
                )
                raise unknown_layer(name, (layer for layer in every_call if layer), type(module).__name__)
        return [found[name] for name in names]

    def run(variables, images, kept):
        """Path of each layer -> its outputs, one for each call."""
        with keeps_its_state(module):
            _, state = nn.apply(forward, module, capture_intermediates=kept)(variables, images)
        outputs = flatten_dict(state.get("intermediates", {}))
        return {".".join(path[:-1]): found for path, found in outputs.items() if path[-1] == "__call__"}

    def exchange(variables, images, features):
        by_name = dict(zip(names, features, strict=True))

        def intercept(method, args, kwargs, context):
            output = method(*args, **kwargs)
            name = ".".join(context.module.path)
            if context.method_name != "__call__" or name not in by_name:
                return output
            return in_place_of(output, by_name[name], len(names))

        with keeps_its_state(module), nn.intercept_methods(intercept):
            return nn.apply(forward, module)(variables, images)

    return Explainer(cut_at(names, variables, capture, exchange, reshape), combine)
