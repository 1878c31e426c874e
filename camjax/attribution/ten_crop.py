"""The heatmap of the paper's release: the class activation maps of ten crops, put together where the crops lay.

Ten crops of the network's input size are cut from a larger image: the four corners, the center, and the mirror images
of these. A class's map in each crop is resized to the crop (bicubic), its magnitude |M_c| taken, mirrored back and
added where the crop lay; the sum is divided by its maximum. Because of the magnitudes, as in the release, evidence
against the class adds as well, and no place of the heatmap is negative. Scores are the mean of the crops' softmax, as
is usual in Caffe.

Two details differ from the release. It resizes the sum to the size of the photograph before it draws a box; here the
box, in 0..1, is drawn at the size of the images that are given. And the central part of a model's mean image is
subtracted from each crop, where Caffe subtracts the whole of it before cropping.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from camjax.cam import resize_map
from camjax.checks import as_array
from camjax.errors import InputError


class Crops(NamedTuple):
    """Crops of an image on which a method runs the network, and how what it says of them becomes one.

    Attributes:
      image_size: (h, w) of a crop -> (H, W) of the image in pixels that crops are cut from.
      cut: (images (B, H, W, 3), (h, w)) -> crops (B, n, h, w, 3).
      merge_outputs: (outputs (B, n, C) of the crops, `multi_label` of the model) -> (B, C) float32.
      merge_maps: (maps (B, n, N, h', w') of the crops, (h, w), (H, W)) -> (B, N, H, W) float32.
    """

    image_size: Callable[[tuple[int, int]], tuple[int, int]]
    cut: Callable[[jax.Array, tuple[int, int]], jax.Array]
    merge_outputs: Callable[[jax.Array, bool], jax.Array]
    merge_maps: Callable[[jax.Array, tuple[int, int], tuple[int, int]], jax.Array]


def ten_crop_size(input_size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the image in pixels from which crops of `input_size` are taken, in the proportion of 256 to 224.

    `8 * floor(side / 7)`, but no less than the side: 256 for crops of 224 and for those of 227, as in the release.
    """
    height, width = (max(side, side // 7 * 8) for side in input_size)
    return height, width


def ten_crops(images: jax.Array, crop_size: tuple[int, int]) -> jax.Array:
    """Cuts out the four corners and the center, and mirrors them.

    Args:
      images: (B, H, W, ...).
      crop_size: (h, w) in pixels, at most (H, W).

    Returns:
      (B, 10, h, w, ...): top left, top right, bottom left, bottom right, center; then the same mirrored left to right.

    Raises:
      ValueError: the images are smaller than a crop.
    """
    images = as_array(images, "images")
    size = images.shape[1], images.shape[2]
    height, width = crop_size
    if size[0] < height or size[1] < width:
        raise InputError(
            f"images of {size[0]} x {size[1]} pixels: expected {ten_crop_size(crop_size)}, or any size not below the "
            f"network's {crop_size}, the size of the ten crops."
        )
    corners = _corners(size, crop_size)
    crops = jnp.stack([images[:, y : y + height, x : x + width] for y, x in corners], axis=1)
    return jnp.concatenate([crops, jnp.flip(crops, axis=3)], axis=1)


def merge_ten_crops(maps: jax.Array, crop_size: tuple[int, int], size: tuple[int, int]) -> jax.Array:
    """Adds the magnitudes of the crops' maps where the crops lay, and divides by the maximum.

    Args:
      maps: (B, 10, N, h', w') raw maps of the crops of `ten_crops`.
      crop_size: (h, w) of a crop in pixels.
      size: (H, W) of the image in pixels.

    Returns:
      (B, N, H, W) float32 in 0..1; zeros for maps that are zero everywhere or hold a NaN.
    """
    height, width = crop_size
    total = jnp.zeros((maps.shape[0], maps.shape[2], *size), jnp.float32)
    for i, (y, x) in enumerate(_corners(size, crop_size)):
        upright, mirrored = (jnp.abs(resize_map(maps[:, crop], crop_size, "bicubic")) for crop in (i, i + 5))
        total = total.at[..., y : y + height, x : x + width].add(upright + jnp.flip(mirrored, axis=-1))
    maximum = total.max((-2, -1), keepdims=True)
    valid = (maximum > 0) & jnp.isfinite(maximum)
    return jnp.where(valid, total / jnp.where(valid, maximum, 1), 0)


def mean_score_logits(logits: jax.Array, multi_label: bool = False) -> jax.Array:
    """(B, 10, C) logits of the crops -> (B, C) float32: the logarithm of the mean of their softmax.

    They serve as the logits of the image: their softmax is that mean. The same of a single logit, or those of a network
    for images of several classes, and their sigmoids.
    """
    if multi_label or logits.shape[-1] == 1:
        # The logarithms of p and of 1 - p, which float32 rounds to 0 for a large logit.
        yes, no = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * logits.astype(jnp.float32)), axis=1) for sign in (1, -1))
        return yes - no
    scores = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jax.nn.logsumexp(scores, axis=1) - math.log(logits.shape[1])


def _corners(size: tuple[int, int], crop_size: tuple[int, int]) -> list[tuple[int, int]]:
    """The top left pixels (y, x) of the five upright crops; the center is rounded down."""
    bottom, right = size[0] - crop_size[0], size[1] - crop_size[1]
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]


TEN_CROP = Crops(ten_crop_size, ten_crops, mean_score_logits, merge_ten_crops)
"""The heatmap of the paper's release."""
