r"""Methods that weigh a feature map by the gradient of a score: one forward and one backward pass of the head.

All have one signature, `method(head_fn, features, targets) -> maps`. The head is all of the network that follows the
features; its outputs of one image depend on that image alone, as they do for a model in inference mode. Maps are raw:
not normalized, and signed unless the method's definition rectifies. A traced class id cannot raise: one out of range
gives a map of NaN.

With global average pooling and one dense layer the gradient `g = dS / df` is `w[k, c] / (h * w)` everywhere: Grad-CAM
is there the rectified class activation map over its h * w cells, and XGrad-CAM and HiResCAM are that map without the
rectification.

Each is also a function `<method>_maps(features, gradients)` of features (B, h, w, K) and gradients (B, N, h, w, K)
alone, both float32: the rows of `camjax.attribution.METHODS`; several of them share one backward pass.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from camjax.attribution.gradients import by_gradients

_EPSILON = 1e-7
"""Takes the place of a denominator of 0, so that 0 / 0 is 0."""


def grad_cam(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, eqs. 1 and 2).

    With the gradient `g = dS / df` of the score, `a_k = mean_{y,x} g_k(y, x)`, and the map is `relu(sum_k a_k f_k)`:
    rectified by definition, so that it does not sum to the score.

    Args:
      head_fn: (B, h, w, K) float32 features -> outputs (B, ...), before any softmax.
      features: (B, h, w, K) f of any float dtype, of any layer.
      targets: class ids (B,) or (B, N), or a function of the outputs; see `camjax.attribution.targets`.

    Returns:
      (B, N, h, w) float32, not negative; N = 1 for class ids (B,).

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    return by_gradients(grad_cam_maps, head_fn, features, targets)


def grad_cam_plus_plus(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """Grad-CAM++ (Chattopadhyay et al. 2018, eqs. 10, 13 and 19).

    With `g = dS / df`, `a_k(y, x) = g^2 / (2 g^2 + sum_{v,u} f_k(v, u) g^3)`, 0 where g is 0; the map is
    `relu(sum_k sum_{v,u} a_k(v, u) relu(g_k(v, u)) f_k)`: rectified by definition, and no share of the score. The
    score is taken as the exponential of the output, as in the paper: its derivatives are then powers of g.

    Args:
      head_fn: (B, h, w, K) float32 features -> outputs (B, ...), before any softmax.
      features: (B, h, w, K) f of any float dtype, of any layer.
      targets: class ids (B,) or (B, N), or a function of the outputs; see `camjax.attribution.targets`.

    Returns:
      (B, N, h, w) float32, not negative; N = 1 for class ids (B,).

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    return by_gradients(grad_cam_plus_plus_maps, head_fn, features, targets)


def xgrad_cam(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """XGrad-CAM (Fu et al. 2020, eqs. 7 and 8).

    With `g = dS / df`, `a_k = sum_{y,x} f_k g_k / sum_{y,x} f_k`, 0 for a channel whose sum is 0; the map is
    `sum_k a_k f_k`. Its sum is `sum f g`, which is the score for a head that is homogeneous of degree one, as a
    piecewise linear one without biases is.

    Args:
      head_fn: (B, h, w, K) float32 features -> outputs (B, ...), before any softmax.
      features: (B, h, w, K) f of any float dtype, of any layer.
      targets: class ids (B,) or (B, N), or a function of the outputs; see `camjax.attribution.targets`.

    Returns:
      (B, N, h, w) float32, signed; N = 1 for class ids (B,).

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    return by_gradients(xgrad_cam_maps, head_fn, features, targets)


def hires_cam(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """HiResCAM (Draelos and Carin 2020, eq. 6): `sum_k g_k f_k`, with `g = dS / df`.

    The map's sum is the score, without the bias, for a head that is linear.

    Args:
      head_fn: (B, h, w, K) float32 features -> outputs (B, ...), before any softmax.
      features: (B, h, w, K) f of any float dtype, of any layer.
      targets: class ids (B,) or (B, N), or a function of the outputs; see `camjax.attribution.targets`.

    Returns:
      (B, N, h, w) float32, signed; N = 1 for class ids (B,).

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    return by_gradients(hires_cam_maps, head_fn, features, targets)


def layer_cam(head_fn: Callable, features: jax.Array, targets) -> jax.Array:
    """LayerCAM (Jiang et al. 2021, eqs. 5 to 7): `relu(sum_k relu(g_k) f_k)`, with `g = dS / df`.

    Made for layers that are not the last one. Rectified by definition, so that it does not sum to the score.

    Args:
      head_fn: (B, h, w, K) float32 features -> outputs (B, ...), before any softmax.
      features: (B, h, w, K) f of any float dtype, of any layer.
      targets: class ids (B,) or (B, N), or a function of the outputs; see `camjax.attribution.targets`.

    Returns:
      (B, N, h, w) float32, not negative; N = 1 for class ids (B,).

    Raises:
      ValueError: features of another shape, or targets that do not fit the outputs.
    """
    return by_gradients(layer_cam_maps, head_fn, features, targets)


def weighted_sum(features: jax.Array, weights: jax.Array) -> jax.Array:
    """(B, h, w, K) features and (B, N, K) weights of their channels -> (B, N, h, w) float32."""
    return jnp.einsum("bhwk,bnk->bnhw", features, weights, precision=jax.lax.Precision.HIGHEST)


def grad_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`grad_cam` from gradients."""
    return jax.nn.relu(weighted_sum(features, gradients.mean((2, 3))))


def grad_cam_plus_plus_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`grad_cam_plus_plus` from gradients."""
    # The paper's quotient with g^2 divided out: the powers of a small g would be lost in float32.
    totals = features.sum((1, 2))[:, None, None, None]
    shares = jnp.where(gradients == 0, 0, 1 / away_from_zero(2 + totals * gradients))
    return jax.nn.relu(weighted_sum(features, (shares * jax.nn.relu(gradients)).sum((2, 3))))


def xgrad_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`xgrad_cam` from gradients."""
    totals = features.sum((1, 2))[:, None]
    products = jnp.einsum("bhwk,bnhwk->bnk", features, gradients, precision=jax.lax.Precision.HIGHEST)
    return weighted_sum(features, products / away_from_zero(totals))


def hires_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`hires_cam` from gradients."""
    return jnp.einsum("bhwk,bnhwk->bnhw", features, gradients, precision=jax.lax.Precision.HIGHEST)


def layer_cam_maps(features: jax.Array, gradients: jax.Array) -> jax.Array:
    """`layer_cam` from gradients."""
    return jax.nn.relu(hires_cam_maps(features, jax.nn.relu(gradients)))


def away_from_zero(values: jax.Array) -> jax.Array:
    """The values with zeros replaced by a tiny number: what is divided by them is zero as well."""
    return jnp.where(values == 0, _EPSILON, values)
