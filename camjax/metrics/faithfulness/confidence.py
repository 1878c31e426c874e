"""Average drop, increase in confidence and average gain: the probability of a class in what its map shows."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from camjax.cam import normalize_map
from camjax.errors import InputError
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.scores import (
    IMAGENET_MEAN,
    check_arguments,
    check_baseline,
    color_option,
    map_copies,
    scores_of_classes,
)

# How far a softmax in float32 may miss 0..1.
_ROUNDING = 1e-4


class ConfidenceChange(NamedTuple):
    """What masking images by their maps does to the probability of a class, y before and o after.

    Attributes:
      before: (B,) y.
      after: (B,) o.
      drop: (B,) `max(0, y - o) / y` in 0..1; 0 where y is 0. Less is better.
      increase: (B,) bool, whether o > y. More is better.
      gain: (B,) `max(0, o - y) / (1 - y)` in 0..1; 0 where y is 1. More is better.
    """

    before: jax.Array
    after: jax.Array
    drop: jax.Array
    increase: jax.Array
    gain: jax.Array


def confidence_change(
    probabilities_fn: Callable, images, maps, class_ids, *, baseline=IMAGENET_MEAN, chunk_size: int = 32
) -> ConfidenceChange:
    """Drop and increase (Chattopadhyay et al. 2018, "Grad-CAM++", section 4.1), gain (Zhang et al. 2024, "Opti-CAM").

    The image is seen through its map: `x_0 + m (x - x_0)` of pixels x, the baseline x_0, and m the map resized to the
    image, then scaled from its minimum and maximum to 0..1. A constant map shows nothing.
    A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    torch-cam and pytorch-grad-cam multiply normalized images by the map, which is a baseline of the color that the
    network subtracts. They do not scale the map again after resizing it, so its range may be smaller than 0..1.
    torch-cam adds 1e-7 to y before it divides; pytorch-grad-cam's drop is y - o, not a share of y.

    Args:
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C) in 0..1.
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w).
      class_ids: (B,) integers.
      baseline: x_0, shown where m is 0: a number, a color (3,), or images that broadcast to (B, H, W, 3).
      chunk_size: images scored at a time.

    Returns:
      `ConfidenceChange`.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, scores that are
        not in 0..1, or a baseline of another shape.
    """
    scores_fn, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    baseline = check_baseline(baseline, images)
    probability = Partial(_probability_through_map, scores_fn, images, baseline, _normalized(maps), ids)
    probabilities = map_copies(probability, len(images), 2, chunk_size)
    lowest, highest = float(probabilities.min()), float(probabilities.max())
    if not (lowest >= -_ROUNDING and highest <= 1 + _ROUNDING):
        raise InputError(
            f"probabilities from {lowest:.4g} to {highest:.4g}: expected 0..1, as drop and gain are shares of them. "
            "For logits, take jax.nn.softmax of them first."
        )
    return _change(probabilities)


_normalized = jax.jit(normalize_map)


def _probability_through_map(scores_fn, images, baseline, maps, class_ids, rows):
    """Copy 0 of an image is itself; copy 1 is what its map shows."""
    image, masked = rows.T
    shown = jnp.where((masked == 0)[:, None, None], 1, maps[image])[..., None]
    # Where m is 1, the pixels themselves, without rounding.
    copies = jnp.where(shown == 1, images[image], baseline[image] + shown * (images[image] - baseline[image]))
    return scores_of_classes(scores_fn, copies, class_ids[image])


@jax.jit
def _change(probabilities):
    before, after = probabilities.clip(0, 1).T
    drop = jnp.maximum(before - after, 0) / jnp.where(before > 0, before, 1)
    gain = jnp.maximum(after - before, 0) / jnp.where(before < 1, 1 - before, 1)
    return ConfidenceChange(before, after, drop, after > before, gain)


class Confidence(FaithfulnessMetric):
    """Mean drop, increase and gain over images, in percent: "average_drop", "increase_in_confidence", "average_gain".

    A small drop says little without the gain: a map that shows the whole image has no drop. See `confidence_change`.

    Args:
      baseline: a number or a color (3,) in 0..255; anything else raises ValueError.
      chunk_size: images scored at a time. It does not change the results.
    """

    title = "Change in confidence"
    unit = "percent"

    def __init__(self, baseline=IMAGENET_MEAN, chunk_size: int = 32):
        names = ["average_drop", "increase_in_confidence", "average_gain"]
        super().__init__({"baseline": color_option(baseline)}, names, chunk_size)

    def _numbers(self, *batch):
        change = confidence_change(*batch, **self._arguments)
        return {
            "average_drop": 100 * change.drop,
            "increase_in_confidence": 100 * np.asarray(change.increase, np.float64),
            "average_gain": 100 * change.gain,
        }
