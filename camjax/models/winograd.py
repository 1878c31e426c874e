"""3x3 convolution of stride 1 by Winograd's F(2x2, 3x3) for CPUs: 16 products for 4 pixels, where the sum takes 36.

Lavin and Gray 2016 (arXiv:1509.09308), section 4.1: Y = A' [(G g G') * (B' d B)] A for each tile d of 4x4 pixels. The
products over the channels are sixteen matrix products, one for each place in a tile. The gradient of the kernel is
the same in reverse, G' [sum over tiles of (B' d B) * (A dY A')] G, and that of the images is the convolution with the
turned kernel. Rounding differs from the sum's by about 1e-6 of the largest value.

The sixteen places are a loop: written out, the program compiles three times as long.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pads = tuple[tuple[int, int], tuple[int, int]]

# Each row of B' is one pixel plus or minus another: their places and the sign.
_FIRST, _SECOND, _SIGN = np.array([0, 1, 2, 1]), np.array([2, 2, 1, 3]), np.array([-1, 1, -1, -1], np.float32)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)  # G
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float32)  # A'

_ROWS, _COLUMNS = np.repeat(np.arange(4), 4), np.tile(np.arange(4), 4)  # of the sixteen places
_TILES = tuple(table[places] for places in (_ROWS, _COLUMNS) for table in (_FIRST, _SECOND, _SIGN))
_KERNELS = np.einsum("pa,pb->pab", _KERNEL[_ROWS], _KERNEL[_COLUMNS])


def convolution(images: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """The convolution.

    Args:
      images: (B, H, W, K_in).
      kernel: (3, 3, K_in, K_out), of the same dtype.
      pads: ((top, bottom), (left, right)), in pixels of zeros.

    Returns:
      (B, H', W', K_out).
    """
    return _convolution(images, kernel, pads, axis=0)


def images_cotangent(kernel: jax.Array, cotangent: jax.Array, pads: Pads) -> jax.Array:
    """(3, 3, K_in, K_out) kernel and (B, H', W', K_out) cotangent of the output -> (B, H, W, K_in) of the images."""
    turned_pads = tuple((2 - low, 2 - high) for low, high in pads)
    return _convolution(cotangent, kernel[::-1, ::-1], turned_pads, axis=1)


def kernel_cotangent(images: jax.Array, cotangent: jax.Array, pads: Pads) -> jax.Array:
    """(B, H, W, K_in) images and (B, H', W', K_out) cotangent of the output -> (3, 3, K_in, K_out) of the kernel."""
    rows, columns = _tiles(*cotangent.shape[1:3])
    padded = _pad_to(images, 2 * rows + 2, 2 * columns + 2, pads)
    outputs = _pad_to(cotangent, 2 * rows, 2 * columns, ((0, 0), (0, 0)))
    outputs = outputs.reshape(cotangent.shape[0], rows, 2, columns, 2, cotangent.shape[-1])

    def product(_, place):
        tile, (row, column) = place
        parts = [row[i] * column[j] * outputs[:, :, i, :, j] for i in range(2) for j in range(2)]
        spread = sum(parts[1:], parts[0]).reshape(-1, cotangent.shape[-1])
        return None, lax.dot_general(_image_tiles(padded, tile, rows, columns), spread, (((0,), (0,)), ((), ())))

    places = (_TILES, (_OUTPUT.T[_ROWS], _OUTPUT.T[_COLUMNS]))
    _, products = lax.scan(product, None, places)
    products = products.reshape(4, 4, *products.shape[1:])
    by_row = [_combine(weights, list(products)) for weights in _KERNEL.T]
    return jnp.stack([jnp.stack([_combine(weights, list(part)) for weights in _KERNEL.T]) for part in by_row])


def _convolution(images, kernel, pads, axis: int):
    """`axis` is that of the kernel's channels, 0 or 1 of the last two, which are the images'."""
    height, width = (side + sum(pad) - 2 for side, pad in zip(images.shape[1:3], pads, strict=True))
    rows, columns = _tiles(height, width)
    padded = _pad_to(images, 2 * rows + 2, 2 * columns + 2, pads)

    def product(_, place):
        tile, weights = place
        parts = [weights[i, j] * kernel[i, j] for i in range(3) for j in range(3)]
        # Kept apart from the product, and the sums of rows below from those of columns: XLA would compute them again
        # for each of their uses.
        transformed = lax.optimization_barrier(sum(parts[1:], parts[0]))
        return None, lax.dot_general(
            _image_tiles(padded, tile, rows, columns), transformed, (((1,), (axis,)), ((), ()))
        )

    _, products = lax.scan(product, None, (_TILES, _KERNELS))
    products = products.reshape(4, 4, images.shape[0], rows, columns, -1)
    by_row = [lax.optimization_barrier(_combine(weights, list(products))) for weights in _OUTPUT]
    pixels = jnp.stack([jnp.stack([_combine(row, list(part)) for row in _OUTPUT], 3) for part in by_row], 2)
    return pixels.reshape(images.shape[0], 2 * rows, 2 * columns, -1)[:, :height, :width]


def _tiles(height: int, width: int) -> tuple[int, int]:
    return -(-height // 2), -(-width // 2)


def _image_tiles(padded, place, rows: int, columns: int):
    """(B, 2 rows + 2, 2 columns + 2, K) -> (B * rows * columns, K): B' d B of all tiles at one place."""
    top, bottom, vertical, left, right, horizontal = place

    def pixels(y, x):
        size = (padded.shape[0], 2 * rows - 1, 2 * columns - 1, padded.shape[-1])
        return lax.dynamic_slice(padded, (0, y, x, 0), size)[:, ::2, ::2]

    upper = pixels(top, left) + horizontal * pixels(top, right)
    lower = pixels(bottom, left) + horizontal * pixels(bottom, right)
    return (upper + vertical * lower).reshape(-1, padded.shape[-1])


def _pad_to(images, height: int, width: int, pads: Pads):
    """Pads with zeros to a height and width, of which `pads` says how many come first."""
    (top, _), (left, _) = pads
    after = (height - images.shape[1] - top, width - images.shape[2] - left)
    zero = jnp.zeros((), images.dtype)
    return lax.pad(images, zero, ((0, 0, 0), (top, after[0], 0), (left, after[1], 0), (0, 0, 0)))


def _combine(weights: np.ndarray, arrays: list[jax.Array]) -> jax.Array:
    """The sum of arrays times weights, mostly 0, 1 and -1; weights are Python's floats, which keep the dtype."""
    terms = [
        array if weight == 1 else -array if weight == -1 else float(weight) * array
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    ]
    return sum(terms[1:], terms[0])
