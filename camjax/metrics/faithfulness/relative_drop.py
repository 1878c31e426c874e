"""Relative confidence drop: do the marked pixels speak for a class, or for its look-alikes as well?"""

import functools
from collections.abc import Callable

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
    float_scores,
    map_copies,
    pixel_ranks,
)


def relative_confidence_drop(
    probabilities_fn: Callable,
    images,
    maps,
    class_ids,
    *,
    look_alikes=None,
    num_look_alikes: int = 1,
    fraction: float = 0.05,
    baseline=IMAGENET_MEAN,
    chunk_size: int = 32,
) -> jax.Array:
    """Relative confidence drop (Zhang et al. 2025, "Finer-CAM", eq. 10): `(p_c - p*_c) - (p_d - p*_d)`.

    p are probabilities of the image, p* those without its most relevant pixels; c is the class and d a class that looks
    like it, or the mean over several. A map that marks what both have in common lowers both, and the difference is
    small. A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C).
      images: (B, H, W, 3) RGB in 0..255.
      maps: (B, h, w), resized to the images (bilinear).
      class_ids: (B,) integers.
      look_alikes: (B, M) integers, classes d of each image; None for the most probable classes other than c.
      num_look_alikes: M, where look_alikes are None; fewer if there are no more classes.
      fraction: share of pixels removed, above 0 and below 1; rounded up to pixels. 0.05 in the paper.
      baseline: what replaces pixels: a number, a color (3,), or images that broadcast to (B, H, W, 3).
      chunk_size: images scored at a time.

    Returns:
      (B,) float32 in -2..2. More is better.

    Raises:
      ValueError: shapes and types that do not fit, maps with NaN or infinity, class ids out of range, look-alikes of
        another shape or that are the class itself, num_look_alikes below 1, a single class, a fraction that is not
        above 0 and below 1, or a baseline of another shape.
    """
    scores_fn, images, maps, ids = check_arguments(probabilities_fn, images, maps, class_ids)
    if not 0 < fraction < 1 or num_look_alikes < 1:
        raise InputError(
            f"fraction={fraction}, num_look_alikes={num_look_alikes}: expected a share of the pixels above 0 and below "
            "1, and at least one class."
        )
    count = jnp.int32(np.ceil(fraction * maps[0].size - 1e-6))
    baseline = check_baseline(baseline, images)
    removed = Partial(_without_the_most_relevant, scores_fn, images, baseline, pixel_ranks(maps), count)
    probabilities = map_copies(removed, len(images), 2, chunk_size)
    classes = probabilities.shape[2]
    if classes < 2:
        raise InputError("probabilities of 1 class: expected at least 2, to compare one with another.")
    if look_alikes is None:
        look_alikes = _most_probable_others(probabilities[:, 0], ids, min(num_look_alikes, classes - 1))
    else:
        look_alikes = np.asarray(look_alikes)
        shape, own = look_alikes.shape, np.asarray(ids)[:, None]
        if (
            look_alikes.ndim != 2
            or len(look_alikes) != len(images)
            or not look_alikes.size
            or not np.issubdtype(look_alikes.dtype, np.integer)
            or ((look_alikes < 0) | (look_alikes >= classes) | (look_alikes == own)).any()
        ):
            raise InputError(
                f"look_alikes of shape {shape} and dtype {look_alikes.dtype}: expected ({len(images)}, M) integers in "
                f"0..{classes - 1}, classes other than the image's own."
            )
    return _relative_drop(probabilities, ids, jnp.asarray(look_alikes, jnp.int32))


def _without_the_most_relevant(scores_fn, images, baseline, ranks, count, rows):
    """(R, C): copy 0 of an image is itself."""
    image, copy = rows.T
    missing = (ranks[image] < count) & (copy == 1)[:, None, None]
    return float_scores(scores_fn, jnp.where(missing[..., None], baseline[image], images[image]))


@functools.partial(jax.jit, static_argnums=2)
def _most_probable_others(probabilities, ids, count):
    own = jnp.arange(probabilities.shape[1], dtype=jnp.int32)[None] == ids[:, None]
    return jax.lax.top_k(jnp.where(own, -jnp.inf, probabilities), count)[1]


@jax.jit
def _relative_drop(probabilities, ids, look_alikes):
    drops = probabilities[:, 0] - probabilities[:, 1]
    own, others = (jnp.take_along_axis(drops, of, axis=1).mean(1) for of in (ids[:, None], look_alikes))
    return own - others


class RelativeDrop(FaithfulnessMetric):
    """The mean over images of the relative confidence drop, "relative_drop"; see `relative_confidence_drop`.

    Args:
      num_look_alikes: classes to compare with, the most probable other ones.
      fraction: share of pixels removed.
      baseline: a number or a color (3,) in 0..255; anything else raises ValueError.
      chunk_size: images scored at a time. It does not change the results.
    """

    title = "Relative confidence drop"
    unit = "score"

    def __init__(self, num_look_alikes: int = 1, fraction: float = 0.05, baseline=IMAGENET_MEAN, chunk_size: int = 32):
        options = {"num_look_alikes": num_look_alikes, "fraction": float(fraction), "baseline": color_option(baseline)}
        super().__init__(options, ["relative_drop"], chunk_size)

    def _numbers(self, *batch):
        return {"relative_drop": relative_confidence_drop(*batch, **self._arguments)}
