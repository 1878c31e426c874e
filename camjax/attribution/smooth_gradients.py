"""Smooth Grad-CAM++: Grad-CAM++ with the mean of its gradients' powers over noisy copies of the image."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from camjax.attribution.averaged_gradients import one_copy_each
from camjax.attribution.changed_images import noise_key
from camjax.attribution.gradient_methods import away_from_zero, weighted_sum
from camjax.attribution.gradients import images_first, output_gradients
from camjax.attribution.network import CutNetwork, cut_network
from camjax.attribution.perturbation_chunks import Progress
from camjax.attribution.targets import Target, as_target
from camjax.errors import InputError
from camjax.sharding import laid_out_like


def smooth_grad_cam_plus_plus(
    head_fn: Callable,
    features: jax.Array,
    targets: Any,
    *,
    features_fn: Callable,
    images: jax.Array,
    num_samples: int = 4,
    noise: float = 0.1,
    key: jax.Array | None = None,
    progress: Progress | None = None,
) -> jax.Array:
    """Smooth Grad-CAM++ (Omeiza et al. 2019), with the numerator that torch-cam has; see `grad_cam_plus_plus`.

    With `<x>` the mean of x over num_samples noisy copies of the image, g the gradient of a copy, and f the features of
    the image itself: `a_k(y, x) = <g^2> / (2 <g^2> + <g^3> sum_{v,u} f_k(v, u))`, 0 where g is 0; the map is
    `relu(sum_k sum_{v,u} a_k(v, u) relu(<g_k>(v, u)) f_k)`. The paper has <g> in the numerator; without noise the map
    would then not be that of Grad-CAM++. It is a loop on the host, not to be called inside `jax.jit`.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K) of the images.
      targets: class ids (B,) or (B, N), or a function of the outputs.
      features_fn: images -> features.
      images: (B, H, W, C), as the network takes them.
      num_samples: copies of each image.
      noise: standard deviation of the normal noise, as a share of the image's range, its largest value less its
        smallest (Smilkov et al. 2017: 0.1 to 0.2). It depends on the key, the copy and the image's place in the batch.
      key: of `jax.random`; `jax.random.key(0)` for None.
      progress: `progress(done, total)` with numbers of copies, after each round of one copy an image.

    Returns:
      (B, N, h, w) float32, not negative.

    Raises:
      ValueError: arguments that do not fit each other, or num_samples below 1.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    network, images = cut_network(features_fn, head_fn), jnp.asarray(images)
    target = as_target(targets, jax.eval_shape(lambda images: network(images), images))
    options: dict[str, Any] = {"num_samples": num_samples, "noise": noise, "key": key, "progress": progress}
    return smooth_grad_cam_plus_plus_maps(network, images, features, target, **options)


def smooth_grad_cam_plus_plus_maps(
    network: CutNetwork,
    images: jax.Array,
    features: jax.Array,
    target: Target,
    *,
    num_samples: int = 4,
    noise: float = 0.1,
    key: jax.Array | None = None,
    progress: Progress | None = None,
) -> jax.Array:
    """`smooth_grad_cam_plus_plus` of a network that is cut in two; the target is a function of the outputs."""
    if num_samples < 1:
        raise InputError(f"num_samples={num_samples}: expected the number of noisy copies of each image, at least 1.")
    images, features = jnp.asarray(images), jnp.asarray(features)
    key = noise_key(key)
    sums: Any = None
    for sample in range(num_samples):
        powers = _powers(images, network, target, key, noise, sample)
        sums = powers if sums is None else _added(sums, powers)
        if progress:
            jax.block_until_ready(sums)
            progress((sample + 1) * len(images), num_samples * len(images))
    return _maps(features, sums, 1 / num_samples)


@jax.jit
@laid_out_like(0, trailing=3)
def _powers(images, network, target, key, noise, sample):
    """The gradients of noisy images, their squares and their third powers, (B, N, h, w, K) each."""
    copies = one_copy_each(key, noise, images, sample)
    _, gradients = output_gradients(network.head_of(copies), network.features(copies))
    first = gradients(target)
    return first, first**2, first**3


@jax.jit
def _added(sums, powers):
    return jax.tree.map(jnp.add, sums, powers)


@jax.jit
@laid_out_like(0, trailing=3)
def _maps(features, sums, share):
    features = features.astype(jnp.float32)
    first, second, third = (power * share for power in sums)
    totals = features.sum((1, 2))[:, None, None, None]
    shares = jnp.where(second == 0, 0, second / away_from_zero(2 * second + totals * third))
    return jax.nn.relu(weighted_sum(features, (shares * jax.nn.relu(first)).sum((2, 3))))
