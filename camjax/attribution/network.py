"""A network cut in two at a layer: what every method works on."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any, NamedTuple, TypeGuard, cast

import jax
from flax import nnx
from jax.tree_util import Partial

from camjax.models.base import CamModel, takes_more_than_features
from camjax.models.head import MapHead, PooledHead
from camjax.models.inference_mode import run_for_inference

Features = Any
"""(B, h, w, K), or a tuple of such arrays, one for each of several layers."""


class Kernel(NamedTuple):
    """The dense layer that follows a global pooling, by which features become class activation maps.

    Attributes:
      weights: (K, C); None where the features are the class maps already; or a function from features and class ids to
        maps, of a head whose maps are no product with a kernel.
    """

    weights: jax.Array | Callable[..., jax.Array] | None


class CutNetwork(NamedTuple):
    """Both halves of a network, as pytrees: the weights in them are arguments of compiled programs, not constants.

    Attributes:
      features: images (B, H, W, 3) -> features, a `Features`.
      head: (features, images) -> outputs (B, ...). The images are for connections that go around the layer: what the
        rest of the network sees besides the features.
      kernel: of a head that is a global pooling and a dense layer; None for other heads, and where it is not known.
      whole: () -> `Whole`, of a network that `SharedWeights` holds; None for others. `whole_module` asks all of them.
    """

    features: Callable[[jax.Array], Features]
    head: Callable[[Features, jax.Array], jax.Array]
    kernel: Kernel | None = None
    whole: "Callable[[], Whole] | None" = None

    def __call__(self, images: jax.Array) -> jax.Array:
        """The whole network: images -> outputs."""
        return self.head(self.features(images), images)

    def head_of(self, images: jax.Array) -> Callable[[Features], jax.Array]:
        """The head for the features of `images` (B, H, W, 3), as a function of features alone."""
        return lambda features: self.head(features, images)


class Whole(NamedTuple):
    """A network as a module of NNX, whose layers can be found.

    Attributes:
      module: in inference mode.
      run: (module, images) -> outputs.
    """

    module: nnx.Module
    run: Callable[[nnx.Module, jax.Array], jax.Array]


@jax.tree_util.register_pytree_node_class
class SharedWeights(CutNetwork):
    """A network cut by running the whole of it twice: `features(weights, images)`, `head(weights, features, images)`.

    As a pytree it is the weights, once. So in a compiled program both halves use the same arrays, and the compiler can
    merge the computations that they share.
    """

    __slots__ = ()

    def __call__(self, images: jax.Array) -> jax.Array:
        """The whole network: images -> outputs."""
        features = self.features(images)
        # The head of several layers has the derivatives of their own outputs too, which would count twice.
        return self.head(jax.lax.stop_gradient(features) if isinstance(features, tuple) else features, images)

    @classmethod
    def of(
        cls, features_fn: Callable, head_fn: Callable, whole_fn: Callable[..., Whole] | None, weights: Any
    ) -> "SharedWeights":
        """The network of functions that take the weights, any pytree, first; whole_fn, if any, gives it as a module."""
        whole = None if whole_fn is None else Partial(whole_fn, weights)
        return cls(Partial(features_fn, weights), Partial(head_fn, weights), whole=whole)

    def tree_flatten(self) -> tuple[tuple, tuple[Callable, Callable, Callable[..., Whole] | None]]:
        """The weights, and the functions."""
        features, head, whole = self.features, self.head, self.whole
        assert isinstance(features, Partial) and isinstance(head, Partial) and isinstance(whole, Partial | None)
        return features.args, (features.func, head.func, None if whole is None else whole.func)

    @classmethod
    def tree_unflatten(
        cls, functions: tuple[Callable, Callable, Callable[..., Whole] | None], weights: tuple
    ) -> "SharedWeights":
        """The network of these functions and weights."""
        return cls.of(*functions, *weights)


def cut_network(features_fn: Callable, head_fn: Callable) -> CutNetwork:
    """The network of two functions.

    Args:
      features_fn: images -> features.
      head_fn: features -> outputs; all of the network that follows. With a `PooledHead` or `MapHead` of camjax the
        network has a kernel.

    Returns:
      What explainers and `camjax.attribution` take; a pytree.
    """
    kernel = _kernel_of(head_fn) if isinstance(head_fn, PooledHead | MapHead) else None
    return CutNetwork(as_pytree(features_fn), Partial(_without_images, as_pytree(head_fn)), kernel)


def head_alone(head_fn: Callable) -> CutNetwork:
    """The network of a head, for methods that are given the features."""
    return cut_network(_no_features, head_fn)


def _no_features(images):
    raise NotImplementedError("the features of this network are given")


def cut_model(model: Any) -> CutNetwork:
    """A model in inference mode, cut at its last feature map.

    Args:
      model: has `features(images)` and `head(features)`; the head has a `kernel` if there are class activation maps. Or
        it is a `CamModel` with a `split` and `finish` of its own.
    """
    if takes_more_than_features(model):
        return SharedWeights.of(_features_of, _finished, _whole, model)
    return cut_network(model.features, model.head)._replace(kernel=_kernel_of(model.head))


def _features_of(model: CamModel, images: jax.Array) -> jax.Array:
    return run_for_inference(model.features, images)


def _finished(model: CamModel, features: jax.Array, images: jax.Array) -> jax.Array:
    """The logits of other features; what goes around them is computed from the images."""
    _, *around = run_for_inference(model.split, images)
    return run_for_inference(model.finish, features, *around)


def _whole(model: CamModel) -> Whole:
    return Whole(model, run_for_inference)


def whole_module(network: CutNetwork) -> Whole | None:
    """The network as a module of NNX; None for one that is not, or is not known to be.

    It is known of `explain_nnx`, and where the features come from a module, or from a method of one.
    """
    if network.whole is not None:
        return network.whole()
    features = network.features
    if not isinstance(features, Partial) or not features.args or not isinstance(features.args[0], nnx.Module):
        return None
    return Whole(features.args[0], lambda module, images: network.head(features.func(module, images), images))


def as_pytree(function: Callable) -> Callable:
    """The function as a pytree, with its weights as leaves where they can be found.

    `jax.tree_util.Partial` is a pytree, and so is a `CutNetwork`; a module of NNX, or a method of one, as
    `model.features`, becomes one with the module in it, and is run by `run_for_inference`; other functions become a
    node without leaves.
    """
    if isinstance(function, Partial | CutNetwork):
        return cast(Callable, function)
    if isinstance(function, nnx.Module):
        return Partial(run_for_inference, function)
    if is_module_method(function):
        return Partial(_RunMethod(function.__func__), function.__self__)
    return Partial(function)


@dataclass(frozen=True)
class _RunMethod:
    """A method without its module, which runs for inference; equal if the method is, or programs would compile anew."""

    method: Callable

    def __call__(self, module: nnx.Module, *args: Any) -> Any:
        """The method's result."""
        return run_for_inference(MethodType(self.method, module), *args)


def is_module_method(function: Callable) -> TypeGuard[MethodType]:
    """Whether the function is a method of a module of NNX, bound to it."""
    return inspect.ismethod(function) and isinstance(function.__self__, nnx.Module)


def _kernel_of(head: Any) -> Kernel | None:
    if not hasattr(head, "kernel"):
        return None
    if hasattr(head, "class_maps"):
        return Kernel(as_pytree(head.class_maps))
    return Kernel(None if head.kernel is None else head.kernel[...])


def _without_images(head_fn: Callable, features: Features, images: jax.Array) -> jax.Array:
    return head_fn(features)
