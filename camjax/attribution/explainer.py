"""Any network explained by any method: two functions in, a compiled function of images and targets out."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.attribution.gradients import output_gradients
from camjax.attribution.layers import combine_layers
from camjax.attribution.methods import method_named
from camjax.attribution.network import CutNetwork, as_pytree, cut_network, is_module_method
from camjax.attribution.targets import as_target
from camjax.inference import check_class_ids, inference_view


class Explanation(NamedTuple):
    """What an explainer returns, for B images and N targets.

    Attributes:
      outputs: (B, ...) of the network, as it gives them.
      class_ids: (B, N) int32; None where the targets are a function of the outputs.
      maps: (B, N, h, w) float32: raw, as the method defines them.
    """

    outputs: jax.Array
    class_ids: jax.Array | None
    maps: jax.Array


class Explainer:
    """A network with all methods; `camjax.explainer` and the adapters of `camjax.attribution` make one.

    Args:
      network: cut at the layer, or layers, whose maps are wanted.
      combine: how maps of several layers become one; see `camjax.attribution.combine_layers`.

    Attributes:
      network: likewise, with the weights of the time when the explainer was made.
    """

    def __init__(self, network: CutNetwork, combine: Literal["mean", "max"] = "mean"):
        self._combine = combine
        # Flattened once: a network of many layers takes longer to flatten than its program to start.
        self._leaves, self._structure = jax.tree.flatten(network)
        # Its own modules, for those of the network may change.
        self.network = jax.tree.unflatten(self._structure, self._leaves)
        self._by_gradients = jax.jit(self._explain_by_gradients, static_argnums=(3, 4))
        self._forward = jax.jit(self._features_and_outputs)
        self._shapes = functools.lru_cache(self._output_shape)

    def __call__(
        self, images: jax.Array, targets: Any = None, method: str = "gradcam", *, top_k: int = 1, **options
    ) -> Explanation:
        """Explains a batch of images.

        Args:
          images: (B, ...) as the network takes them.
          targets: class ids (B,) or (B, N); a function of the outputs, see `camjax.attribution.targets`; or None for
            the `top_k` classes of the largest outputs (B, C).
          method: of `camjax.attribution.METHODS`.
          top_k: number of classes where targets are None.
          **options: of the method: `chunk_size` and `progress` of those that perturb images or features.

        Returns:
          `Explanation`. It stays on the device; a second call with the same shapes compiles nothing. A function of your
          own as targets has to be the same one: a new lambda is a new program, whatever its text.

        Raises:
          ValueError: another method or option, targets that do not fit the outputs (fewer than images, ids out of
            range), or a method that several layers are too many for.
        """
        chosen = method_named(method, options)
        shape = self._shapes(tuple(images.shape), jnp.result_type(images))
        targets = self._targets(targets, shape, top_k)
        if chosen.from_gradients is not None:
            return self._by_gradients(self._leaves, images, targets, chosen, top_k)
        features, outputs = self._forward(self._leaves, images)
        targets, class_ids = chosen_targets(targets, outputs, top_k)
        if isinstance(features, tuple):
            raise ValueError(
                f"{method} of {len(features)} layers: expected one, for each would take all of its passes. Make an "
                "explainer for each layer, and combine their maps by camjax.attribution.combine_layers."
            )
        maps = chosen.from_network(self.network, images, features, as_target(targets, outputs), **options)
        return Explanation(outputs, class_ids, maps)

    def _targets(self, targets, shape, top_k):
        """Targets as what a compiled program takes; what is wrong with them is said here."""
        if targets is None:
            if len(shape.shape) != 2 or not 1 <= top_k <= shape.shape[1]:
                raise ValueError(
                    f"no targets, top_k={top_k}, and outputs of shape {shape.shape}: expected targets, or outputs "
                    "(B, C) and top_k in 1..C."
                )
            return None
        if callable(targets):
            targets = as_pytree(targets)
        elif len(shape.shape) == 2:
            return check_class_ids(targets, *shape.shape)
        as_target(targets, shape)
        return targets

    def _output_shape(self, shape, dtype):
        return jax.eval_shape(lambda images: self.network(images), jax.ShapeDtypeStruct(shape, dtype))

    def _features_and_outputs(self, leaves, images):
        network = jax.tree.unflatten(self._structure, leaves)
        features = network.features(images)
        return features, network.head(features, images)

    def _explain_by_gradients(self, leaves, images, targets, method, top_k):
        network = jax.tree.unflatten(self._structure, leaves)
        features = jax.tree.map(lambda array: array.astype(jnp.float32), network.features(images))
        outputs, gradients_of = output_gradients(network.head_of(images), features)
        targets, class_ids = chosen_targets(targets, outputs, top_k)
        gradients = gradients_of(targets)
        if not isinstance(features, tuple):
            return Explanation(outputs, class_ids, method.from_gradients(features, gradients))
        maps = [method.from_gradients(*layer) for layer in zip(features, gradients, strict=True)]
        return Explanation(outputs, class_ids, combine_layers(maps, self._combine))


def chosen_targets(targets, outputs: jax.Array, top_k: int):
    """Targets, those of the largest outputs for None; and the class ids (B, N), None for a function of the outputs."""
    if targets is None:
        targets = jax.lax.top_k(outputs, top_k)[1]
    return targets, None if callable(targets) else jnp.asarray(targets).reshape(len(outputs), -1)


def explainer(features_fn: Callable, head_fn: Callable, *, combine: Literal["mean", "max"] = "mean") -> Explainer:
    """Explains a network that is given as two functions.

    Args:
      features_fn: images (B, ...) -> features (B, h, w, K), or a tuple of several layers' features.
      head_fn: features -> outputs (B, ...): all of the network that follows, before any softmax. Each image's outputs
        depend on its own features alone. Weights of modules of NNX and their methods, such as `model.features`, and of
        `jax.tree_util.Partial(function, weights)` are arguments of compiled programs, as they are now; those that other
        functions hold become constants, which takes longer to compile. Modules run in inference mode (no dropout,
        BatchNorm at its running statistics), whatever their mode, and stay as they were.
      combine: how maps of several layers become one; see `camjax.attribution.combine_layers`.

    Returns:
      `explain(images, targets=None, method="gradcam") -> Explanation`; see `Explainer`.
    """
    return Explainer(cut_network(_in_inference_mode(features_fn), _in_inference_mode(head_fn)), combine)


def _in_inference_mode(function: Callable) -> Callable:
    if isinstance(function, nnx.Module):
        return inference_view(function)
    if is_module_method(function):
        return getattr(inference_view(function.__self__), function.__name__)
    return function
