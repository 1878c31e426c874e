"""Insertion and deletion: the score of a class while pixels appear or vanish in the order of its map."""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from camjax.errors import InputError
from camjax.metrics.faithfulness.metric import FaithfulnessMetric
from camjax.metrics.faithfulness.scores import (
    IMAGENET_MEAN,
    check_arguments,
    check_baseline,
    color_option,
    map_copies,
    pixel_ranks,
    scores_of_classes,
)

BLUR_SIGMA, BLUR_RADIUS = 5.0, 5
"""Standard deviation of insertion's blur, and the radius of its kernel, in pixels: those of RISE's code."""


class ScoreCurve(NamedTuple):
    """The scores of images on the way from all pixels untouched to all changed.

    Attributes:
      fractions: (S + 1,) float64, the share of pixels changed, from 0 to 1.
      scores: (B, S + 1) float32, of each image's class.
      area: (B,) float32 under the curve, by trapezoids: a mean score.
    """

    fractions: np.ndarray
    scores: jax.Array
    area: jax.Array


def insertion_curve(
    probabilities_fn: Callable, images, maps, class_ids, *, step: int | None = None, chunk_size: int = 32
) -> ScoreCurve:
    """Insertion (Petsiuk, Das and Saenko 2018, "RISE", section 4.2 and algorithm 2): more is better.

    Pixels of the image are put into a blurred copy of it, the most relevant first, some at a time. The blur is
    `blurred`. A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C); any scores will do.
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w), resized to the images (bilinear). Of equal values, the first in raster order is put in first.
      class_ids: (B,) integers.
      step: pixels at a time; None for as many as a row of the image has, which makes H steps. The last step may be
        smaller, and counts by its share of pixels.
      chunk_size: images scored at a time.

    Returns:
      `ScoreCurve`, from the blurred image to the whole one.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, or a step that
        is not in 1..H W.
    """
    scores_fn, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    return _curve(scores_fn, blurred(images), images, maps, ids, step, chunk_size)


def deletion_curve(
    probabilities_fn: Callable,
    images,
    maps,
    class_ids,
    *,
    baseline=IMAGENET_MEAN,
    step: int | None = None,
    chunk_size: int = 32,
) -> ScoreCurve:
    """Deletion (Petsiuk, Das and Saenko 2018, "RISE", section 4.2 and algorithm 1): less is better.

    Pixels are replaced by the baseline, the most relevant first.

    Args:
      probabilities_fn: this and the arguments that follow are those of `insertion_curve`.
      images: see `insertion_curve`.
      maps: see `insertion_curve`.
      class_ids: see `insertion_curve`.
      baseline: what replaces pixels: a number, a color (3,), or images that broadcast to (B, H, W, 3). RISE's code
        takes 0 in normalized images, which is the mean color of the data.
      step: see `insertion_curve`.
      chunk_size: see `insertion_curve`.

    Returns:
      `ScoreCurve`, from the whole image to the baseline.

    Raises:
      ValueError: as `insertion_curve`, or a baseline of another shape.
    """
    scores_fn, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    return _curve(scores_fn, images, check_baseline(baseline, images), maps, ids, step, chunk_size)


@jax.jit
def blurred(images: jax.Array) -> jax.Array:
    """Images (B, H, W, C) blurred as insertion starts from them: 11 x 11 pixels of a Gaussian, edges mirrored.

    OpenCV's `GaussianBlur(image, (11, 11), 5)`, in float32. RISE's code has another boundary, the mean color, and
    folds what lies beyond 11 pixels back into the kernel.
    """
    taps = np.exp(-0.5 * (np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1) / BLUR_SIGMA) ** 2)
    taps /= taps.sum()
    for axis in (1, 2):
        widths = [(BLUR_RADIUS,) * 2 if at == axis else (0, 0) for at in range(4)]
        padded = jnp.pad(images, widths, mode="reflect" if images.shape[axis] > 1 else "edge")
        parts = (jax.lax.slice_in_dim(padded, at, at + images.shape[axis], axis=axis) for at in range(len(taps)))
        images = functools.reduce(operator.add, (float(tap) * part for tap, part in zip(taps, parts, strict=True)))
    return images


def _curve(scores_fn, start, end, maps, ids, step, chunk_size) -> ScoreCurve:
    """Scores while pixels of `start` become those of `end`, which broadcasts to `start`."""
    pixels = maps[0].size
    step = maps.shape[2] if step is None else step
    end = jnp.broadcast_to(end, start.shape)  # so that insertion and deletion are one compiled program
    if not 1 <= step <= pixels:
        raise InputError(f"step={step}: expected pixels at a time, 1..{pixels} for images of {maps.shape[1:]}.")
    levels = np.minimum(np.arange(-(-pixels // step) + 1) * step, pixels)
    of_rows = Partial(_score_on_the_way, scores_fn, start, end, pixel_ranks(maps), jnp.asarray(levels, jnp.int32), ids)
    scores = map_copies(of_rows, len(maps), len(levels), chunk_size)
    fractions = levels / pixels
    of_each = jnp.broadcast_to(jnp.asarray(fractions, jnp.float32), scores.shape)
    return ScoreCurve(fractions, scores, jnp.trapezoid(scores, of_each, axis=1))


def _score_on_the_way(scores_fn, start, end, ranks, levels, class_ids, rows):
    image, level = rows.T
    changed = ranks[image] < levels[level][:, None, None]
    return scores_of_classes(scores_fn, jnp.where(changed[..., None], end[image], start[image]), class_ids[image])


class Insertion(FaithfulnessMetric):
    """The mean area under insertion curves, "insertion": more is better; see `insertion_curve`.

    Args:
      step: pixels at a time; None for as many as a row has.
      chunk_size: images scored at a time. It does not change the results.
    """

    title = "Insertion"
    unit = "score"

    def __init__(self, step: int | None = None, chunk_size: int = 32):
        super().__init__({"step": step}, ["insertion"], chunk_size)

    def _numbers(self, *batch):
        return {"insertion": insertion_curve(*batch, **self._arguments).area}


class Deletion(FaithfulnessMetric):
    """The mean area under deletion curves, "deletion": less is better; see `deletion_curve`.

    Args:
      baseline: a number or a color (3,) in 0..255; anything else raises ValueError.
      step: pixels at a time; None for as many as a row has.
      chunk_size: images scored at a time. It does not change the results.
    """

    title = "Deletion"
    unit = "score"

    def __init__(self, baseline=IMAGENET_MEAN, step: int | None = None, chunk_size: int = 32):
        super().__init__({"baseline": color_option(baseline), "step": step}, ["deletion"], chunk_size)

    def _numbers(self, *batch):
        return {"deletion": deletion_curve(*batch, **self._arguments).area}
