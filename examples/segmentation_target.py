"""Why does a network segment a region as a class? Maps of a target that is a region's mean score, not a class.

    python examples/segmentation_target.py

The network is any that gives (B, H, W, C) scores; here a small one, trained for a moment on drawn bars. The target is
the class's mean score over the pixels that the network gives to it (Seg-Grad-CAM, Vinogradova et al. 2020, eq. 2).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import camjax
from camjax.attribution import explain_nnx, targets

SIDE = 32


class Segmenter(nnx.Module):
    """Scores (B, H, W, 2) of background and bar, from features of half the size."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(3, 16, (3, 3), (2, 2), rngs=rngs)
        self.last = nnx.Conv(16, 16, (3, 3), rngs=rngs)
        self.scores = nnx.Conv(16, 2, (1, 1), rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """(B, H, W, 3) in 0..255 -> (B, H, W, 2)."""
        x = nnx.relu(self.first(jnp.asarray(images, jnp.float32) / 127.5 - 1))
        x = self.scores(nnx.relu(self.last(x)))
        return jax.image.resize(x, (*images.shape[:3], 2), "bilinear")


def pictures(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright bar: (B, SIDE, SIDE, 3) uint8, and masks (B, SIDE, SIDE) of 0 and 1."""
    images = rng.integers(0, 128, (count, SIDE, SIDE, 3), np.uint8)
    masks = np.zeros((count, SIDE, SIDE), np.int32)
    for image, mask in zip(images, masks, strict=True):
        y, x = rng.integers(0, SIDE - 8), rng.integers(0, SIDE - 16)
        mask[y : y + 8, x : x + 16] = 1
        image[mask == 1] = (255, 200, 100)
    return images, masks


@jax.jit
def step(model, optimizer, images, masks):
    """One step of training: the model and optimizer after it."""
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    gradients = nnx.grad(lambda model: cross_entropy(model(images), masks).mean())(model)
    optimizer.update(model, gradients)
    return model, optimizer


def main(steps: int = 100) -> dict[str, float]:
    """Trains, explains, and returns the share of the map in the bar, and the bar's share of the image."""
    rng = np.random.default_rng(0)
    model = Segmenter(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    for _ in range(steps):
        model, optimizer = step(model, optimizer, *pictures(rng, 16))
    images, masks = pictures(rng, 4)
    predicted = model(images).argmax(-1) == 1  # (4, 32, 32)
    found = explain_nnx(model, "last")(images, targets.region(predicted, np.ones(4, int)), method="gradcam")
    heat = np.maximum(camjax.resize_map(found.maps, (SIDE, SIDE)), 0)[:, 0]
    return {"mass_in_bar": float((heat * masks).sum() / heat.sum()), "bar": float(masks.mean())}


if __name__ == "__main__":
    print(main())
