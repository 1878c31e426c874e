"""FullGrad: the gradient of the image, and that of every bias, which together make up the score."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from camjax.cam import normalize_map, resize_map


def full_grad_maps(
    images: jax.Array,
    image_gradients: jax.Array,
    biases: Sequence[jax.Array],
    bias_gradients: Sequence[jax.Array],
) -> jax.Array:
    """FullGrad (Srinivas and Fleuret 2019, eq. 5), of convolutions, dense layers on maps, and BatchNorms.

    The score S of a piecewise linear network is `sum x dS/dx + sum b dS/db`, over the input x and all biases b. The map
    is `sum_color psi(x dS/dx) + sum_layers sum_k psi(b_k dS/dz_k)`, where z is the layer's output, as large as its
    feature map, and psi takes the magnitude, scales it to 0..1 and resizes it to the image (bilinear). Biases of layers
    without places, as those of a head, are left out. Every channel is scaled by itself: a map says how much of each has
    its place somewhere, and not how much there is.

    Args:
      images: (B, H, W, C) float32 x, with 0 where the network's own input is 0: less the mean that it subtracts.
      image_gradients: (B, N, H, W, C).
      biases: of each layer, (K,).
      bias_gradients: of each layer, (B, N, h, w, K), with respect to its output.

    Returns:
      (B, N, H, W) float32, not negative.
    """
    size = images.shape[1:3]
    terms = [images[:, None] * image_gradients]
    terms += [bias[None, None, None, None] * of_layer for bias, of_layer in zip(biases, bias_gradients, strict=True)]
    # Resizing is linear: the channels may be added before.
    return sum((resize_map(_scaled(term).sum(2), size) for term in terms[1:]), _scaled(terms[0]).sum(2))


def _scaled(terms):
    """(B, N, h, w, K) -> (B, N, K, h, w) magnitudes in 0..1; a NaN stays."""
    magnitudes = jnp.abs(jnp.moveaxis(terms, -1, 2))
    unknown = jnp.isnan(magnitudes).any((-2, -1), keepdims=True)
    return jnp.where(unknown, jnp.nan, normalize_map(magnitudes))
