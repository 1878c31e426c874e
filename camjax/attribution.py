"""Other ways to weigh a feature map, or the image itself, for a class: by the gradient of the class's score.

Every method is a pure function of arrays and of a function, `method(head_fn, features, targets) -> maps`, float32 and
one map for each image and target: raw, signed, and not normalized, unless the method's definition says otherwise.
`head_fn` has no state: outputs of one image depend on that image alone, as they do for a model in inference mode.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from camjax.inference import check_class_ids


def grad_cam(head_fn: Callable[[jax.Array], jax.Array], features: jax.Array, targets) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, eqs. 1 and 2).

    `alpha_k = mean_{y,x} dS_c / df_k(y, x)`, and the map is `relu(sum_k alpha_k f_k)`: rectified by definition.

    Where the head is a global pooling and one dense layer, `alpha_k = w[k, c] / (h * w)` for average pooling and for
    max pooling alike, so that the map is the rectified class activation map divided by its number of cells.

    Args:
      head_fn: (B, h, w, K) float32 features -> (B, C) scores S, before the softmax.
      features: (B, h, w, K) of any float dtype; any layer's, where `head_fn` is all that follows it.
      targets: (B,) or (B, N) integers in 0..C-1.

    Returns:
      (B, N, h, w) float32, not negative; N = 1 for targets (B,).

    Raises:
      ValueError: features, scores or targets of another shape or type, or concrete targets out of range. Targets
        that are traced cannot raise: one out of range gives a map of NaN.
    """
    features = _images_first(features, "features", "(B, h, w, K)")
    _, gradients = output_gradients(head_fn, features)
    weights = gradients(targets).mean((2, 3))
    maps = jnp.einsum("bhwk,bnk->bnhw", features, weights, precision=jax.lax.Precision.HIGHEST)
    return jax.nn.relu(maps)


def image_gradient(model_fn: Callable[[jax.Array], jax.Array], images: jax.Array, targets) -> jax.Array:
    """Image-gradient saliency: `max_color |dS_c / dI(y, x, color)|` (Simonyan et al. 2014, section 3.1).

    Args:
      model_fn: (B, H, W, 3) float32 images -> (B, C) scores S, before the softmax. A model normalizes for itself, so
        the gradient is with respect to pixels in 0..255.
      images: (B, H, W, 3) RGB in 0..255, uint8 or float.
      targets: (B,) or (B, N) integers in 0..C-1.

    Returns:
      (B, N, H, W) float32, not negative; N = 1 for targets (B,).

    Raises:
      ValueError: as `grad_cam`.
    """
    _, gradients = output_gradients(model_fn, _images_first(images, "images", "(B, H, W, 3)"))
    return saliency(gradients(targets))


def saliency(gradients: jax.Array) -> jax.Array:
    """(..., H, W, 3) gradients with respect to an image -> (..., H, W): the largest magnitude among the colors."""
    return jnp.abs(gradients).max(-1)


def output_gradients(
    function: Callable[[jax.Array], jax.Array], inputs: jax.Array
) -> tuple[jax.Array, Callable[..., jax.Array]]:
    """Scores, and the gradients of any of them, from one forward pass.

    For callers that choose the targets by the scores. The forward pass is made once; going backward there is one
    pullback for each of N targets, all of them in one batch.

    Args:
      function: (B, ...) float32 inputs -> (B, C) scores, each image's from that image alone.
      inputs: (B, ...) of any dtype.

    Returns:
      outputs: (B, C).
      gradients: a function of targets (B,) or (B, N), which returns dS_target / dinputs, (B, N, ...) float32. It
        raises ValueError for targets of another shape or type and for concrete ones out of range; a traced one out of
        range gives NaN.

    Raises:
      ValueError: outputs that are not (B, C).
    """
    inputs = jnp.asarray(inputs).astype(jnp.float32)
    outputs, pullback = jax.vjp(function, inputs)
    batch = len(inputs)
    if outputs.ndim != 2 or len(outputs) != batch:
        raise ValueError(f"scores of shape {outputs.shape} for {batch} images: expected ({batch}, C).")
    classes = outputs.shape[1]

    def gradients(targets):
        ids = jnp.asarray(check_class_ids(targets, batch, classes))
        directions = jax.nn.one_hot(ids, classes, dtype=outputs.dtype)
        (found,) = jax.vmap(pullback, in_axes=1, out_axes=1)(directions)
        known = (ids >= 0) & (ids < classes)
        return jnp.where(known.reshape(known.shape + (1,) * (inputs.ndim - 1)), found, jnp.nan)

    return outputs, gradients


def _images_first(array, name: str, expected: str) -> jax.Array:
    """The array in float32; ValueError unless it has four dimensions."""
    array = jnp.asarray(array)
    if array.ndim != 4:
        raise ValueError(f"{name} of shape {array.shape}: expected {expected}; for one image write {name}[None].")
    return array.astype(jnp.float32)
