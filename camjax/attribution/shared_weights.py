"""A cut network whose halves have the same weights, which travel once."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial

from camjax.attribution.network import CutNetwork


@jax.tree_util.register_pytree_node_class
class SharedWeights(CutNetwork):
    """A network cut by running the whole of it twice: `features(weights, images)`, `head(weights, features, images)`.

    As a pytree it is the weights. In a compiled program both halves then compute with the same arrays, and the compiler
    merges what they have in common; with the weights given twice it could not know.
    """

    __slots__ = ()

    @classmethod
    def of(cls, features_fn: Callable, head_fn: Callable, weights: Any) -> "SharedWeights":
        """The network of two functions that take the weights, any pytree, first."""
        return cls(Partial(features_fn, weights), Partial(head_fn, weights))

    def tree_flatten(self):
        """The weights, and the functions."""
        return self.features.args, (self.features.func, self.head.func)

    @classmethod
    def tree_unflatten(cls, functions, weights):
        """What was flattened, with these weights."""
        return cls.of(*functions, *weights)
