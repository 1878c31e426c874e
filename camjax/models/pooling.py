"""Max pooling that is fast on a CPU, and native on accelerators.

XLA's CPU backend takes ten times as long for the gradient (`select_and_scatter`) as for the maximum of shifted images,
which takes the same pixels: of those that share a window's maximum, the first has its gradient, as in PyTorch. Other
dtypes than float32 keep the native form.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from camjax.models.windows import Pads, window


def max_pool(x: jax.Array, size: int, strides: int, pads: Pads = ((0, 0), (0, 0))) -> jax.Array:
    """The maxima over windows of size x size pixels; pixels outside of the image do not count.

    Args:
      x: (B, H, W, K).
      size: side of the window in pixels.
      strides: in pixels.
      pads: ((top, bottom), (left, right)), in pixels outside of the image that windows may cover.

    Returns:
      (B, H', W', K) in the dtype of x.
    """

    def native(x):
        return nnx.max_pool(x, (size, size), (strides, strides), padding=pads)

    if x.dtype != jnp.float32:
        return native(x)
    with jax.named_scope("max_pool"):
        return lax.platform_dependent(x, cpu=_shifted_maximum(x.shape, size, strides, pads), default=native)


def _shifted_maximum(shape: Sequence[int], size: int, strides: int, pads: Pads):
    places = [(i, j) for i in range(size) for j in range(size)]

    def windows(x) -> list[jax.Array]:
        low = jnp.full((), -jnp.inf, x.dtype)
        padded = lax.pad(x, low, ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
        return [window(padded, place, (size, size), (strides, strides)) for place in places]

    @jax.custom_vjp
    def maximum(x):
        return functools.reduce(jnp.maximum, windows(x))

    def maximum_and_place(image):
        y, *others = windows(image[None])
        place = jnp.zeros(y.shape, jnp.uint8)
        for number, pixels in enumerate(others, 1):
            place = jnp.where(pixels > y, jnp.uint8(number), place)
            y = jnp.maximum(y, pixels)
        return y[0], place[0]

    def image_cotangent(place_and_cotangent):
        place, cotangent = place_and_cotangent
        zero = jnp.zeros((), cotangent.dtype)
        parts = {at: jnp.where(place == number, cotangent, zero)[None] for number, at in enumerate(places)}
        return _spread(parts, (1, *shape[1:]), strides, pads)[0]

    # Image by image: in one go, XLA computes the places again for each place of the gradient.
    maximum.defvjp(
        lambda x: lax.map(maximum_and_place, x),
        lambda place, cotangent: (lax.map(image_cotangent, (place, cotangent)),),
    )
    return maximum


def _spread(parts: dict[tuple[int, int], jax.Array], shape: Sequence[int], strides: int, pads: Pads) -> jax.Array:
    """(B, H', W', K) for each place of a window -> their sum on (B, H, W, K) images.

    Pixels of the same row and column modulo the stride meet the same places, a window apart.
    """
    batch, height, width, channels = shape
    part = next(iter(parts.values()))
    (_, rows, columns, _), zero = part.shape, jnp.zeros((), part.dtype)
    most = max(i for i, _ in parts) // strides
    (top, _), (left, _) = pads
    tall = max(-(-(height + top) // strides), rows + most)
    wide = max(-(-(width + left) // strides), columns + most)

    def of_phase(phase):
        shifted = [
            lax.pad(
                part,
                zero,
                (
                    (0, 0, 0),
                    (i // strides, tall - rows - i // strides, 0),
                    (j // strides, wide - columns - j // strides, 0),
                    (0, 0, 0),
                ),
            )
            for (i, j), part in parts.items()
            if (i % strides, j % strides) == phase
        ]
        return sum(shifted[1:], shifted[0]) if shifted else jnp.broadcast_to(zero, (batch, tall, wide, channels))

    image = jnp.stack([jnp.stack([of_phase((i, j)) for j in range(strides)], 3) for i in range(strides)], 2)
    image = image.reshape(batch, tall * strides, wide * strides, channels)
    return image[:, top : top + height, left : left + width]
