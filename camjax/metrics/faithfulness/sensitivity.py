"""Sensitivity-n: does a map's sum over a set of pixels correlate with the effect of removing them?"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from camjax.errors import InputError
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.scores import (
    IMAGENET_MEAN,
    check_arguments,
    check_baseline,
    color_option,
    correlation,
    map_copies,
    scores_of_classes,
)

FRACTIONS = (0.01, 0.03, 0.1, 0.3, 0.8)
"""n as shares of the pixels. The paper's n go up to 80 % of them, evenly on a logarithmic scale."""


def sensitivity_n(
    scores_fn: Callable,
    images,
    maps,
    class_ids,
    *,
    fractions: Sequence[float] = FRACTIONS,
    num_subsets: int = 100,
    baseline=IMAGENET_MEAN,
    key: jax.Array | None = None,
    chunk_size: int = 32,
) -> jax.Array:
    """Sensitivity-n (Ancona et al. 2018, "Towards better understanding of gradient-based attribution", section 4).

    For random sets of n pixels, the correlation (Pearson) of the map's sum over the set and the fall of the score when
    the set is replaced by the baseline. A linear function and its gradient times (x - x_0), summed over colors, have a
    correlation of 1 for every n. Scale and offset of a map do not matter, so that maps that are not in units of the
    score can be compared. This is why camjax has it in place of infidelity (Yeh et al. 2019), where they matter.

    The sets are of pixels, all three colors at once, where the paper's are of values. They are the same for every
    image, in any batch. A correlation with a constant, which is undefined, is 0 here.
    A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      scores_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C). The paper takes scores before the softmax;
        probabilities will do.
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w), resized to the images (bilinear).
      class_ids: (B,) integers.
      fractions: n as shares of the image's pixels, above 0 and below 1; rounded to pixels, at least one.
      num_subsets: number of sets for each n, 2 or more; 100 in the paper.
      baseline: what replaces pixels: a number, a color (3,), or images that broadcast to (B, H, W, 3).
      key: of `jax.random`; None for `jax.random.key(0)`.
      chunk_size: images scored at a time.

    Returns:
      (B, number of fractions) float32 in -1..1. More is better.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, fractions that
        leave no pixel, less than two sets, or a baseline of another shape.
    """
    scores_fn, images, maps, ids = check_arguments(scores_fn, images, maps, class_ids)
    baseline = check_baseline(baseline, images)
    pixels = maps[0].size
    counts = [max(1, math.floor(fraction * pixels + 0.5)) for fraction in fractions]
    if not counts or any(not 0 < fraction < 1 for fraction in fractions) or max(counts) >= pixels:
        raise InputError(f"fractions={tuple(fractions)}: expected shares of {pixels} pixels, above 0 and below 1.")
    if num_subsets < 2:
        raise InputError(f"num_subsets={num_subsets}: expected 2 or more, to correlate over.")
    # Less the mean: sums over sets of one size have the same correlations, and smaller rounding errors.
    maps = maps - maps.mean((1, 2), keepdims=True)
    key = jax.random.key(0) if key is None else key
    sizes = jnp.repeat(jnp.asarray(counts), num_subsets)
    sum_and_score = Partial(_sum_and_score, scores_fn, images, baseline, maps, ids, sizes, key)
    numbers = map_copies(sum_and_score, len(images), len(sizes), chunk_size)
    sums, scores = jnp.moveaxis(numbers.reshape(len(images), len(counts), num_subsets, 2), -1, 0)
    return correlation(sums, -scores)


def _sum_and_score(scores_fn, images, baseline, maps, class_ids, sizes, key, rows):
    """(R, 2): the map's sum over a set, and the score without it."""
    image, copy = rows.T

    def random_set(copy):
        order = jax.random.permutation(jax.random.fold_in(key, copy), maps[0].size)
        return (order < sizes[copy]).reshape(maps[0].shape)

    chosen = jax.vmap(random_set)(copy)
    sums = jnp.where(chosen, maps[image], 0).sum((1, 2))
    without = jnp.where(chosen[..., None], baseline[image], images[image])
    return jnp.stack([sums, scores_of_classes(scores_fn, without, class_ids[image])], axis=1)


class SensitivityN(FaithfulnessMetric):
    """The mean correlation over images and sizes of sets, "sensitivity_n": more is better; see `sensitivity_n`.

    Args:
      fractions: n as shares of the pixels.
      num_subsets: number of sets for each n.
      baseline: a number or a color (3,) in 0..255; anything else raises ValueError.
      seed: of the sets.
      chunk_size: images scored at a time. It does not change the results.
    """

    title = "Sensitivity-n"
    unit = "correlation"

    def __init__(
        self,
        fractions: Sequence[float] = FRACTIONS,
        num_subsets: int = 100,
        baseline=IMAGENET_MEAN,
        seed: int = 0,
        chunk_size: int = 32,
    ):
        options = {"fractions": [float(f) for f in fractions], "num_subsets": num_subsets}
        super().__init__(options | {"baseline": color_option(baseline), "seed": seed}, ["sensitivity_n"], chunk_size)

    def _numbers(self, *batch):
        return {"sensitivity_n": sensitivity_n(*batch, **self._arguments).mean(1)}
