"""A training loss with class activation maps: the map of a mirrored picture should be the mirrored map.

    python examples/cam_loss.py

The consistency of maps under changes of the image is the loss of SEAM (Wang et al. 2020, arXiv:2004.04581, eq. 3). Its
gradient goes through the maps to every weight, since `camjax.class_activation_map` is an ordinary function of arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import camjax

SIDE = 32


def pictures(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright bar somewhere: (B, SIDE, SIDE, 3) uint8, and (B,) labels, 0 for upright and 1 for lying."""
    images = rng.integers(0, 96, (count, SIDE, SIDE, 3), np.uint8)
    labels = rng.integers(0, 2, count).astype(np.int32)
    for image, label in zip(images, labels, strict=True):
        height, width = (4, 12) if label else (12, 4)
        y, x = rng.integers(0, SIDE - height), rng.integers(0, SIDE - width)
        image[y : y + height, x : x + width] = 255
    return images, labels


def loss(model: camjax.models.CamModel, images: jax.Array, labels: jax.Array, weight: float):
    """Cross-entropy plus `weight` times the consistency, and the two of them."""

    def logits_and_maps(images):
        features = model.features(images)
        return model.head(features), camjax.class_activation_map(features, model.head.kernel[...], labels)

    logits, maps = logits_and_maps(images)
    _, mirrored = logits_and_maps(images[:, :, ::-1])
    classes = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    consistency = jnp.abs(maps - mirrored[..., ::-1]).mean() / jax.lax.stop_gradient(jnp.abs(maps).mean())
    return classes + weight * consistency, {"classes": classes, "consistency": consistency}


@jax.jit
def step(model, optimizer, images, labels, weight):
    """One step of training: the model and optimizer after it, and the losses."""
    (_, losses), gradients = nnx.value_and_grad(loss, has_aux=True)(model, images, labels, weight)
    optimizer.update(model, gradients)
    return model, optimizer, losses


def main(steps: int = 100, weight: float = 1.0) -> list[dict[str, float]]:
    """Trains a small network, and returns the losses of each step."""
    rng = np.random.default_rng(0)
    model = camjax.create_model("small_gap", num_classes=2, rngs=nnx.Rngs(0))
    model.train()
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    history = []
    for number in range(1, steps + 1):
        model, optimizer, losses = step(model, optimizer, *pictures(rng, 32), weight)
        history.append({name: float(value) for name, value in losses.items()})
        if number % 20 == 0 or number == steps:
            print(f"step {number}: " + ", ".join(f"{name} {value:.3f}" for name, value in history[-1].items()))
    return history


if __name__ == "__main__":
    main()
