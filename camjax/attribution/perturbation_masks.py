"""Images masked by the channels of their own feature maps, and what their scores make of those channels."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from camjax.attribution.gradient_methods import weighted_sum
from camjax.attribution.network import CutNetwork
from camjax.attribution.perturbation_chunks import Progress, mean_scores
from camjax.attribution.targets import Target
from camjax.cam import normalize_map, resize_map


def as_they_are(masks: jax.Array, rows: jax.Array) -> jax.Array:
    """(R, H, W) masks in 0..1 and (R, 3) rows of image, channel and repeat -> the masks: Score-CAM's."""
    return masks


def with_noise(key: jax.Array, std: float, masks: jax.Array, rows: jax.Array) -> jax.Array:
    """As `as_they_are`, with normal noise, another for each row: SS-CAM's masks."""

    def noise(row):
        image, channel, repeat = row
        own_key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, repeat), image), channel)
        return jax.random.normal(own_key, masks.shape[1:])

    return masks + std * jax.vmap(noise)(rows)


def in_steps(num_samples: int, masks: jax.Array, rows: jax.Array) -> jax.Array:
    """As `as_they_are`, times `sum_{j <= i} j / num_samples` for the repeats i = 1, 2, ...: IS-CAM's masks."""
    step = rows[:, 2] + 1
    return masks * (step * (step + 1) / (2 * num_samples))[:, None, None]


def masked_maps(
    network: CutNetwork,
    images: jax.Array,
    features: jax.Array,
    target: Target,
    *,
    masking: Partial,
    repeats: int,
    baseline,
    chunk_size: int,
    progress: Progress | None,
) -> jax.Array:
    """The maps of a method that masks images; see `camjax.attribution.perturbation`.

    Args:
      network: the whole network is run.
      images: (B, H, W, C).
      features: (B, h, w, K) of the images, any float dtype.
      target: outputs -> (B, N).
      masking: (masks, rows) -> masks that are shown, such as `as_they_are`.
      repeats: masks of each channel.
      baseline: what is seen where a mask is 0.
      chunk_size: masked images at a time.
      progress: called after each chunk.

    Returns:
      (B, N, h, w) float32: rectified sums of channels, weighted by the softmax of their mean scores.

    Raises:
      ValueError: arguments that do not fit each other, or chunk_size or repeats below 1.
    """
    images, features, baseline = jnp.asarray(images), jnp.asarray(features), jnp.asarray(baseline, jnp.float32)
    if images.ndim != 4 or len(images) != len(features):
        raise ValueError(
            f"images of shape {images.shape} and features of shape {features.shape}: expected (B, H, W, C), and "
            "(B, h, w, K) of the same images."
        )
    if baseline.ndim > images.ndim or any(
        a not in (1, b) for a, b in zip(baseline.shape[::-1], images.shape[::-1], strict=False)
    ):
        raise ValueError(
            f"baseline of shape {baseline.shape} for images of shape {images.shape}: expected a number, a color (C,), "
            "or images that broadcast to those."
        )
    if repeats < 1:
        raise ValueError(f"num_samples={repeats}: expected the number of masks of each channel, at least 1.")
    masked = _varies(features)
    scores, _ = mean_scores(
        Partial(_masked_outputs, network, images, features, masked, baseline, masking),
        target,
        masked,
        repeats=repeats,
        chunk_size=chunk_size,
        progress=progress,
    )
    return _weighted_by_softmax(features, scores)


@jax.jit
def _varies(features):
    """(B, h, w, K) -> (B, K): whether a channel has a mask."""
    # Asked before resizing: rounding there would give the map of a constant channel a range.
    low, high = features.min((1, 2)), features.max((1, 2))
    return (high > low) & jnp.isfinite(low) & jnp.isfinite(high)


def _masked_outputs(network, images, features, masked, baseline, masking, rows):
    image, channel, _ = rows.T
    maps = resize_map(features[image, :, :, channel], images.shape[1:3])
    has_mask = jnp.pad(masked, ((0, 0), (0, 1)))[image, channel]
    masks = masking(jnp.where(has_mask[:, None, None], normalize_map(maps), 0), rows)
    seen = images[image].astype(jnp.float32)
    unseen = jnp.broadcast_to(baseline, images.shape)[image]
    return network(unseen + masks[..., None] * (seen - unseen))


@jax.jit
def _weighted_by_softmax(features, scores):
    weights = jax.nn.softmax(scores, axis=1)
    return jax.nn.relu(weighted_sum(features.astype(jnp.float32), jnp.swapaxes(weights, 1, 2)))
