"""Networks of Equinox as explainers."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from camjax.attribution.adapters.cutting import call, cut_at, in_place_of
from camjax.attribution.explainers import Explainer
from camjax.errors import InputError


def explain_equinox(
    model: eqx.Module,
    where: Callable[[eqx.Module], Any],
    *,
    forward: Callable[[Any, jax.Array], jax.Array] = call,
    channels_first: bool = True,
    reshape: Callable[[jax.Array], jax.Array] | None = None,
    combine: Literal["mean", "max"] = "mean",
) -> Explainer:
    """Explains a network of Equinox at any of its layers.

    Such a network takes one image and no batch: the adapter uses `jax.vmap`. The explainer's images are (B, H, W, C),
    as everywhere in camjax.

    Args:
      model: any module. It runs in inference mode (`equinox.nn.inference_mode`), and is not changed.
      where: model -> the layer, as `lambda model: model.blocks[3]`, whose output is (K, h, w); or a tuple of layers. A
        layer is called once when the network runs, and for the whole image: not by `jax.vmap` for each token.
      forward: (model, image) -> outputs of one image; `model(image)` by default. With layers that have a state, as
        BatchNorm has: `lambda model, image: model(image, state)[0]`.
      channels_first: whether the network takes images (C, H, W), and the layers give (K, h, w), as those of
        `equinox.nn` do. Otherwise they are (H, W, C) and (h, w, K).
      reshape: turns outputs (B, ...) of a layer that are not a map into one; see `camjax.attribution.reshape_tokens`.
      combine: how maps of several layers become one; see `camjax.attribution.combine_layers`.

    Returns:
      The explainer. At a call, it raises ValueError for a layer that is not called, is called more than once, or does
      not return a map.

    Raises:
      ValueError: `where` does not return a layer that can be called.
    """
    if not callable(where):
        raise InputError(f"where={where!r}: expected a function, as in lambda model: model.layers[3].")
    weights, structure = eqx.partition(eqx.nn.inference_mode(model), eqx.is_array)
    found = where(model)
    several = isinstance(found, tuple | list)
    layers = tuple(found) if several else (found,)
    if not layers or not all(map(callable, layers)):
        raise InputError(
            f"where returns {', '.join(type(layer).__name__ for layer in layers) or 'nothing'}: expected a layer of "
            "the model that can be called, or a tuple of layers."
        )
    names = [type(layer).__name__ for layer in layers]

    def run(weights, image, taps):
        model = eqx.combine(weights, structure)
        now = where(model)
        tapped = [_Tapped(layer, tap) for layer, tap in zip(now if several else [now], taps, strict=True)]
        model = eqx.tree_at(where, model, tapped if several else tapped[0])
        return forward(model, jnp.moveaxis(image, -1, 0) if channels_first else image)

    def capture(weights, images):
        def of_image(image):
            outputs: list[list] = [[] for _ in layers]
            run(weights, image, [_keeping(of_layer) for of_layer in outputs])
            return outputs

        try:
            found = jax.vmap(of_image)(images)
        except jax.errors.UnexpectedTracerError:
            raise InputError(
                f"{' or '.join(names)} of `where` is called inside of a transformation of its own (jax.vmap for each "
                "token, jax.lax.scan, jax.checkpoint), which its output cannot leave: expected a layer of the whole "
                "image. Take the layer around it."
            ) from None
        return jax.tree.map(channels_last, found)

    def exchange(weights, images, features):
        def of_image(image, features):
            taps = [lambda output, given=given: in_place_of(output, given, len(layers)) for given in features]
            return run(weights, image, taps)

        return jax.vmap(of_image)(images, tuple(map(channels_as_given, features)))

    def channels_last(output):
        return jnp.moveaxis(output, 1, -1) if channels_first and output.ndim == 4 else output

    def channels_as_given(features):
        return jnp.moveaxis(features, -1, 1) if channels_first and features.ndim == 4 else features

    return Explainer(cut_at(names, weights, capture, exchange, reshape), combine)


class _Tapped(eqx.Module):
    """A layer whose output goes through a function; everything else is the layer's."""

    layer: Any
    tap: Callable = eqx.field(static=True)

    def __call__(self, *args, **kwargs):
        """The layer's output, through the function."""
        return self.tap(self.layer(*args, **kwargs))

    def __getattr__(self, name):
        if name == "layer":
            raise AttributeError(name)
        return getattr(self.layer, name)


def _keeping(outputs: list) -> Callable:
    def keep(output):
        outputs.append(output)
        return output

    return keep
