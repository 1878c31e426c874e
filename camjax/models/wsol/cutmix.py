"""CutMix: a box of each training image comes from another one, and so does its share of the label.

Yun et al. 2019, arXiv:1905.04899.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.models.wsol.method import SAME_ON_ALL_DEVICES, TrainingLoss, WsolMethod, stream


class Draws(NamedTuple):
    """What is drawn for a batch.

    Attributes:
      permutation: (B,) int: the image that each one gets its box from.
      lam: () float32 in 0..1, of Beta(beta, beta): the share of its own pixels before the box is clipped.
      center: (2,) int: the row and the column of the box's center.
      mixed: () bool: whether the batch is mixed at all.
    """

    permutation: jax.Array
    lam: jax.Array
    center: jax.Array
    mixed: jax.Array


class CutMix(WsolMethod):
    """A network of any kind; in training, images are mixed within the batch.

    On several devices they are mixed within a device, with the same box and the same order of images on each, and so
    within each of the parts that a batch is accumulated of.

    Args:
      model: that it becomes a part of.
      beta: of the distribution of the box's area.
      probability: of a batch to be mixed.
      rngs: random keys.
    """

    def __init__(self, model, *, beta: float, probability: float, rngs: nnx.Rngs):
        self.beta, self.probability = beta, probability
        self.rngs = stream(rngs, SAME_ON_ALL_DEVICES)

    def loss(self, model, images, labels, loss, axis_name=None) -> TrainingLoss:
        """The losses by both labels, weighted by the shares of pixels."""
        draws = draw(self.rngs(), images.shape[:3], self.beta, self.probability)
        images, share = mix(images, draws)
        logits = model(images)
        return TrainingLoss(
            logits, share * loss(logits, labels) + (1 - share) * loss(logits, labels[draws.permutation])
        )


def draw(key: jax.Array, shape: tuple[int, int, int], beta: float, probability: float) -> Draws:
    """Draws the boxes of a batch of (B, H, W) pixels."""
    order, lam, row, column, mixed = jax.random.split(key, 5)
    batch, height, width = shape
    rows, columns = (jax.random.randint(k, (), 0, side, jnp.int32) for k, side in ((row, height), (column, width)))
    return Draws(
        jax.random.permutation(order, batch),
        jax.random.beta(lam, jnp.float32(beta), jnp.float32(beta), dtype=jnp.float32),
        jnp.stack([rows, columns]),
        jax.random.bernoulli(mixed, jnp.float32(probability)),
    )


def mix(images: jax.Array, draws: Draws) -> tuple[jax.Array, jax.Array]:
    """Puts a box of other images into each.

    The box is `int(side * sqrt(1 - lam)) // 2` pixels to either side of its center, clipped to the image.

    Args:
      images: (B, H, W, 3).
      draws: for these.

    Returns:
      The mixed images, of the same type, and () float32, the share of pixels that each kept.
    """
    sides = images.shape[1:3]
    inside, areas = [], []
    for side, center in zip(sides, draws.center, strict=True):
        half = (jnp.float32(side) * jnp.sqrt(1 - draws.lam)).astype(jnp.int32) // 2
        low, high = (jnp.clip(edge, 0, side) for edge in (center - half, center + half))
        pixels = jnp.arange(side, dtype=jnp.int32)
        inside.append((pixels >= low) & (pixels < high) & draws.mixed)
        areas.append(jnp.where(draws.mixed, high - low, 0).astype(jnp.float32) / side)
    box = (inside[0][:, None] & inside[1][None, :])[None, :, :, None]
    return jnp.where(box, images[draws.permutation], images), 1 - areas[0] * areas[1]
