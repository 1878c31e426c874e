"""Methods that weigh a feature map by what becomes of a score when its channels mask the image, or are taken away.

All have one signature, `method(head_fn, features, targets, ...) -> maps`, with head_fn, features, targets, maps and
errors as in `camjax.attribution.gradient_methods`. No gradient is taken: the head may be any function that JAX traces.
Maps are rectified by definition, and do not sum to the score.

They are loops on the host over compiled chunks, not to be called inside `jax.jit`:

- `chunk_size`: perturbed copies of images, or of features, at a time, which bounds the memory. A copy serves all N
  targets.
- `progress`: `progress(done, total)` with numbers of copies, after each chunk. Without it nothing waits for the device
  but one look at which channels there are to perturb.
- A second call with the same shapes and the same functions compiles nothing. Weights inside a function are constants of
  compiled programs; those of `jax.tree_util.Partial(function, weights)` and of modules of NNX are arguments.

Methods that mask images also take:

- `features_fn`: images -> features, so that `head_fn(features_fn(images))` is the whole network.
- `images`: (B, H, W, C) x that the features are of, in the range that the network takes.
- `baseline`: what is seen where a mask is 0: a number, a color (C,), or images that broadcast to (B, H, W, C); black by
  default. A mask m makes `x_0 + m (x - x_0)` of pixels x and the baseline x_0. torch-cam and pytorch-grad-cam multiply
  normalized images by m: for a network that normalizes for itself, that is a baseline of the mean color it subtracts.

Channel k's mask is f_k resized to the images' size (bilinear, half-pixel centers), then scaled to 0..1, in the paper's
order. torch-cam scales before it resizes; pytorch-grad-cam resizes with the corners of both grids aligned. Masks of
constant channels, and of those that hold a NaN, are 0 everywhere: they all share one copy, the baseline. A NaN in the
features is one in the maps, at its place alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from camjax.attribution.gradient_methods import weighted_sum
from camjax.attribution.gradients import images_first
from camjax.attribution.network import CutNetwork, cut_network
from camjax.attribution.perturbation_chunks import Progress, mean_scores
from camjax.attribution.perturbation_masks import as_they_are, in_steps, masked_maps, with_noise
from camjax.attribution.targets import Target, as_target


def score_cam(
    head_fn: Callable,
    features: jax.Array,
    targets,
    *,
    features_fn: Callable,
    images: jax.Array,
    baseline=0.0,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """Score-CAM (Wang et al. 2020, algorithm 1); see the module.

    With S_k the score of the image masked by channel k, `a = softmax_k(S_k)`: over the channels, of scores before any
    softmax over classes, as in torch-cam and pytorch-grad-cam. The map is `relu(sum_k a_k f_k)`. The score of a
    baseline image, which the paper subtracts from each S_k, cancels in the softmax.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.
      features_fn: images -> features.
      images: (B, H, W, C).
      baseline: what is seen where a mask is 0.
      chunk_size: masked images at a time.
      progress: called after each chunk.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: arguments that do not fit each other, or chunk_size below 1.
    """
    network = cut_network(features_fn, head_fn)
    return _score_cam(
        *_arguments(network, images, features, targets), baseline=baseline, chunk_size=chunk_size, progress=progress
    )


def ss_cam(
    head_fn: Callable,
    features: jax.Array,
    targets,
    *,
    features_fn: Callable,
    images: jax.Array,
    baseline=0.0,
    num_samples: int = 35,
    std: float = 2.0,
    key: jax.Array | None = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """SS-CAM, a smoothed Score-CAM (Wang et al. 2020, "SS-CAM: Smoothed Score-CAM"); see the module.

    As `score_cam`, with S_k the mean score over num_samples masks `m_k + noise`, as in torch-cam: normal noise, another
    at each pixel, one for all colors. The paper's other variant adds it to the feature map. The noise follows from the
    key and the numbers of sample, image and channel, whatever the chunk_size; channels without a mask share theirs.

    Args:
      head_fn: this and the arguments that follow are those of `score_cam`.
      features: likewise.
      targets: likewise.
      features_fn: likewise.
      images: likewise.
      baseline: likewise.
      num_samples: noisy masks of each channel.
      std: standard deviation of the noise, of masks in 0..1.
      key: of `jax.random`; None for `jax.random.key(0)`, the same noise at each call.
      chunk_size: as for `score_cam`.
      progress: likewise.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: as `score_cam`, and num_samples below 1.
    """
    network = cut_network(features_fn, head_fn)
    options = {"baseline": baseline, "num_samples": num_samples, "std": std, "key": key}
    return _ss_cam(*_arguments(network, images, features, targets), **options, chunk_size=chunk_size, progress=progress)


def is_cam(
    head_fn: Callable,
    features: jax.Array,
    targets,
    *,
    features_fn: Callable,
    images: jax.Array,
    baseline=0.0,
    num_samples: int = 10,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """IS-CAM, an integrated Score-CAM (Naidu et al. 2020), with the steps that torch-cam reads in it; see the module.

    As `score_cam`, with S_k the mean score over masks `c_i m_k`, where `c_i = sum_{j <= i} j / n` for i in 1..n and
    n = num_samples. These sums of steps j / n pass 1 and reach (n + 1) / 2: later copies are brighter than the image.

    Args:
      head_fn: this and the arguments that follow are those of `score_cam`.
      features: likewise.
      targets: likewise.
      features_fn: likewise.
      images: likewise.
      baseline: likewise.
      num_samples: number of steps n.
      chunk_size: as for `score_cam`.
      progress: likewise.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: as `score_cam`, and num_samples below 1.
    """
    network = cut_network(features_fn, head_fn)
    options = {"baseline": baseline, "num_samples": num_samples}
    return _is_cam(*_arguments(network, images, features, targets), **options, chunk_size=chunk_size, progress=progress)


def ablation_cam(
    head_fn: Callable, features: jax.Array, targets, *, chunk_size: int = 32, progress: Progress | None = None
) -> jax.Array:
    """Ablation-CAM (Desai and Ramaswamy 2020, eqs. 5 and 6); see the module.

    With y the score, and y_k that of the features with channel k set to 0, `a_k = (y - y_k) / y`, and the map is
    `relu(sum_k a_k f_k)`. By this definition the weights of a score below 0 have the other sign. A score of exactly 0,
    of which nothing is a share, has the weights y - y_k. Channels of zeros are not run, for they change nothing.
    pytorch-grad-cam ablates to 0 only where the least feature of the image is 0, else to 1e7 below the least.

    Args:
      head_fn: features -> outputs; it alone is run.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), or a function of the outputs.
      chunk_size: ablated copies of one image's features at a time.
      progress: called after each chunk.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: features of another shape, targets that do not fit the outputs, or chunk_size below 1.
    """
    network = cut_network(_no_features, head_fn)
    return _ablation_cam(*_arguments(network, None, features, targets), chunk_size=chunk_size, progress=progress)


def _no_features(images):
    raise NotImplementedError("the features of this network are given")


def _arguments(network: CutNetwork, images, features, targets) -> tuple[CutNetwork, Any, jax.Array, Target]:
    """What the methods of `FROM_NETWORK` take, checked."""
    features = images_first(features, "features", "(B, h, w, K)")
    return network, images, features, as_target(targets, jax.eval_shape(network.head, features, images))


def _score_cam(network, images, features, target, *, baseline=0.0, chunk_size=32, progress=None):
    chunks = {"baseline": baseline, "chunk_size": chunk_size, "progress": progress}
    return masked_maps(network, images, features, target, masking=Partial(as_they_are), repeats=1, **chunks)


def _ss_cam(
    network, images, features, target, *, baseline=0.0, num_samples=35, std=2.0, key=None, chunk_size=32, progress=None
):
    masking = Partial(with_noise, jax.random.key(0) if key is None else key, std)
    chunks = {"baseline": baseline, "chunk_size": chunk_size, "progress": progress}
    return masked_maps(network, images, features, target, masking=masking, repeats=num_samples, **chunks)


def _is_cam(network, images, features, target, *, baseline=0.0, num_samples=10, chunk_size=32, progress=None):
    masking = Partial(in_steps, num_samples)
    chunks = {"baseline": baseline, "chunk_size": chunk_size, "progress": progress}
    return masked_maps(network, images, features, target, masking=masking, repeats=num_samples, **chunks)


def _ablation_cam(network, images, features, target, *, chunk_size=32, progress=None):
    features = jnp.asarray(features)
    scores, reference = mean_scores(
        Partial(_ablated_outputs, network.head, images, features),
        target,
        _is_not_zero(features),
        chunk_size=chunk_size,
        progress=progress,
    )
    return _weighted_by_drop(features, scores, reference)


@jax.jit
def _is_not_zero(features):
    return (features != 0).any((1, 2))


def _ablated_outputs(head, images, features, rows):
    image, channel, _ = rows.T
    ablated = jnp.arange(features.shape[-1]) == channel[:, None]
    copies = jnp.where(ablated[:, None, None], 0, features[image].astype(jnp.float32))
    return head(copies, jax.tree.map(lambda array: array[image], images))


@jax.jit
def _weighted_by_drop(features, scores, reference):
    weights = (reference - scores) / jnp.where(reference == 0, 1, reference)
    return jax.nn.relu(weighted_sum(features.astype(jnp.float32), jnp.swapaxes(weights, 1, 2)))


_CHUNKS = ("chunk_size", "progress")

FROM_NETWORK = {
    "scorecam": (_score_cam, ("baseline", *_CHUNKS)),
    "sscam": (_ss_cam, ("baseline", "num_samples", "std", "key", *_CHUNKS)),
    "iscam": (_is_cam, ("baseline", "num_samples", *_CHUNKS)),
    "ablationcam": (_ablation_cam, _CHUNKS),
}
"""The names of the methods on command lines, each as `(network, images, features, target, **options) -> maps`, and the
names of its options."""
