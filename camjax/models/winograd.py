"""3x3 convolution of stride 1 by Winograd's F(2x2, 3x3) for CPUs: 16 products for 4 pixels, where the sum takes 36.

Lavin and Gray 2016 (arXiv:1509.09308), section 4.1: Y = A' [(G g G') * (B' d B)] A for each tile d of 4x4 pixels. The
products over the channels are sixteen matrix products, one for each place in a tile. The gradient of the kernel is
the same in reverse, G' [sum over tiles of (B' d B) * (A dY A')] G, and that of the images is the convolution with the
turned kernel. Rounding differs from the sum's by about 1e-6 of the largest value.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from camjax.models.bilinear import bilinear

Pads = tuple[tuple[int, int], tuple[int, int]]

_IMAGES = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])  # B'
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # G
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])  # A'

# Without it XLA fuses the stages, and computes the transform of the images again for each product: three times slower.
_stage = lax.optimization_barrier


def winograd(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """The convolution and its derivatives.

    Args:
      images: (B, H, W, K_in).
      kernel: (3, 3, K_in, K_out), of the same dtype.
      pads: ((top, bottom), (left, right)), in pixels of zeros.

    Returns:
      (B, H', W', K_out).
    """

    def images_cotangent(kernel, cotangent):
        turned_pads = tuple((2 - low, 2 - high) for low, high in pads)
        return _convolution(cotangent, kernel[::-1, ::-1], turned_pads, axis=1)

    return bilinear(
        lambda images, kernel: _convolution(images, kernel, pads, axis=0),
        images_cotangent,
        lambda images, cotangent: kernel_cotangent(images, cotangent, pads),
    )(images, kernel)


def kernel_cotangent(images: jax.Array, cotangent: jax.Array, pads: Pads) -> jax.Array:
    """(B, H, W, K_in) images and (B, H', W', K_out) cotangent of the output -> (3, 3, K_in, K_out) of the kernel."""
    rows, columns = _tiles(cotangent.shape[1:3])
    tiles = _image_tiles(images, rows, columns, pads)
    spread = _transform(_OUTPUT.T, _pad_to(cotangent, 2 * rows, 2 * columns, ((0, 0), (0, 0))), rows, columns)
    products = _stage(
        [lax.dot_general(tile, by, (((0,), (0,)), ((), ()))) for tile, by in zip(tiles, spread, strict=True)]
    )
    by_row = [[_combine(row, products[4 * i : 4 * i + 4]) for row in _KERNEL.T] for i in range(4)]
    by_column = [[_combine(row, [part[j] for part in by_row]) for j in range(3)] for row in _KERNEL.T]
    return jnp.stack([jnp.stack(row) for row in by_column])


def _convolution(images, kernel, pads, axis: int):
    """`axis` is that of the kernel's channels, 0 or 1 of the last two, which are the images'."""
    height, width = (side + sum(pad) - 2 for side, pad in zip(images.shape[1:3], pads, strict=True))
    rows, columns = _tiles((height, width))
    channels = kernel.shape[3 - axis]
    by_row = [_combine(row, list(kernel)) for row in _KERNEL]
    kernels = _stage([_combine(row, list(part)) for part in by_row for row in _KERNEL])
    products = _stage(
        [
            lax.dot_general(tile, by, (((1,), (axis,)), ((), ())))
            for tile, by in zip(_image_tiles(images, rows, columns, pads), kernels, strict=True)
        ]
    )
    half = [[_combine(row, products[j::4]) for j in range(4)] for row in _OUTPUT]
    pixels = jnp.stack([jnp.stack([_combine(row, part) for row in _OUTPUT], -2) for part in half], -3)
    pixels = pixels.reshape(len(images), rows, columns, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(len(images), 2 * rows, 2 * columns, channels)[:, :height, :width]


def _tiles(shape: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // 2), -(-shape[1] // 2)


def _image_tiles(images, rows: int, columns: int, pads: Pads) -> list[jax.Array]:
    """(B, H, W, K) -> sixteen (B * rows * columns, K): overlapping tiles of 4x4 pixels, transformed."""
    return _transform(_IMAGES, _pad_to(images, 2 * rows + 2, 2 * columns + 2, pads), rows, columns)


def _pad_to(images, height: int, width: int, pads: Pads):
    """Pads with zeros to a height and width, of which `pads` says how many come first."""
    (top, _), (left, _) = pads
    after = (height - images.shape[1] - top, width - images.shape[2] - left)
    zero = jnp.zeros((), images.dtype)
    return lax.pad(images, zero, ((0, 0, 0), (top, after[0], 0), (left, after[1], 0), (0, 0, 0)))


def _transform(matrix: np.ndarray, images, rows: int, columns: int) -> list[jax.Array]:
    """M d M' of each tile d, whose side is the width of M; tiles begin at every second pixel."""
    images, side = _stage(images), matrix.shape[1]
    parts = [images[:, i : i + 2 * rows - 1 : 2] for i in range(side)]
    by_row = _stage([_combine(row, parts) for row in matrix])
    return _stage(
        [
            _combine(row, [part[:, :, j : j + 2 * columns - 1 : 2] for j in range(side)]).reshape(-1, images.shape[-1])
            for part in by_row
            for row in matrix
        ]
    )


def _combine(weights: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    """The sum of arrays times weights, mostly 0, 1 and -1; weights are Python's floats, which keep the dtype."""
    terms = [
        array if weight == 1 else -array if weight == -1 else float(weight) * array
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    ]
    return sum(terms[1:], terms[0])
