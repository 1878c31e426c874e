"""Gradients of scores with respect to features, for the methods that use them, and with respect to images."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from camjax.attribution.targets import as_target
from camjax.errors import InputError


def output_gradients(function: Callable[[Any], jax.Array], inputs: Any) -> tuple[jax.Array, Callable[..., Any]]:
    """Outputs, and the gradients of any scores of them, from one forward pass.

    For callers that choose the targets by the outputs. There is one forward pass, and one backward pass for each of N
    targets, all of them in one batch.

    Args:
      function: (B, ...) float32 inputs -> (B, ...) outputs, each image's from that image alone.
      inputs: (B, ...) of any dtype, or a tree of such arrays.

    Returns:
      outputs: (B, ...).
      gradients: a function of targets, as in `camjax.attribution.targets.as_target`, which returns
        dS_target / dinputs, (B, N, ...) float32 for each array of the inputs. It raises ValueError for targets that
        do not fit the outputs; a score that is NaN, as that of a traced class id out of range, has gradients of NaN.
    """
    inputs = jax.tree.map(lambda array: jnp.asarray(array).astype(jnp.float32), inputs)
    outputs, pullback = jax.vjp(function, inputs)

    def gradients(targets):
        target = as_target(targets, outputs)
        scores = target(outputs)
        batch, count = scores.shape
        # One direction for each target, the same for all images: no score depends on another image.
        directions = jnp.eye(count, dtype=scores.dtype)[:, None]
        to_outputs = jax.grad(lambda outputs, direction: (target(outputs) * direction).sum())
        cotangents = jax.vmap(to_outputs, (None, 0))(outputs, directions)
        try:
            (found,) = jax.vmap(pullback, out_axes=1)(cotangents)
        except NotImplementedError:
            # JAX cannot batch all primitives that a caller's network may have: not `linear_call`.
            (found,) = jax.tree.map(lambda array: jnp.swapaxes(array, 0, 1), jax.lax.map(pullback, cotangents))
        unknown = jnp.isnan(scores)
        return jax.tree.map(
            lambda array: jnp.where(unknown.reshape(batch, count, *[1] * (array.ndim - 2)), jnp.nan, array), found
        )

    return outputs, gradients


def by_gradients(maps: Callable, head_fn: Callable, features: jax.Array, targets: Any) -> jax.Array:
    """A method's maps from its function of features and gradients, `maps(features, gradients)`.

    Args:
      maps: (B, h, w, K) features and (B, N, h, w, K) gradients of the scores -> (B, N, h, w).
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    _, gradients = output_gradients(head_fn, features)
    return maps(features, gradients(targets))


def hessian_products(function: Callable[[Any], jax.Array], inputs: Any, targets: Any) -> tuple[Any, Any]:
    """Gradients of scores, and the Hessians of scores times the inputs, by a derivative of the backward pass.

    Args:
      function: as in `output_gradients`.
      inputs: as in `output_gradients`.
      targets: as in `camjax.attribution.targets.as_target`.

    Returns:
      gradients: dS / dx, (B, N, ...) float32 for each array x of the inputs.
      products: `(d2S / dx2) x`, alike; for each array with the others left as they are.
    """
    inputs = jax.tree.map(lambda array: jnp.asarray(array).astype(jnp.float32), inputs)
    leaves, structure = jax.tree.flatten(inputs)

    def gradients_of(*leaves):
        found = output_gradients(function, jax.tree.unflatten(structure, leaves))[1](targets)
        return jax.tree.leaves(found)

    gradients, products = gradients_of(*leaves), []
    for i, leaf in enumerate(leaves):
        _, tangents = jax.jvp(lambda leaf, i=i: gradients_of(*leaves[:i], leaf, *leaves[i + 1 :])[i], (leaf,), (leaf,))
        products.append(tangents)
    return jax.tree.unflatten(structure, gradients), jax.tree.unflatten(structure, products)


def image_gradient(model_fn: Callable[[jax.Array], jax.Array], images: jax.Array, targets) -> jax.Array:
    """Image-gradient saliency: `max_color |dS_c / dI(y, x, color)|` (Simonyan et al. 2014, section 3.1).

    It says where the score is sensitive to the image, not in which direction.

    Args:
      model_fn: (B, H, W, 3) float32 images -> (B, C) scores S, before the softmax. A model normalizes for itself, so
        the gradient is with respect to pixels in 0..255.
      images: (B, H, W, 3) RGB in 0..255, uint8 or float.
      targets: as in `camjax.attribution.grad_cam`.

    Returns:
      (B, N, H, W) float32, not negative; N = 1 for targets (B,).

    Raises:
      ValueError: as `camjax.attribution.grad_cam`.
    """
    _, gradients = output_gradients(model_fn, images_first(images, "images", "(B, H, W, 3)"))
    return saliency(gradients(targets))


def saliency(gradients: jax.Array) -> jax.Array:
    """(..., H, W, 3) gradients of an image -> (..., H, W): the largest magnitude of a color (Simonyan et al. 2014)."""
    return jnp.abs(gradients).max(-1)


def images_first(array, name: str, expected: str) -> jax.Array:
    """The array in float32; ValueError unless it has four dimensions."""
    array = jnp.asarray(array)
    if array.ndim != 4:
        raise InputError(f"{name} of shape {array.shape}: expected {expected}; for one image write {name}[None].")
    return array.astype(jnp.float32)
