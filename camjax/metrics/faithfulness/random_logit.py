"""Random logit: does a map change when another class is asked about?"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from camjax.errors import InputError
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.scores import check_arguments, check_maps, float_scores

_WINDOW = 7
"""Side of the windows that SSIM compares, in pixels; scikit-image's."""


def random_logit(
    probabilities_fn: Callable, images, maps, class_ids, maps_fn: Callable, *, key: jax.Array | None = None
) -> jax.Array:
    """The random-logit test (Sixt et al. 2020, "When explanations lie"): the similarity to another class's map.

    The other class is drawn for each class, the same for all images of it, as in Quantus. The similarity is
    `structural_similarity` of maps at the images' size, each divided by its largest magnitude. A method whose map
    hardly depends on the class says little about it.

    Args:
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C); it says how many classes there are.
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w).
      class_ids: (B,) integers.
      maps_fn: (images (B, H, W, 3) float32, class_ids (B,)) -> maps (B, h', w') by the same method.
      key: of `jax.random`; None for `jax.random.key(0)`.

    Returns:
      (B,) float32 in -1..1. Less is better.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, or a single
        class.
    """
    scores_fn, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    classes = jax.eval_shape(float_scores, scores_fn, images).shape[1]
    if classes < 2:
        raise InputError("scores of 1 class: expected at least 2, to ask about another one.")
    others = _other_classes(jax.random.key(0) if key is None else key, ids, jnp.int32(classes))
    return structural_similarity(*map(_by_magnitude, (maps, check_maps(maps_fn, images, others))))


@jax.jit
def _other_classes(key, ids, classes):
    def other(class_id):
        return (class_id + jax.random.randint(jax.random.fold_in(key, class_id), (), 1, classes, jnp.int32)) % classes

    return jax.vmap(other)(ids)


@jax.jit
def _by_magnitude(maps):
    largest = jnp.abs(maps).max((1, 2), keepdims=True)
    return maps / jnp.where(largest > 0, largest, 1)


@jax.jit
def structural_similarity(maps: jax.Array, others: jax.Array) -> jax.Array:
    """SSIM (Wang et al. 2004, eq. 13), as scikit-image computes it by default.

    The mean over windows of 7 x 7 pixels, or of the largest odd side that fits in, with the sample covariance. The
    range of values is that of both maps together.

    Args:
      maps: (B, H, W) float32.
      others: (B, H, W) float32.

    Returns:
      (B,) float32 in -1..1; 1 for two equal constant maps.

    Raises:
      ValueError: maps of different shapes.
    """
    side = min(_WINDOW, *maps.shape[1:])
    side -= 1 - side % 2
    pixels = side * side

    def means(values):
        return jax.lax.reduce_window(values, np.float32(0), jax.lax.add, (1, side, side), (1, 1, 1), "VALID") / pixels

    both = jnp.stack([maps, others])
    extent = both.max((0, 2, 3)) - both.min((0, 2, 3))
    stability = [((k * extent) ** 2)[:, None, None] for k in (0.01, 0.03)]
    mean, other = means(maps), means(others)
    sample = pixels / max(pixels - 1, 1)
    variance, other_variance, covariance = (
        sample * (means(a * b) - mean_a * mean_b)
        for a, b, mean_a, mean_b in (
            (maps, maps, mean, mean),
            (others, others, other, other),
            (maps, others, mean, other),
        )
    )
    above = (2 * mean * other + stability[0]) * (2 * covariance + stability[1])
    below = (mean**2 + other**2 + stability[0]) * (variance + other_variance + stability[1])
    similarity = (above / jnp.where(below > 0, below, 1)).mean((1, 2))
    return jnp.where(extent > 0, similarity, 1)


class RandomLogit(FaithfulnessMetric):
    """The mean over images of the similarity of the map to that of another class, "random_logit"; see `random_logit`.

    Args:
      seed: of the other classes.
    """

    title = "Random logit"
    unit = "correlation"
    needs = frozenset({"scores", "maps"})

    def __init__(self, seed: int = 0):
        super().__init__({"seed": seed}, ["random_logit"])

    def _numbers(self, *batch):
        return {"random_logit": random_logit(*batch, **self._arguments)}
