"""Depthwise convolution for CPUs, as a sum of shifted images, with derivatives that are as fast.

JAX would differentiate the sum term by term. The gradient of the kernel would then be a reduction over the whole batch
for each of the kernel's places, which took twenty times as long as the convolution.
"""

import jax
import jax.numpy as jnp
from jax import lax

from camjax.models.bilinear import bilinear
from camjax.models.windows import window
from camjax.sharding import varying_alike

# XLA splits a sum of more terms than this (ConvNeXt's 7x7) into several passes over the whole batch when it fuses the
# sum with its neighbors; a loop over the images keeps each pass in the cache.
LARGE_KERNEL = 25


def depthwise(images: jax.Array, kernel: jax.Array, strides, pads) -> jax.Array:
    """Depthwise convolution as a sum over the kernel's places of shifted images times one weight a channel.

    Args:
      images: (B, H, W, K).
      kernel: (kh, kw, K), of the same dtype.
      strides: (sy, sx).
      pads: ((top, bottom), (left, right)), in pixels of zeros.

    Returns:
      (B, H', W', K) in the dtype of `images`.
    """

    def product(images, kernel):
        if kernel.shape[0] * kernel.shape[1] > LARGE_KERNEL:
            return lax.map(lambda image: _shifted_sum(image[None], kernel, strides, pads)[0], images)
        return _shifted_sum(images, kernel, strides, pads)

    return bilinear(
        product,
        lambda kernel, cotangent: _images_cotangent(cotangent, kernel, images.shape, strides, pads),
        lambda images, cotangent: _kernel_cotangent(cotangent, images, kernel.shape, strides, pads),
    )(images, kernel)


def _shifted_sum(images, kernel, strides, pads):
    kh, kw, _ = kernel.shape
    padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    places = [(i, j) for i in range(kh) for j in range(kw)]
    weights = kernel[:, :, None, None, None]  # the rank of windows: some of JAX's settings allow no other
    return sum(window(padded, place, kernel.shape[:2], strides) * weights[place] for place in places)


def _images_cotangent(cotangent, kernel, images_shape, strides, pads):
    """(B, H', W', K) -> (B, H, W, K): the convolution with the turned kernel; spread out where the stride is not 1."""
    if tuple(strides) != (1, 1):
        images = jax.ShapeDtypeStruct(images_shape, cotangent.dtype)
        return jax.linear_transpose(lambda images: _shifted_sum(images, kernel, strides, pads), images)(cotangent)[0]
    turned_pads = [(size - 1 - low, size - 1 - high) for size, (low, high) in zip(kernel.shape[:2], pads, strict=True)]
    return depthwise(cotangent, kernel[::-1, ::-1], strides, turned_pads)


def _kernel_cotangent(cotangent, images, kernel_shape, strides, pads):
    """(B, H', W', K) and (B, H, W, K) -> (kh, kw, K), image by image, which keeps the sums in the cache."""
    kh, kw, _ = kernel_shape

    def add_image(sums, image_and_cotangent):
        image, image_cotangent = image_and_cotangent
        padded = jnp.pad(image, (*pads, (0, 0)))
        products = [
            (window(padded, (i, j), kernel_shape[:2], strides) * image_cotangent).astype(jnp.float32).sum(0)
            for i in range(kh)
            for j in range(kw)
        ]
        return sums + jnp.stack(products), None

    sums, *_ = varying_alike(jnp.zeros((kh * kw, *cotangent.shape[2:]), jnp.float32), images, cotangent)
    sums, _ = lax.scan(add_image, sums, (images, cotangent))
    return sums.sum(1).reshape(kernel_shape).astype(cotangent.dtype)
