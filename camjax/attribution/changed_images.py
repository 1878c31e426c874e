"""What methods that change images have in common: checked arguments, the baseline, and the key of their noise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from camjax.attribution.network import as_pytree
from camjax.attribution.targets import Target, as_target
from camjax.errors import InputError


def checked(network_fn: Callable, images: ArrayLike, targets: Any) -> tuple[Callable, jax.Array, Target]:
    """The network as a pytree, images (B, H, W, C), and targets as a function of the outputs.

    Raises:
      ValueError: images of another shape, or targets that do not fit the outputs.
    """
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise InputError(f"images of shape {images.shape}: expected (B, H, W, C); for one image write images[None].")
    network = as_pytree(network_fn)
    of_floats = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    return network, images, as_target(targets, jax.eval_shape(lambda images: network(images), of_floats))


def broadcast_baseline(baseline: ArrayLike, images: jax.Array) -> jax.Array:
    """The baseline in float32 with B rows, (B, 1 or H, 1 or W, 1 or C).

    Raises:
      ValueError: anything but a number, a color (C,), or images that broadcast to (B, H, W, C).
    """
    baseline = jnp.asarray(baseline, jnp.float32)
    if baseline.ndim > images.ndim or any(
        a not in (1, b) for a, b in zip(baseline.shape[::-1], images.shape[::-1], strict=False)
    ):
        raise InputError(
            f"baseline of shape {baseline.shape} for images of shape {images.shape}: expected a number, a color (C,), "
            "or images that broadcast to those."
        )
    unseen = baseline.reshape([1] * (images.ndim - baseline.ndim) + [*baseline.shape])
    return jnp.broadcast_to(unseen, (len(images), *unseen.shape[1:]))


def noise_key(key: jax.Array | None) -> jax.Array:
    """The key, or `jax.random.key(0)` for None."""
    return jax.random.key(0) if key is None else key
