"""Methods that weigh a feature map by how a score changes when its channels mask the image, or are set to zero.

No gradient is taken: the head may be any function that JAX traces. Maps are rectified by definition, and do not sum to
the score. The methods are loops on the host over compiled chunks of perturbed copies, of images or of features, each of
which serves all N targets. A second call with the same shapes and the same functions compiles nothing. Weights inside a
function are constants of compiled programs; those of `jax.tree_util.Partial(function, weights)` and of modules of NNX
are arguments.

torch-cam and pytorch-grad-cam multiply normalized images by the mask: for a network that normalizes its input itself,
that is a baseline of the mean color that it subtracts. torch-cam scales masks before it resizes them; pytorch-grad-cam
resizes with the corners of both grids aligned. Masks of constant channels, and of those that hold a NaN, are 0
everywhere: they all share one copy, the baseline. A NaN in the features is a NaN in the maps, at the same place only.

The functions `<method>_maps(network, images, features, target, **options)` are the rows of
`camjax.attribution.METHODS`, of a network that is already cut in two.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from camjax.attribution.changed_images import broadcast_baseline, noise_key
from camjax.attribution.gradient_methods import weighted_sum
from camjax.attribution.gradients import images_first
from camjax.attribution.network import CutNetwork, cut_network, head_alone
from camjax.attribution.perturbation_chunks import Progress, mean_scores
from camjax.attribution.targets import Target, as_target
from camjax.cam import normalize_map, resize_map
from camjax.errors import InputError
from camjax.sharding import laid_out_like


def score_cam(
    head_fn: Callable,
    features: jax.Array,
    targets: Any,
    *,
    features_fn: Callable,
    images: jax.Array,
    baseline: ArrayLike = 0.0,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """Score-CAM (Wang et al. 2020, algorithm 1).

    With S_k the score of the image masked by channel k, `a = softmax_k(S_k)`: over the channels, of scores before any
    softmax over classes, as in torch-cam and pytorch-grad-cam. The map is `relu(sum_k a_k f_k)`. The score of a
    baseline image, which the paper subtracts from each S_k, cancels in the softmax. Channel k's mask m is f_k, resized
    to the images' size (bilinear, half-pixel centers), then scaled to 0..1; it turns pixels x into `x_0 + m (x - x_0)`,
    with the baseline x_0. A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      head_fn: features -> outputs, before any softmax.
      features: (B, h, w, K) of the images.
      targets: class ids (B,) or (B, N), or a function of the outputs.
      features_fn: images -> features, so that `head_fn(features_fn(images))` is the whole network.
      images: (B, H, W, C), in the range that the network takes.
      baseline: x_0: a number, a color (C,), or images that broadcast to (B, H, W, C); black by default.
      chunk_size: masked images at a time, which bounds the memory.
      progress: `progress(done, total)` with numbers of masked images, after each chunk.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: arguments that do not fit each other, or chunk_size below 1.
    """
    network, features, target = _checked(cut_network(features_fn, head_fn), images, features, targets)
    return _masked_maps(network, images, features, target, Partial(unchanged), 1, baseline, chunk_size, progress)


def faster_score_cam(
    head_fn: Callable,
    features: jax.Array,
    targets: Any,
    *,
    features_fn: Callable,
    images: jax.Array,
    num_channels: int = 10,
    baseline: ArrayLike = 0.0,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """Faster-Score-CAM (Tabayashi 2020): `score_cam` of each image's `num_channels` channels of largest variance alone.

    The weights are Score-CAM's, a softmax over these channels; tf-keras-vis, which has the method too, weighs by the
    scores themselves. All channels count where there are no more.

    The other arguments, the result and the errors are those of `score_cam`; num_channels below 1 is a ValueError too.
    """
    network, features, target = _checked(cut_network(features_fn, head_fn), images, features, targets)
    options: dict[str, Any] = {"baseline": baseline, "chunk_size": chunk_size, "progress": progress}
    return faster_score_cam_maps(network, images, features, target, num_channels=num_channels, **options)


def ss_cam(
    head_fn: Callable,
    features: jax.Array,
    targets: Any,
    *,
    features_fn: Callable,
    images: jax.Array,
    baseline: ArrayLike = 0.0,
    num_samples: int = 35,
    std: float = 2.0,
    key: jax.Array | None = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """SS-CAM, a smoothed Score-CAM (Wang et al. 2020, "SS-CAM: Smoothed Score-CAM").

    As `score_cam`, with S_k the mean score over num_samples masks `m_k + noise`, as in torch-cam: normal noise of
    standard deviation `std`, for masks in 0..1, independent for each pixel and the same for all colors. The paper's
    other variant adds it to the feature map. The noise depends on the key (of `jax.random`; None for
    `jax.random.key(0)`) and the indices of sample, image and channel, not on chunk_size; channels without a mask share
    one.

    The other arguments, the result and the errors are those of `score_cam`; num_samples below 1 is a ValueError too.
    """
    network, features, target = _checked(cut_network(features_fn, head_fn), images, features, targets)
    noise = _noise(key, std)
    return _masked_maps(network, images, features, target, noise, num_samples, baseline, chunk_size, progress)


def is_cam(
    head_fn: Callable,
    features: jax.Array,
    targets: Any,
    *,
    features_fn: Callable,
    images: jax.Array,
    baseline: ArrayLike = 0.0,
    num_samples: int = 10,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """IS-CAM, an integrated Score-CAM (Naidu et al. 2020), with the steps that torch-cam takes.

    As `score_cam`, with S_k the mean score over masks `c_i m_k`, where `c_i = sum_{j <= i} j / n` for i in 1..n and
    n = num_samples. The factors c_i grow up to (n + 1) / 2, so later copies are brighter than the image.

    The other arguments, the result and the errors are those of `score_cam`; num_samples below 1 is a ValueError too.
    """
    network, features, target = _checked(cut_network(features_fn, head_fn), images, features, targets)
    steps = Partial(in_steps, num_samples)
    return _masked_maps(network, images, features, target, steps, num_samples, baseline, chunk_size, progress)


def ablation_cam(
    head_fn: Callable, features: jax.Array, targets: Any, *, chunk_size: int = 32, progress: Progress | None = None
) -> jax.Array:
    """Ablation-CAM (Desai and Ramaswamy 2020, eqs. 5 and 6).

    With y the score, and y_k that of the features with channel k set to 0, `a_k = (y - y_k) / y`, and the map is
    `relu(sum_k a_k f_k)`. By this definition the weights of a score below 0 have the other sign. For a score of exactly
    0 the weights are y - y_k. Channels of zeros are not run, because they change nothing.
    pytorch-grad-cam ablates to 0 only where the least feature of the image is 0, else to 1e7 below the least. A loop on
    the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      head_fn: features -> outputs; it alone is run.
      features: (B, h, w, K), of any layer.
      targets: class ids (B,) or (B, N), or a function of the outputs.
      chunk_size: ablated copies of one image's features at a time, which bounds the memory.
      progress: `progress(done, total)` with numbers of copies, after each chunk.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: features of another shape, targets that do not fit the outputs, or chunk_size below 1.
    """
    network, features, target = _checked(head_alone(head_fn), None, features, targets)
    return ablation_cam_maps(network, None, features, target, chunk_size=chunk_size, progress=progress)


def _checked(
    network: CutNetwork, images: jax.Array | None, features: jax.Array, targets: Any
) -> tuple[CutNetwork, jax.Array, Target]:
    """The network, float32 features, and targets as a function of the outputs; ValueError if they do not fit."""
    features = images_first(features, "features", "(B, h, w, K)")
    return network, features, as_target(targets, jax.eval_shape(network.head, features, images))


def score_cam_maps(
    network: CutNetwork,
    images: jax.Array,
    features: jax.Array,
    target: Target,
    *,
    baseline: ArrayLike = 0.0,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """`score_cam` of a network that is cut in two; the target is a function of the outputs."""
    return _masked_maps(network, images, features, target, Partial(unchanged), 1, baseline, chunk_size, progress)


def faster_score_cam_maps(
    network: CutNetwork,
    images: jax.Array,
    features: jax.Array,
    target: Target,
    *,
    num_channels: int = 10,
    baseline: ArrayLike = 0.0,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """`faster_score_cam` of a network that is cut in two."""
    if num_channels < 1:
        raise InputError(f"num_channels={num_channels}: expected the number of channels to mask by, at least 1.")
    chosen = _most_varied(jnp.asarray(features), num_channels)
    return _masked_maps(network, images, chosen, target, Partial(unchanged), 1, baseline, chunk_size, progress)


def ss_cam_maps(
    network: CutNetwork,
    images: jax.Array,
    features: jax.Array,
    target: Target,
    *,
    baseline: ArrayLike = 0.0,
    num_samples: int = 35,
    std: float = 2.0,
    key: jax.Array | None = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """`ss_cam` of a network that is cut in two."""
    noise = _noise(key, std)
    return _masked_maps(network, images, features, target, noise, num_samples, baseline, chunk_size, progress)


def is_cam_maps(
    network: CutNetwork,
    images: jax.Array,
    features: jax.Array,
    target: Target,
    *,
    baseline: ArrayLike = 0.0,
    num_samples: int = 10,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """`is_cam` of a network that is cut in two."""
    steps = Partial(in_steps, num_samples)
    return _masked_maps(network, images, features, target, steps, num_samples, baseline, chunk_size, progress)


def ablation_cam_maps(
    network: CutNetwork,
    images: jax.Array | None,
    features: jax.Array,
    target: Target,
    *,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """`ablation_cam` of a network that is cut in two."""
    features = jnp.asarray(features)
    scores, reference = mean_scores(
        Partial(_ablated_outputs, network.head),
        (images, features),
        target,
        _is_not_zero(features),
        chunk_size=chunk_size,
        progress=progress,
    )
    return _weighted_by_drop(features, scores, reference)


@jax.jit
def _is_not_zero(features):
    return (features != 0).any((1, 2))


def _ablated_outputs(head, of_images, places, rows):
    images, features = of_images
    channel = rows[:, 1]
    ablated = jnp.arange(features.shape[-1], dtype=channel.dtype)[None] == channel[:, None]
    copies = jnp.where(ablated[:, None, None], 0.0, features[places].astype(jnp.float32))
    return head(copies, jax.tree.map(lambda array: jnp.asarray(array)[places], images))


@jax.jit
@laid_out_like(0, trailing=3)
def _weighted_by_drop(features, scores, reference):
    weights = (reference - scores) / jnp.where(reference == 0, 1, reference)
    return jax.nn.relu(weighted_sum(features.astype(jnp.float32), jnp.swapaxes(weights, 1, 2)))


def unchanged(masks: jax.Array, rows: jax.Array) -> jax.Array:
    """(R, H, W) masks in 0..1 and (R, 3) rows of image, channel and repeat -> the masks: Score-CAM's."""
    return masks


def with_noise(key: jax.Array, std: float, masks: jax.Array, rows: jax.Array) -> jax.Array:
    """The masks with normal noise, independent for each row: SS-CAM's."""

    def noise(row):
        image, channel, repeat = row
        own_key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, repeat), image), channel)
        return jax.random.normal(own_key, masks.shape[1:], masks.dtype)

    return masks + std * jax.vmap(noise)(rows)


def _noise(key: jax.Array | None, std: float) -> Partial:
    return Partial(with_noise, noise_key(key), std)


def in_steps(num_samples: int, masks: jax.Array, rows: jax.Array) -> jax.Array:
    """The masks times `sum_{j <= i} j / num_samples` for the repeats i = 1, 2, ...: IS-CAM's."""
    step = (rows[:, 2] + 1).astype(masks.dtype)
    return masks * (step * (step + 1) / (2 * num_samples))[:, None, None]


def _masked_maps(
    network: CutNetwork,
    images: jax.Array,
    features: jax.Array,
    target: Target,
    masking: Partial,
    repeats: int,
    baseline: ArrayLike,
    chunk_size: int,
    progress: Progress | None,
) -> jax.Array:
    """The maps of a method that masks images; see the module.

    Args:
      network: the whole network is run.
      images: (B, H, W, C), as the network takes them.
      features: (B, h, w, K) of the images, any float dtype.
      target: outputs -> (B, N).
      masking: (masks, rows) -> the masks that are used, such as `unchanged`.
      repeats: masks of each channel.
      baseline: what the network sees where a mask is 0.
      chunk_size: masked images at a time.
      progress: called after each chunk.

    Returns:
      (B, N, h, w) float32: rectified sums of channels, weighted by the softmax of their mean scores.

    Raises:
      ValueError: arguments that do not fit each other, or chunk_size or repeats below 1.
    """
    images, features = jnp.asarray(images), jnp.asarray(features)
    if images.ndim != 4 or len(images) != len(features):
        raise InputError(
            f"images of shape {images.shape} and features of shape {features.shape}: expected (B, H, W, C), and "
            "(B, h, w, K) of the same images."
        )
    unseen = broadcast_baseline(baseline, images)
    if repeats < 1:
        raise InputError(f"num_samples={repeats}: expected the number of masks of each channel, at least 1.")
    masked = _varies(features)
    scores, _ = mean_scores(
        Partial(_masked_outputs, network, masking),
        (images, features, masked, unseen),
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


@functools.partial(jax.jit, static_argnums=1)
@laid_out_like(0, trailing=3)
def _most_varied(features, count):
    """(B, h, w, K) -> (B, h, w, count), or all channels where there are no more; those that hold a NaN come first."""
    spread = features.astype(jnp.float32).var((1, 2))
    found = jax.lax.top_k(jnp.where(jnp.isnan(spread), jnp.inf, spread), min(count, features.shape[-1]))[1]
    return jnp.take_along_axis(features, found[:, None, None], axis=-1)


def _masked_outputs(network, masking, of_images, places, rows):
    images, features, masked, unseen = of_images
    channel = rows[:, 1]
    maps = resize_map(features[places, :, :, channel], images.shape[1:3])
    has_mask = jnp.pad(masked, ((0, 0), (0, 1)))[places, channel]
    masks = masking(jnp.where(has_mask[:, None, None], normalize_map(maps), 0), rows)
    seen = images[places].astype(jnp.float32)
    unseen = unseen[places]
    return network(unseen + masks[..., None] * (seen - unseen))


@jax.jit
@laid_out_like(0, trailing=3)
def _weighted_by_softmax(features, scores):
    weights = jax.nn.softmax(scores, axis=1)
    return jax.nn.relu(weighted_sum(features.astype(jnp.float32), jnp.swapaxes(weights, 1, 2)))
