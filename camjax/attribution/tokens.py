"""Token networks such as ViT: tokens become a map on which every method works, and the map becomes tokens again."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from camjax.attribution.network import CutNetwork, SharedWeights
from camjax.errors import InputError


@dataclass(frozen=True)
class _Grid:
    height: int
    width: int
    skip: int

    def __call__(self, tokens):
        expected = self.skip + self.height * self.width
        if tokens.ndim != 3 or tokens.shape[1] != expected:
            raise InputError(
                f"tokens of shape {tokens.shape}: expected (B, {expected}, D), where {self.skip} are skipped, and "
                f"{self.height} x {self.width} places."
            )
        return tokens[:, self.skip :].reshape(len(tokens), self.height, self.width, -1)


def reshape_tokens(height: int, width: int, skip: int = 1) -> Callable[[jax.Array], jax.Array]:
    """Tokens as a map: those of the image's patches, row by row, which follow other tokens that have no place in it.

    Args:
      height: patches from top to bottom.
      width: patches from left to right.
      skip: number of tokens before those of the patches: 1 for a class token, 5 with four registers, 0 for none.

    Returns:
      (B, skip + height * width, D) -> (B, height, width, D), for `reshaped` and the adapters. It raises ValueError for
      another number of tokens.

    Raises:
      ValueError: a height or width below 1, or a negative skip.
    """
    if height < 1 or width < 1 or skip < 0:
        raise InputError(
            f"height={height}, width={width}, skip={skip}: expected sides of 1 or more, and skip of 0 or more."
        )
    return _Grid(height, width, skip)


def reshaped(network: CutNetwork, reshape: Callable[[jax.Array], jax.Array]) -> CutNetwork:
    """The network with a map as its features, made of the layer's output by choosing and ordering its elements.

    The head gets the layer's own output with the map's values in their places. What is not in the map, such as the
    class token, stays unchanged: methods work on the map alone, and gradients to the class token are not part of it.

    Args:
      network: cut at a layer, or at several, whose features are not (B, h, w, K).
      reshape: for each layer (B, ...) -> (B, h, w, K). Each element of the map is a different element of the layer's
        output, as in `reshape_tokens`.

    Returns:
      The network. Its functions raise ValueError for a reshape that does anything else.
    """

    def features_fn(network, images):
        return jax.tree.map(lambda array: _checked(reshape, array), network.features(images))

    def head_fn(network, maps, images):
        features = network.features(images)
        # As in `SharedWeights`.
        features = jax.lax.stop_gradient(features) if isinstance(features, tuple) else features
        return network.head(jax.tree.map(put_back, features, maps), images)

    def put_back(array, of_map):
        # Choosing is linear: its transpose puts each value of the map back where it came from.
        to_places = jax.linear_transpose(reshape, array)
        (shown,) = to_places(jnp.ones(of_map.shape, array.dtype))
        (values,) = to_places(of_map.astype(array.dtype))
        return jnp.where(shown == 1, values, array)

    return SharedWeights.of(features_fn, head_fn, None, network)


def _checked(reshape: Callable, array: jax.Array) -> jax.Array:
    """The map of an array; ValueError unless its elements are different elements of the array."""
    size = array.size // len(array)
    with jax.ensure_compile_time_eval():
        # Shuffled, so that a mean of several is not one of them again. From 1, because padding gives zeros.
        numbers = 1 + np.random.default_rng(0).permutation(size).astype(np.float32)
        found = np.asarray(reshape(jnp.asarray(numbers.reshape(1, *array.shape[1:]))))
    if found.ndim != 4 or len(np.unique(found)) < found.size or not np.isin(found, numbers).all():
        raise InputError(
            f"reshape makes {found.shape[1:]} of {array.shape[1:]} for each image: expected (h, w, K), each element of "
            "which is a different element of the layer's output, as in camjax.attribution.reshape_tokens."
        )
    return reshape(array)
