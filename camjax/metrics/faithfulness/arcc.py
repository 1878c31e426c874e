"""ARCC and ADCC: one number from how faithful, how stable and how concise a map is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from camjax.cam import normalize_map
from camjax.metrics.faithfulness.confidence import confidence_change
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.road import NOISE, road
from camjax.metrics.faithfulness.scores import (
    IMAGENET_MEAN,
    check_arguments,
    check_baseline,
    check_maps,
    color_option,
    correlation,
)

FRACTIONS = (0.2, 0.4, 0.6, 0.8)
"""Shares of pixels that ROAD removes, as in the authors' code."""


class Arcc(NamedTuple):
    """ARCC and its parts for B images; all are float32 in 0..1.

    Attributes:
      arcc: (B,) the harmonic mean of coherency, 1 - complexity and ROAD. More is better.
      adcc: (B,) the harmonic mean of coherency, 1 - complexity and 1 - drop. More is better.
      coherency: (B,) (r + 1) / 2, with r the correlation of the map with that of the image seen through it. More is
        better.
      complexity: (B,) the mean of the map, scaled to 0..1. Less is better.
    """

    arcc: jax.Array
    adcc: jax.Array
    coherency: jax.Array
    complexity: jax.Array


def arcc(
    probabilities_fn: Callable,
    images,
    maps,
    class_ids,
    maps_fn: Callable,
    *,
    fractions: Sequence[float] = FRACTIONS,
    noise: float = NOISE,
    baseline=IMAGENET_MEAN,
    key: jax.Array | None = None,
    chunk_size: int = 16,
) -> Arcc:
    """ARCC (Domeniconi et al. 2026, "How to evaluate and refine your CAM") and ADCC (Poppi et al. 2021).

    Both are harmonic means, 0 where a part is 0. ADCC has average drop where ARCC has ROAD. The image is seen through
    its map as in `confidence_change`; the map is scaled from its minimum and maximum to 0..1 after it is resized. ROAD
    is the mean of `least - most` over the fractions, cut off at 0; see `road`. A correlation with a constant map is 0.
    A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C) in 0..1.
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w).
      class_ids: (B,) integers.
      maps_fn: (images (B, H, W, 3) float32, class_ids (B,)) -> maps (B, h', w') by the same method.
      fractions: shares of pixels that ROAD removes.
      noise: of ROAD.
      baseline: what an image is where its map is 0: a number, a color (3,), or images that broadcast to (B, H, W, 3).
      key: of ROAD's noise.
      chunk_size: images scored at a time.

    Returns:
      `Arcc`.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, scores that are
        not in 0..1, a baseline of another shape, and as `road`.
    """
    scores_fn, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    batch = scores_fn, images, maps, ids
    drop = confidence_change(*batch, baseline=baseline, chunk_size=chunk_size).drop
    removed = road(*batch, fractions=fractions, noise=noise, key=key, chunk_size=chunk_size).combined
    seen = _through_map(images, check_baseline(baseline, images), maps)
    return _arcc(maps, check_maps(maps_fn, seen, ids), removed, drop)


@jax.jit
def _through_map(images, baseline, maps):
    return baseline + normalize_map(maps)[..., None] * (images - baseline)


@jax.jit
def _arcc(maps, maps_of_seen, removed, drop):
    coherency = (correlation(*(of.reshape(len(of), -1) for of in (maps, maps_of_seen))) + 1) / 2
    coherency = jnp.where(jnp.isfinite(maps_of_seen).all((1, 2)), coherency, jnp.nan)
    complexity = normalize_map(maps).mean((1, 2))
    parts = coherency, 1 - complexity
    return Arcc(
        _harmonic_mean(*parts, (2 * removed).clip(0, 1)), _harmonic_mean(*parts, 1 - drop), coherency, complexity
    )


def _harmonic_mean(*parts):
    values = jnp.stack(parts)
    zero = (values == 0).any(0)
    return jnp.where(zero, 0, len(parts) / (1 / jnp.where(values == 0, 1, values)).sum(0))


class ArccMetric(FaithfulnessMetric):
    """Means over images of "arcc", "adcc", "coherency" and "complexity"; see `arcc`.

    Poppi et al. take the harmonic mean of the means over the data set; this is the mean of the images' own.

    Args:
      fractions: shares of pixels that ROAD removes.
      noise: of ROAD.
      baseline: a number or a color (3,) in 0..255; anything else raises ValueError.
      seed: of ROAD's noise.
      chunk_size: images scored at a time. It does not change the results.
    """

    title = "ARCC"
    unit = "score"
    needs = frozenset({"scores", "maps"})

    def __init__(
        self,
        fractions: Sequence[float] = FRACTIONS,
        noise: float = NOISE,
        baseline=IMAGENET_MEAN,
        seed: int = 0,
        chunk_size: int = 16,
    ):
        options = {"fractions": [float(f) for f in fractions], "noise": float(noise)}
        options |= {"baseline": color_option(baseline), "seed": seed}
        super().__init__(options, list(Arcc._fields), chunk_size)

    def _numbers(self, *batch):
        return arcc(*batch, **self._arguments)._asdict()
