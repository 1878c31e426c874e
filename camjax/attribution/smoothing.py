"""Smoother maps: the mean over changed copies of the images, or the first principal component."""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from camjax.attribution.decomposition import principal_component
from camjax.attribution.gradients import images_first
from camjax.cam import resize_map
from camjax.errors import InputError


def augmentation_smoothing(
    maps_fn: Callable,
    images: jax.Array,
    targets,
    *,
    flip: bool = True,
    factors: Sequence[float] = (0.9, 1.0, 1.1),
    scales: Sequence[float] = (1.0,),
    baseline=0.0,
) -> jax.Array:
    """The mean of maps over mirrored, dimmed and resized copies of the images, each map brought back to its image.

    The mean of raw maps. pytorch-grad-cam's `aug_smooth`, with the same flips and factors, is the mean of maps that are
    rectified, scaled to 0..1 and resized to the image: for the same result let `maps_fn` do that.

    Args:
      maps_fn: (images, targets) -> maps (B, N, h, w): any method of any explainer, such as
        `lambda images, targets: explain(images, targets, "layercam").maps`. It gets float32 images.
      images: (B, H, W, C), as the network takes them.
      targets: passed on, the same for all copies. A target that depends on places in the image,
        such as `camjax.attribution.targets.region`, needs flip=False and no scales.
      flip: whether to add copies mirrored left to right.
      factors: of brightness; pixels x become `x_0 + factor (x - x_0)`, for the baseline x_0. They are not clipped.
      scales: of the height and width; copies are resized (bilinear, antialiased). Maps of other sizes are resized
        (bilinear, half-pixel centers) to the largest among them.
      baseline: a number, a color (C,), or images that broadcast to (B, H, W, C). With the mean color that a network
        subtracts, a factor multiplies the network's normalized input.

    Returns:
      (B, N, h, w) float32, from `len(scales) * len(factors) * (2 if flip else 1)` calls of maps_fn.

    Raises:
      ValueError: images of another shape; no factors or scales, or scales that are not positive.
    """
    images = images_first(images, "images", "(B, H, W, C)")
    if not factors or not scales or min(scales) <= 0:
        raise InputError(f"factors {tuple(factors)} and scales {tuple(scales)}: expected at least one, and scales > 0.")
    sums = []
    for scale in scales:
        copies = _resized(images, scale)
        unseen = _resized(jnp.broadcast_to(jnp.asarray(baseline, jnp.float32), images.shape), scale)
        total = jnp.zeros(())
        for factor, mirrored in itertools.product(factors, (False, True) if flip else (False,)):
            changed = unseen + factor * (copies - unseen)
            maps = maps_fn(changed[:, :, ::-1] if mirrored else changed, targets)
            total += maps[..., ::-1] if mirrored else maps
        sums.append(total)
    size = max(m.shape[-2] for m in sums), max(m.shape[-1] for m in sums)
    count = len(scales) * len(factors) * (2 if flip else 1)
    return functools.reduce(jnp.add, [resize_map(m, size) for m in sums]) / count


def eigen_smoothing(features: jax.Array, weights: jax.Array) -> jax.Array:
    """The first principal component of a weighted feature map, in place of its sum over the channels.

    pytorch-grad-cam's `eigen_smooth`, with a sign that follows a rule: see
    `camjax.attribution.decomposition.principal_component`.

    Args:
      features: (B, h, w, K).
      weights: of each channel for each of N targets, (B, N, K), such as the mean over space of gradients (Grad-CAM's);
        or of each place too, (B, N, h, w, K).

    Returns:
      (B, N, h, w) float32, signed, with a mean of 0.

    Raises:
      ValueError: shapes that do not fit each other.
    """
    features, weights = images_first(features, "features", "(B, h, w, K)"), jnp.asarray(weights, jnp.float32)
    batch, height, width, channels = features.shape
    if weights.ndim == 3:
        weights = weights[:, :, None, None]
    if (
        weights.ndim != 5
        or weights.shape[0] != batch
        or weights.shape[2:]
        not in (
            (1, 1, channels),
            (height, width, channels),
        )
    ):
        raise InputError(
            f"weights of shape {weights.shape} for features of shape {features.shape}: expected "
            f"({batch}, N, {channels}) or ({batch}, N, {height}, {width}, {channels})."
        )
    return principal_component(features[:, None] * weights)


def _resized(images, scale):
    size = [max(1, round(side * scale)) for side in images.shape[1:3]]
    if size == list(images.shape[1:3]):
        return images
    return jax.image.resize(images, (images.shape[0], *size, images.shape[3]), "linear")
