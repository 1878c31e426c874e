"""Recipro-CAM: the score of each place alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from camjax.attribution.gradients import images_first
from camjax.attribution.network import CutNetwork, head_alone
from camjax.attribution.perturbation_chunks import Progress, mean_scores
from camjax.attribution.targets import Target, as_target, probabilities
from camjax.sharding import laid_out_like


def recipro_cam(
    head_fn: Callable,
    features: jax.Array,
    targets: Any,
    *,
    gaussian: bool = False,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """Recipro-CAM (Byun and Lee 2024, "ReciproCAM"): the head on features that are 0 but at one place.

    The map at a place is the score of the features there alone, less the score of no features at all. The authors' maps
    are scaled to 0..1, where what is taken away makes no difference. No gradient is taken: the head may be any function
    that JAX traces. A loop on the host over compiled chunks, not to be called inside `jax.jit`.

    Args:
      head_fn: features -> outputs.
      features: (B, h, w, K).
      targets: class ids (B,) or (B, N), for the probabilities of classes, as the authors have it; or a function of the
        outputs, such as `camjax.attribution.targets.classes(ids)` for the scores.
      gaussian: whether the features of the place also stand at the eight around it, weighted by (1, 2, 1) / 4 in each
        direction, and so by 1 / 4 at the place itself: the authors' second variant.
      chunk_size: copies of one image's features at a time.
      progress: `progress(done, total)` with numbers of copies, after each chunk.

    Returns:
      (B, N, h, w) float32, signed.

    Raises:
      ValueError: features of another shape, targets that do not fit the outputs, or chunk_size below 1.
    """
    features = images_first(features, "features", "(B, h, w, K)")
    target = as_target(targets if callable(targets) else probabilities(targets), jax.eval_shape(head_fn, features))
    options: dict[str, Any] = {"gaussian": gaussian, "chunk_size": chunk_size, "progress": progress}
    return recipro_cam_maps(head_alone(head_fn), None, features, target, **options)


def recipro_cam_maps(
    network: CutNetwork,
    images: jax.Array | None,
    features: jax.Array,
    target: Target,
    *,
    gaussian: bool = False,
    chunk_size: int = 32,
    progress: Progress | None = None,
) -> jax.Array:
    """`recipro_cam` of a network that is cut in two; the target is a function of the outputs."""
    features = jnp.asarray(features)
    scores, nothing = mean_scores(
        Partial(_one_place_left if not gaussian else _spread_from_one_place, network.head),
        (images, features),
        target,
        _has_features(features),
        chunk_size=chunk_size,
        progress=progress,
    )
    return _above_nothing(features, scores, nothing)


@jax.jit
def _has_features(features):
    """(B, h, w, K) -> (B, h * w): whether there are any at a place."""
    return (features != 0).any(-1).reshape(len(features), -1)


def _one_place_left(head, of_images, places, rows):
    images, features = of_images
    down, across = _distances(features, rows)
    at_place = down + across == 0
    copies = jnp.where(at_place[..., None], features[places].astype(jnp.float32), 0)
    return head(copies, jax.tree.map(lambda array: jnp.asarray(array)[places], images))


def _spread_from_one_place(head, of_images, places, rows):
    images, features = of_images
    down, across = _distances(features, rows)
    near = (down <= 1) & (across <= 1)
    weights = jnp.exp2(-2.0 - down - across)
    width = features.shape[2]
    cell = rows[:, 1]
    at_place = features[places, cell // width, cell % width].astype(jnp.float32)
    copies = jnp.where(near[..., None], weights[..., None] * at_place[:, None, None], 0)
    return head(copies, jax.tree.map(lambda array: jnp.asarray(array)[places], images))


def _distances(features, rows):
    """Of each cell from the row's place, (R, h, w) down and across; of the row without a place, far ones."""
    height, width = features.shape[1:3]
    cell = rows[:, 1]
    far = jnp.where(cell < height * width, 0, 2 + height)
    down = jnp.abs(jnp.arange(height, dtype=cell.dtype)[None] - (cell // width)[:, None]) + far[:, None]
    across = jnp.abs(jnp.arange(width, dtype=cell.dtype)[None] - (cell % width)[:, None])
    shape = len(rows), height, width
    return jnp.broadcast_to(down[:, :, None], shape), jnp.broadcast_to(across[:, None], shape)


@jax.jit
@laid_out_like(0, trailing=3)
def _above_nothing(features, scores, nothing):
    maps = jnp.swapaxes(scores - nothing, 1, 2)
    return maps.reshape(*maps.shape[:2], *features.shape[1:3])
