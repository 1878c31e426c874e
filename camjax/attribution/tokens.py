"""Token networks such as ViT: tokens become a map on which every method works, and the map becomes tokens again."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from camjax.attribution.network import CutNetwork, SharedWeights, whole_module
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
        return tokens[:, self.skip :].reshape(tokens.shape[0], self.height, self.width, -1)


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


def reshaped(network: CutNetwork, reshape: "Callable[[jax.Array], jax.Array] | ByImage") -> CutNetwork:
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
    return SharedWeights.of(
        _Features(reshape), _Head(reshape), _whole if isinstance(reshape, ByImage) else None, network
    )


@dataclass(frozen=True)
class ByImage:
    """Tokens as a map whose size follows the image's; a layer's output that is a map already stays as it is.

    Attributes:
      patch: side of a patch in pixels.
      skip: as in `reshape_tokens`.
    """

    patch: int
    skip: int

    def of(self, images: jax.Array) -> Callable[[jax.Array], jax.Array]:
        """What `reshaped` takes, for images (B, H, W, 3)."""
        _, height, width, _ = images.shape
        grid = reshape_tokens(height // self.patch, width // self.patch, self.skip)
        return lambda array: array if array.ndim == 4 else grid(array)


@dataclass(frozen=True)
class _Features:
    """Functions that are equal if their reshape is, or programs would compile anew."""

    reshape: Callable | ByImage

    def __call__(self, network, images):
        reshape = _for_images(self.reshape, images)
        checked = reshape if isinstance(self.reshape, ByImage) else functools.partial(_checked, reshape)
        return jax.tree.map(checked, network.features(images))


@dataclass(frozen=True)
class _Head:
    reshape: Callable | ByImage

    def __call__(self, network, maps, images):
        features, reshape = network.features(images), _for_images(self.reshape, images)
        # As in `SharedWeights`.
        features = jax.lax.stop_gradient(features) if isinstance(features, tuple) else features

        def put_back(array, of_map):
            # Choosing is linear: its transpose puts each value of the map back where it came from.
            to_places = jax.linear_transpose(reshape, array)
            (shown,) = to_places(jnp.ones(of_map.shape, array.dtype))
            (values,) = to_places(of_map.astype(array.dtype))
            return jnp.where(shown == 1, values, array)

        return network.head(jax.tree.map(put_back, features, maps), images)


def _for_images(reshape: Callable | ByImage, images: jax.Array) -> Callable:
    return reshape.of(images) if isinstance(reshape, ByImage) else reshape


def _whole(network):
    return whole_module(network)


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
