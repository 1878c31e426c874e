"""Any network explained by any method: two functions in, a compiled function of images and targets out."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.attribution.engine import attribute
from camjax.attribution.methods import Method, Needs, method_named
from camjax.attribution.network import CutNetwork, as_pytree, cut_network, is_module_method
from camjax.attribution.targets import as_target
from camjax.checks import ImageCheck, as_array, check_class_ids
from camjax.errors import InputError
from camjax.models.base import CamModel
from camjax.models.inference_mode import inference_view


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
      network: cut at the layer, or layers, to explain.
      combine: how maps of several layers become one, see `camjax.attribution.combine_layers`; None leaves them a tuple.
      model: the model of camjax that the network is, which normalizes its images itself; None for any other.

    Attributes:
      network: as given, with the weights of the time when the explainer was made.
    """

    def __init__(
        self, network: CutNetwork, combine: Literal["mean", "max"] | None = "mean", model: CamModel | None = None
    ):
        self._combine = combine
        self._multi_label = getattr(model, "multi_label", False)
        self._images = functools.partial(as_array, name="images") if model is None else ImageCheck(model)
        # Flattened once: a network of many layers takes longer to flatten than its program to start.
        self._leaves, self._structure = jax.tree.flatten(network)
        # With modules of its own: those of the network that was given may change.
        self.network: CutNetwork = jax.tree.unflatten(self._structure, self._leaves)
        self._traced = jax.jit(self._attribute, static_argnums=(3, 4, 5))
        self._forward = jax.jit(self._features_and_outputs)
        self._shapes = functools.lru_cache(self._output_shape)

    def __call__(
        self, images: jax.Array, targets: Any = None, method: str = "gradcam", *, top_k: int = 1, **options: Any
    ) -> Explanation:
        """Explains a batch of images.

        Args:
          images: (B, ...) as the network takes them; those of a model of camjax as `camjax.cam_fn` takes them.
          targets: class ids (B,) or (B, N); a function of the outputs, see `camjax.attribution.targets`; or None for
            the `top_k` classes of the largest outputs (B, C).
          method: of `camjax.attribution.METHODS`. "cam" takes class ids, and a network whose head is known to be a
            global pooling with a dense kernel, as that of `camjax.explainer(model.features, model.head)` is.
          top_k: number of classes where targets are None.
          **options: of the method, which its function in `camjax.attribution` describes: `chunk_size` and `progress` of
            those that perturb images or features, `strength` of "finercam", ...

        Returns:
          `Explanation`. It stays on the device; a second call with the same shapes compiles nothing. A function of your
          own as targets has to be the same one: a new lambda is a new program, even if its text is the same.

        Raises:
          ValueError: unknown method or option, targets that do not fit the outputs (fewer than images, ids out of
            range), or a network that does not have what the method needs.
        """
        chosen = method_named(method, options)
        if isinstance(targets, str):
            raise InputError(f"targets={targets!r}: expected class ids, or a function; a method is method={targets!r}.")
        images = self._images(images)
        self._check(chosen, targets)
        if not hasattr(images, "shape") or not hasattr(images, "dtype"):
            raise InputError(
                f"images of type {type(images).__name__}: expected one array (B, ...). Other inputs of the network are "
                "part of the functions that it is given by, such as forward=lambda model, images: model(images, mask)."
            )
        shape = self._shapes(tuple(images.shape), jnp.result_type(images))
        targets = self._targets(targets, shape, top_k)
        if chosen.target is not None and options:
            _check_target(chosen, targets, shape, top_k, options)
        if not chosen.is_loop:
            return self._traced(self._leaves, images, targets, chosen, top_k, *_fixed_and_traced(options))
        features, outputs = self._forward(self._leaves, images)
        if chosen.needs is Needs.CHANGED_IMAGES:
            _check_one_layer(chosen, features)
        targets = _chosen(targets, outputs, top_k)
        maps = chosen.loop(self.network, images, features, outputs, targets, self._multi_label, options)
        return Explanation(outputs, _class_ids(targets), maps)

    def _check(self, method: Method, targets: Any) -> None:
        """Raises ValueError where an explainer does not have what the method needs."""
        if method.needs is Needs.KERNEL and self.network.kernel is None:
            raise InputError(
                f"{method.name} needs the dense kernel (K, C) that follows a global pooling, which this explainer does "
                "not know: expected camjax.explainer(model.features, model.head), or camjax.make_cam_fn(model), with a "
                "model that has class activation maps; or camjax.class_activation_map(features, kernel, class_ids)."
            )
        if callable(targets) and (method.needs is Needs.KERNEL or method.classes_only):
            raise InputError(
                f"{method.name} explains classes: expected class ids (B,) or (B, N), not a function of the outputs."
            )

    def _targets(self, targets: Any, shape: jax.ShapeDtypeStruct, top_k: int) -> Any:
        """Targets, checked, as arguments of a compiled program."""
        if targets is None:
            if len(shape.shape) != 2 or not 1 <= top_k <= shape.shape[1]:
                raise InputError(
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
        outputs = jax.eval_shape(lambda images: self.network(images), jax.ShapeDtypeStruct(shape, dtype))
        if isinstance(outputs, jax.ShapeDtypeStruct) and outputs.ndim:
            return outputs
        fields = getattr(outputs, "_fields", None) or (outputs if isinstance(outputs, dict) else ())
        raise InputError(
            f"the network returns {type(outputs).__name__}"
            + (f" with {', '.join(map(repr, fields))}" if fields else "")
            + ": expected one array (B, ...), such as logits (B, C). Choose it in the function that runs the network, "
            'as forward=lambda model, images: model(images)["logits"].'
        )

    def _features_and_outputs(self, leaves, images):
        network = jax.tree.unflatten(self._structure, leaves)
        features = network.features(images)
        return features, network.head(features, images)

    def _attribute(self, leaves, images, targets, method, top_k, fixed, traced):
        network = jax.tree.unflatten(self._structure, leaves)
        if method.needs is Needs.KERNEL:
            _check_one_layer(method, jax.eval_shape(network.features, images))

        def choose(outputs):
            return _chosen(targets, outputs, top_k)

        options = {method.name: {**dict(fixed), **traced}}
        (found,) = attribute(network, images, choose, [method], combine=self._combine, options=options).values()
        # A method may have one map for all targets, or for all images too.
        count = jax.eval_shape(as_target(found.targets, found.outputs), found.outputs).shape[1]
        maps = jax.tree.map(lambda maps: jnp.broadcast_to(maps, (len(images), count, *maps.shape[2:])), found.maps)
        return Explanation(found.outputs, _class_ids(found.targets), maps)


def _fixed_and_traced(options: dict[str, Any]) -> tuple[tuple[tuple[str, Any], ...], dict[str, Any]]:
    """Options that a program is compiled for, and numbers and arrays that are its arguments."""
    arrays = {
        name: np.asarray(value) if isinstance(value, list | tuple) else as_array(value, name)
        for name, value in options.items()
    }
    traced = {name: value for name, value in arrays.items() if isinstance(value, float) or hasattr(value, "dtype")}
    return tuple((name, value) for name, value in options.items() if name not in traced), traced


def _check_target(method: Method, targets: Any, shape: jax.ShapeDtypeStruct, top_k: int, options: Any) -> None:
    """Raises ValueError for options of a method's target that do not fit, which a compiled program cannot say."""
    if targets is None:
        ids = jax.ShapeDtypeStruct((shape.shape[0], top_k), np.int32)
        jax.eval_shape(lambda ids, outputs: method.explained(ids, options)(outputs), ids, shape)
    else:
        as_target(method.explained(targets, options), shape)


def _chosen(targets: Any, outputs: jax.Array, top_k: int) -> Any:
    """Targets; the classes of the largest outputs for None."""
    return jax.lax.top_k(outputs, top_k)[1] if targets is None else targets


def _class_ids(targets: Any) -> jax.Array | None:
    """Targets as class ids (B, N); None for a function of the outputs."""
    return None if callable(targets) else jnp.asarray(targets).reshape(len(targets), -1)


def _check_one_layer(method: Method, features: Any) -> None:
    if isinstance(features, tuple):
        raise InputError(
            f"{method.name} of {len(features)} layers: expected one. Make an explainer for each layer, and combine "
            "their maps by camjax.attribution.combine_layers."
        )


def explainer(features_fn: Callable, head_fn: Callable, *, combine: Literal["mean", "max"] = "mean") -> Explainer:
    """Explains a network that is given as two functions.

    Args:
      features_fn: images (B, ...) -> features (B, h, w, K), or a tuple of several layers' features.
      head_fn: features -> outputs (B, ...): all of the network that follows, before any softmax. Each image's outputs
        depend on its own features alone. The weights of NNX modules, of their methods such as `model.features`, and of
        `jax.tree_util.Partial(function, weights)` are arguments of compiled programs; the explainer keeps their present
        values. Weights inside other functions become constants, which takes longer to compile. Modules run in inference
        mode (no dropout, BatchNorm at its running statistics), and are not changed.
      combine: how maps of several layers become one; see `camjax.attribution.combine_layers`.

    Returns:
      `explain(images, targets=None, method="gradcam", *, top_k=1, **options) -> Explanation`; see
      `camjax.attribution.Explainer`.
    """
    network = cut_network(_in_inference_mode(features_fn), _in_inference_mode(head_fn))
    model = getattr(features_fn, "__self__", None)
    return Explainer(network, combine, model if isinstance(model, CamModel) else None)


def _in_inference_mode(function: Callable) -> Callable:
    if isinstance(function, nnx.Module):
        return inference_view(function)
    if is_module_method(function):
        module: Any = function.__self__
        return getattr(inference_view(module), function.__name__)
    return function
