"""Max-sensitivity: how far does a map change when its image changes very little?"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from camjax.errors import InputError
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.scores import check_arguments, check_maps


def max_sensitivity(
    probabilities_fn: Callable,
    images,
    maps,
    class_ids,
    maps_fn: Callable,
    *,
    radius: float = 0.02 * 255,
    num_samples: int = 10,
    key: jax.Array | None = None,
) -> jax.Array:
    """Max-sensitivity (Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations").

    The largest of `|M(x + e) - M(x)| / |M(x)|` over random e, uniform in -radius..radius for each value, with Euclidean
    norms of maps at the images' size. As in the paper's estimate, it is a maximum over samples. Noisy images are not
    clipped. All images have the same noise, in any batch.

    The division, by which methods of different scales can be compared, is that of the paper's experiments and of
    captum's `sensitivity_max`; Quantus divides by the norm of the image instead.

    Args:
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C): for the common interface only, no image is
        scored.
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w).
      class_ids: (B,) integers.
      maps_fn: (images (B, H, W, 3) float32, class_ids (B,)) -> maps (B, h', w') by the same method.
      radius: of the noise, in 0..255; the default is captum's of images in 0..1.
      num_samples: noisy copies, 10 in captum.
      key: of `jax.random`; None for `jax.random.key(0)`.

    Returns:
      (B,) float32, not negative. Less is better. 0 for a map of zeros that stays one, else infinity.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, a radius that is
        not above 0, or num_samples below 1.
    """
    if not 0 < radius < jnp.inf or num_samples < 1:
        raise InputError(f"radius={radius}, num_samples={num_samples}: expected a radius above 0, and at least 1 copy.")
    _, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    key = jax.random.key(0) if key is None else key
    largest = jnp.zeros(len(images), jnp.float32)
    for sample in range(num_samples):
        noisy = _noisy(jax.random.fold_in(key, sample), jnp.float32(radius), images)
        largest = _larger(largest, maps, check_maps(maps_fn, noisy, ids))
    return largest


@jax.jit
def _noisy(key, radius, images):
    return images + radius * jax.random.uniform(key, (1, *images.shape[1:]), images.dtype, -1, 1)


@jax.jit
def _larger(largest, maps, others):
    change, length = (jnp.sqrt((values**2).sum((1, 2))) for values in (others - maps, maps))
    return jnp.maximum(largest, jnp.where(change == 0, 0, change / length))


class MaxSensitivity(FaithfulnessMetric):
    """The mean over images of the largest relative change of a map, "max_sensitivity"; see `max_sensitivity`.

    A map of zeros that noise turns into another is an error, as its relative change is infinite.

    Args:
      radius: of the noise, in 0..255.
      num_samples: noisy copies of each image.
      seed: of the noise.
    """

    title = "Max-sensitivity"
    unit = "ratio"
    needs = frozenset({"scores", "maps"})

    def __init__(self, radius: float = 0.02 * 255, num_samples: int = 10, seed: int = 0):
        options = {"radius": float(radius), "num_samples": num_samples, "seed": seed}
        super().__init__(options, ["max_sensitivity"])

    def _numbers(self, *batch):
        return {"max_sensitivity": max_sensitivity(*batch, **self._arguments)}
