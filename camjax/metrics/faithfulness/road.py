"""ROAD, remove and debias: pixels are removed in the order of a map, and filled in from those that are left."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from camjax.errors import InputError
from camjax.metrics.faithfulness.imputation import linear_imputation
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.scores import check_arguments, map_copies, pixel_ranks, scores_of_classes

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of pixels removed, as in pytorch-grad-cam."""

NOISE = 0.58
"""Standard deviation of the noise on imputed pixels: 0.01, as published, of ImageNet's, which is about 58 of 255."""


class RoadScores(NamedTuple):
    """The scores of images with imputed pixels, for F fractions.

    Attributes:
      most_relevant_first: (B, F) float32. Less is better.
      least_relevant_first: (B, F) float32. More is better.
      combined: (B,) float32, the mean over fractions of `(least - most) / 2`. More is better.
    """

    most_relevant_first: jax.Array
    least_relevant_first: jax.Array
    combined: jax.Array


def road(
    probabilities_fn: Callable,
    images,
    maps,
    class_ids,
    *,
    fractions: Sequence[float] = FRACTIONS,
    noise: float = NOISE,
    key: jax.Array | None = None,
    chunk_size: int = 16,
) -> RoadScores:
    """ROAD (Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods", section 4).

    A share of the pixels, the most or the least relevant, is replaced by `linear_imputation` of the others, plus
    noise. Unlike a patch of one color, the result hardly shows the shape of what was removed.
    The combined score is pytorch-grad-cam's (`ROADCombined`), whose percentile p removes a fraction of 1 - p / 100.

    The number of pixels is fraction times H W, rounded up; of equal values, the first in raster order are removed
    first. pytorch-grad-cam removes all values at or beyond a percentile, which is more of a map with many equal values.
    Its scores are differences to the score of the whole image; here they are scores.
    A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C); any scores will do.
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w), resized to the images (bilinear).
      class_ids: (B,) integers.
      fractions: shares of pixels, above 0 and below 1.
      noise: standard deviation of the normal noise on imputed pixels, in 0..255.
      key: of `jax.random`; None for `jax.random.key(0)`. Every image has the same noise, in any batch.
      chunk_size: images imputed and scored at a time.

    Returns:
      `RoadScores`.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, fractions that
        remove all pixels or none, or noise below 0.
    """
    scores_fn, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    counts = jnp.asarray(_counts(fractions, maps[0].size), jnp.int32)
    if not 0 <= noise < math.inf:
        raise InputError(f"noise={noise}: expected a standard deviation in 0..255, 0 for none.")
    ranks = jnp.stack([pixel_ranks(maps), pixel_ranks(-maps)], axis=1)
    key = jax.random.key(0) if key is None else key
    imputed_score = Partial(_imputed_score, scores_fn, images, ranks, counts, ids, noise, key)
    scores = map_copies(imputed_score, len(images), 2 * len(counts), chunk_size)
    most, least = jnp.split(scores, 2, axis=1)
    return RoadScores(most, least, (least - most).mean(1) / 2)


def _counts(fractions, pixels: int) -> list[int]:
    """Numbers of pixels to remove."""
    # Less a rounding error: 0.7 * 10 may come out as 7.000000000000001.
    counts = [math.ceil(fraction * pixels - 1e-6) if 0 < fraction < 1 else 0 for fraction in fractions]
    if not counts or min(counts) < 1 or max(counts) >= pixels:
        raise InputError(
            f"fractions={tuple(fractions)} of {pixels} pixels: expected shares above 0 and below 1 that leave a pixel."
        )
    return counts


def _imputed_score(scores_fn, images, ranks, counts, class_ids, noise, key, rows):
    """Copies 0..F-1 of an image are without the most relevant pixels, F..2F-1 without the least relevant."""
    image, copy = rows.T
    order, level = jnp.divmod(copy, len(counts))
    missing = ranks[image, order] < counts[level][:, None, None]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, copy)
    drawn = noise * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], jnp.float32))(keys)
    imputed = linear_imputation(images[image], missing) + jnp.where(missing[..., None], drawn, 0)
    return scores_of_classes(scores_fn, imputed, class_ids[image])


class Road(FaithfulnessMetric):
    """Mean scores over fractions and images: "road_combined", "road_most_relevant_first", "road_least_relevant_first".

    See `road`.

    Args:
      fractions: shares of pixels to remove, above 0 and below 1.
      noise: standard deviation of the noise on imputed pixels, in 0..255.
      seed: of the noise.
      chunk_size: images imputed and scored at a time. It does not change the results.
    """

    title = "ROAD"
    unit = "score"

    def __init__(
        self, fractions: Sequence[float] = FRACTIONS, noise: float = NOISE, seed: int = 0, chunk_size: int = 16
    ):
        options = {"fractions": [float(f) for f in fractions], "noise": float(noise), "seed": seed}
        names = ["road_combined", "road_most_relevant_first", "road_least_relevant_first"]
        super().__init__(options, names, chunk_size)

    def _numbers(self, *batch):
        scores = road(*batch, **self._arguments)
        return {
            "road_combined": scores.combined,
            "road_most_relevant_first": scores.most_relevant_first.mean(1),
            "road_least_relevant_first": scores.least_relevant_first.mean(1),
        }
