"""The baseline that looks at nothing: one map for all images and classes, highest in the middle (Choe et al. 2020)."""

import jax
import jax.numpy as jnp

CENTER_SIGMA = 0.2
"""Standard deviation of the Gaussian, as a share of the image's height and width."""


def center_gaussian(size: tuple[int, int]) -> jax.Array:
    """A Gaussian in the middle of an image, 1 at its center.

    At the threshold 0.2 its box takes the middle 72 % of height and width, about half of the image.

    Args:
      size: (H, W) of the image in pixels.

    Returns:
      (H, W) float32.
    """
    y, x = (((jnp.arange(side, dtype=jnp.float32) + 0.5) / side - 0.5) / CENTER_SIGMA for side in size)
    return jnp.exp(-(y[:, None] ** 2 + x[None] ** 2) / 2)
