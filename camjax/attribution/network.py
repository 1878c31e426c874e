"""A network cut in two at a layer: what every method works on."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.tree_util import Partial

Features = Any
"""(B, h, w, K), or a tuple of such arrays, one for each of several layers."""


class CutNetwork(NamedTuple):
    """Both halves of a network, as pytrees: the weights in them are arguments of compiled programs, not constants.

    Attributes:
      features: images (B, H, W, 3) -> features, a `Features`.
      head: (features, images) -> outputs (B, ...). The images are for layers that others go around: what the rest of
        the network sees beside the features.
    """

    features: Callable[[jax.Array], Features]
    head: Callable[[Features, jax.Array], jax.Array]

    def __call__(self, images: jax.Array) -> jax.Array:
        """The whole network: images -> outputs."""
        return self.head(self.features(images), images)

    def head_of(self, images: jax.Array) -> Callable[[Features], jax.Array]:
        """The head behind the features of some images, as a function of features alone."""
        return lambda features: self.head(features, images)


def cut_network(features_fn: Callable, head_fn: Callable) -> CutNetwork:
    """The network of two functions.

    Args:
      features_fn: images -> features.
      head_fn: features -> outputs; all of the network that follows.
    """
    return CutNetwork(as_pytree(features_fn), Partial(_without_images, as_pytree(head_fn)))


def as_pytree(function: Callable) -> Callable:
    """The function as a pytree, with its weights as leaves where they can be found.

    Modules of NNX and `jax.tree_util.Partial` are pytrees; a module's method, as `model.features`, becomes one with the
    module in it; other functions become a node without leaves.
    """
    if isinstance(function, Partial | nnx.Module):
        return function
    if is_module_method(function):
        return Partial(function.__func__, function.__self__)
    return Partial(function)


def is_module_method(function: Callable) -> bool:
    """Whether the function is a method of a module of NNX, bound to it."""
    return inspect.ismethod(function) and isinstance(function.__self__, nnx.Module)


def _without_images(head_fn: Callable, features: Features, images: jax.Array) -> jax.Array:
    return head_fn(features)
