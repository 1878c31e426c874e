"""Methods that average the gradient of a score over changed copies of the image: Integrated Gradients, SmoothGrad.

Both are `method(network_fn, images, targets, ...) -> maps`, and rows of `camjax.attribution.METHODS`: loops on the host
over compiled chunks, each with one forward pass and N backward passes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from camjax.attribution.changed_images import broadcast_baseline, checked, noise_key
from camjax.attribution.gradients import saliency
from camjax.attribution.perturbation_chunks import Progress, mean_gradients
from camjax.errors import InputError
from camjax.sharding import laid_out_like


def integrated_gradients(
    network_fn: Callable[[jax.Array], jax.Array],
    images: ArrayLike,
    targets: Any,
    *,
    baseline: ArrayLike = 0.0,
    num_steps: int = 50,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """Integrated Gradients (Sundararajan et al. 2017, eqs. 1 and 3).

    The gradient's integral along the line from the baseline x_0 to the image x, times the way:
    `(x - x_0) int_0^1 dS(x_0 + a (x - x_0)) / dx da`, summed over colors. A map sums to S(x) - S(x_0), up to the error
    of the integral (completeness; proposition 1).

    The integral is taken by Gauss and Legendre's rule, as by default in captum, where the paper has a Riemann sum. A
    loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      network_fn: (B, H, W, C) float32 images -> outputs (B, ...), each image's from that image alone. Weights of NNX
        modules and of `jax.tree_util.Partial(function, weights)` are arguments of compiled programs, others constants.
      images: (B, H, W, C) in the range that the network takes, uint8 or float.
      targets: class ids (B,) or (B, N), or a function of the outputs; see `camjax.attribution.targets`.
      baseline: x_0, where nothing is to be seen: a number, a color (C,), or images that broadcast to (B, H, W, C);
        black by default, as in the paper. captum's 0 in normalized images is the color that a network subtracts.
      num_steps: points on the line.
      chunk_size: images at a time, on a device, which bounds the memory.
      progress: `progress(done, total)` with numbers of images, after each chunk.

    Returns:
      (B, N, H, W) float32, signed.

    Raises:
      ValueError: arguments that do not fit each other, or numbers below 1.
    """
    if num_steps < 1:
        raise InputError(f"num_steps={num_steps}: expected the number of points on the line, at least 1.")
    network, images, target = checked(network_fn, images, targets)
    baseline = broadcast_baseline(baseline, images)
    places, weights = np.polynomial.legendre.leggauss(num_steps)
    # Of -1..1, to 0..1; a mean over the points has weights of the sum num_steps.
    copies = Partial(_on_the_line, jnp.asarray((places + 1) / 2, jnp.float32))
    mean = mean_gradients(
        network,
        copies,
        (images, baseline),
        target,
        weights=jnp.asarray(weights / 2 * num_steps, jnp.float32),
        chunk_size=chunk_size,
        progress=progress,
    )
    return _times_the_way(images, baseline, mean)


def _on_the_line(shares, of_images, places, rows):
    images, baseline = (array[places].astype(jnp.float32) for array in of_images)
    return baseline + shares[rows[:, 2]][:, None, None, None] * (images - baseline)


@jax.jit
@laid_out_like(0, trailing=3)
def _times_the_way(images, baseline, gradients):
    return (gradients * (images.astype(jnp.float32) - baseline)[:, None]).sum(-1)


def smooth_grad(
    network_fn: Callable[[jax.Array], jax.Array],
    images: ArrayLike,
    targets: Any,
    *,
    noise: float = 0.15,
    num_samples: int = 25,
    key: jax.Array | None = None,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """SmoothGrad (Smilkov et al. 2017, section 2.1).

    The mean gradient over noisy copies of the image, `1/n sum_i dS(x + e_i) / dx` with normal e_i. Of the colors the
    largest magnitude counts, as in `camjax.attribution.image_gradient`: with no noise, the maps are the same. A loop on
    the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      network_fn: as in `integrated_gradients`.
      images: as in `integrated_gradients`.
      targets: as in `integrated_gradients`.
      noise: standard deviation of e_i, as a share of the image's range from its darkest to its brightest value; 0.1 to
        0.2 in the paper, 0.15 in its code.
      num_samples: n, 25 in the paper's code.
      key: of `jax.random`; None for `jax.random.key(0)`. The noise depends on the key and on the indices of sample and
        image, not on chunk_size: the same key gives the same maps.
      chunk_size: copies at a time, on a device, which bounds the memory.
      progress: `progress(done, total)` with numbers of copies, after each chunk.

    Returns:
      (B, N, H, W) float32, not negative.

    Raises:
      ValueError: arguments that do not fit each other, num_samples below 1, or noise below 0.
    """
    if num_samples < 1 or not 0 <= noise < np.inf:
        raise InputError(
            f"num_samples={num_samples}, noise={noise}: expected at least 1 copy, and a share of the image's range, 0 "
            "for none."
        )
    network, images, target = checked(network_fn, images, targets)
    mean = mean_gradients(
        network,
        Partial(noisy, noise_key(key), noise),
        images,
        target,
        weights=jnp.ones(num_samples, jnp.float32),
        chunk_size=chunk_size,
        progress=progress,
    )
    return _largest_color(mean)


def noisy(key: jax.Array, noise: ArrayLike, images: jax.Array, places: jax.Array, rows: jax.Array) -> jax.Array:
    """Copies of images with SmoothGrad's noise: rows (R, 3) of image, 0 and sample -> (R, H, W, C) float32."""
    copies = images[places].astype(jnp.float32)

    def drawn(row):
        own_key = jax.random.fold_in(jax.random.fold_in(key, row[2]), row[0])
        return jax.random.normal(own_key, copies.shape[1:], copies.dtype)

    ranges = copies.max((1, 2, 3), keepdims=True) - copies.min((1, 2, 3), keepdims=True)
    return copies + noise * ranges * jax.vmap(drawn)(rows)


def one_copy_each(key: jax.Array, noise: ArrayLike, images: jax.Array, sample: ArrayLike) -> jax.Array:
    """One noisy copy of each image, (B, H, W, C) float32: that of a sample in `noisy`."""
    places = jnp.arange(len(images), dtype=jnp.int32)
    rows = jnp.stack([places, jnp.zeros_like(places), jnp.full_like(places, sample)], axis=1)
    return noisy(key, noise, images, places, rows)


@jax.jit
@laid_out_like(0, trailing=4)
def _largest_color(gradients):
    return saliency(gradients)
