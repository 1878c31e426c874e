"""Hide-and-Seek: random squares of the training images are hidden (Singh and Lee 2017, arXiv:1704.04232)."""

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.wsol.method import TrainingLoss, WsolMethod, stream


class HideAndSeek(WsolMethod):
    """A network of any kind; in training, squares of the grid are hidden in each image independently.

    Args:
      model: that it becomes a part of.
      grid_size: side of the squares in pixels.
      drop_rate: probability of a square to be hidden.
      rngs: random keys.
    """

    def __init__(self, model, *, grid_size: int, drop_rate: float, rngs: nnx.Rngs):
        self.grid_size, self.drop_rate = grid_size, drop_rate
        self.rngs = stream(rngs)

    def loss(self, model, images, labels, loss, axis_name=None) -> TrainingLoss:
        """The loss of the images with hidden squares."""
        batch, height, width, _ = images.shape
        squares = (batch, -(-height // self.grid_size), -(-width // self.grid_size))
        hidden = jax.random.bernoulli(self.rngs(), jnp.float32(self.drop_rate), squares)
        images = hide(images, hidden, self.grid_size, model.mean_of(height, width))
        return super().loss(model, images, labels, loss, axis_name)


def hide(images: jax.Array, hidden: jax.Array, grid_size: int, color: jax.Array) -> jax.Array:
    """Replaces squares of images by a color.

    Args:
      images: (B, H, W, 3) RGB in 0..255.
      hidden: (B, ceil(H / grid_size), ceil(W / grid_size)) bool; squares at the far edges are cut off.
      grid_size: side of a square in pixels.
      color: (3,) or (H, W, 3): of the network's mean, which it turns into zeros.

    Returns:
      (B, H, W, 3) float32.
    """
    batch, height, width, _ = images.shape
    _, rows, columns = hidden.shape
    pixels = jnp.broadcast_to(hidden[:, :, None, :, None], (batch, rows, grid_size, columns, grid_size))
    pixels = pixels.reshape(batch, rows * grid_size, columns * grid_size)[:, :height, :width, None]
    return jnp.where(pixels, jnp.broadcast_to(color, images.shape), images.astype(jnp.float32))
