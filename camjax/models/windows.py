"""The gradient of a convolution's kernel as a product of the images' windows, for CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

from camjax.sharding import varying_alike

Pads = tuple[tuple[int, int], tuple[int, int]]


def window(padded: jax.Array, place: tuple[int, int], kernel_size: tuple[int, int], strides) -> jax.Array:
    """(..., H, W, K) padded images -> (..., H', W', K) the pixels that a place (i, j) of a kernel meets."""
    starts, limits, steps = [0] * padded.ndim, list(padded.shape), [1] * padded.ndim
    for axis, start, size, stride in zip((-3, -2), place, kernel_size, strides, strict=True):
        last = (padded.shape[axis] - size) // stride * stride
        if not is_symbolic_dim(last) and last < 0:
            start, last = 0, -1  # no pixel
        starts[axis], limits[axis], steps[axis] = start, start + last + 1, stride
    return lax.slice(padded, starts, limits, steps)


def kernel_cotangent(images: jax.Array, cotangent: jax.Array, kernel_size: tuple[int, int], strides, pads: Pads):
    """The cotangent of a dense convolution's kernel: one matrix product for each image, which keeps it in the cache.

    Args:
      images: (B, H, W, K_in).
      cotangent: (B, H', W', K_out), of the convolution's output.
      kernel_size: (kh, kw).
      strides: (sy, sx).
      pads: ((top, bottom), (left, right)), in pixels of zeros.

    Returns:
      (kh, kw, K_in, K_out).
    """
    kh, kw = kernel_size
    channels, outputs = images.shape[-1], cotangent.shape[-1]
    zero = jnp.zeros((), images.dtype)
    padded = lax.pad(images, zero, ((0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)))
    # Channels first: a product that sums over the first axis of both sides is half as fast.
    padded = lax.optimization_barrier(padded.transpose(0, 3, 1, 2))
    rows, columns = np.divmod(np.arange(kh * kw), kw)
    spans = [(side - 1) * stride + 1 for side, stride in zip(cotangent.shape[1:3], strides, strict=True)]

    def add_image(total, image_and_cotangent):
        image, by = image_and_cotangent

        def pixels(place):  # in a loop: written out, a stem's 49 take a second to compile
            return lax.dynamic_slice(image, (0, *place), (channels, *spans))[:, :: strides[0], :: strides[1]]

        matrix = lax.map(pixels, (rows, columns)).reshape(kh * kw * channels, -1)
        return total + matrix @ by.reshape(-1, outputs), None

    start, *_ = varying_alike(jnp.zeros((kh * kw * channels, outputs), cotangent.dtype), padded, cotangent)
    return lax.scan(add_image, start, (padded, cotangent))[0].reshape(kh, kw, channels, outputs)
