"""The sanity check by randomized models: a map that stays the same without the weights does not depend on them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.errors import InputError
from camjax.metrics.faithfulness.scores import correlation
from camjax.models import create_model


def randomization_check(
    maps_fn: Callable[[Any], jax.Array],
    model: Any,
    layers: Sequence[str] | None = None,
    *,
    key: jax.Array | None = None,
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Cascading randomization (Adebayo et al. 2018, "Sanity checks for saliency maps", section 3.1).

    Layers lose their weights one after the other, from the top of the network to its bottom. After each, the maps are
    compared with those of the whole network. The lower the correlations, the more the maps depend on what was learned.
    See `randomized_from_top` for the weights, `rank_correlation` for the numbers.

    Args:
      maps_fn: model -> maps (..., h, w) of some images, always the same; for instance `lambda model:
        camjax.cam_fn(model, images, class_ids).maps`. Give the class ids: a random network has another top class.
      model: an NNX module, or any pytree of weights. It is not changed.
      layers: names from the top to the bottom; None for `layers_from_top(model)`.
      key: of `jax.random`; None for `jax.random.key(0)`.

    Returns:
      Layer -> the rank correlations (...) of the maps, and of their absolute values, with those of the whole model,
      where the weights of the layer and of all before it in the dictionary are random.

    Raises:
      ValueError: maps of the whole model that hold NaN or infinity, layers without weights, or layers None for
        anything but an NNX module.
    """
    layers = layers_from_top(model) if layers is None else layers
    maps = maps_fn(model)
    if not np.isfinite(maps).all():
        raise InputError("the maps of the whole model hold NaN or infinity: expected finite numbers to compare with.")
    results = {}
    for layer, randomized in randomized_from_top(model, layers, key=key):
        others = maps_fn(randomized)
        results[layer] = rank_correlation(maps, others), rank_correlation(jnp.abs(maps), jnp.abs(others))
    return results


def layers_from_top(model: nnx.Module) -> list[str]:
    """The names of a model's layers, the last one first.

    A layer is a module that has parameters of its own, such as a convolution, a BatchNorm or a head. Their order is
    that in which modules were assigned to attributes, which in camjax's models is the order of computation. For a
    network that was written in another order, give the list yourself; and for one that is not camjax's and was copied
    or came out of a compiled function, whose attributes flax leaves in alphabetical order.

    Args:
      model: a module of NNX.

    Returns:
      Paths of attributes, as "head", "layers.4.bn", "layers.4.conv", ...

    Raises:
      ValueError: not a module of NNX, or one without parameters.
    """
    if not isinstance(model, nnx.Module):
        raise InputError(f"{type(model).__name__}: expected an nnx.Module. For other weights give the layers by name.")
    layers = list(dict.fromkeys(_layers(model, "")))
    if created_as := getattr(model, "created_as", None):
        # So that a model that was loaded has the order of a new one. What a training method puts into a layer stays at
        # its place, and what it adds lies on top.
        new: list[str] = []
        plain = {option: value for option, value in created_as.items() if option != "wsol"}
        nnx.eval_shape(lambda: new.extend(_layers(create_model(**plain), "")))
        places = {layer: place for place, layer in enumerate(dict.fromkeys(new))}

        def place_of(layer: str) -> int:
            above = (layer.rsplit(".", parts)[0] for parts in range(layer.count(".") + 1))
            return next((places[path] for path in above if path in places), len(places))

        layers.sort(key=place_of)
    if not layers:
        raise InputError(f"{type(model).__name__} has no layer with parameters of its own: expected at least one.")
    return layers[::-1]


def _layers(module: nnx.Pytree, path: str) -> Iterator[str]:
    """Paths of modules with parameters of their own, in order of assignment."""
    for name, value in vars(module).items():
        if isinstance(value, nnx.Param):
            yield path.removesuffix(".") or name
        elif isinstance(value, nnx.Pytree):
            yield from _layers(value, f"{path}{name}.")


def randomized_from_top(
    weights: Any, layers: Sequence[str], *, key: jax.Array | None = None
) -> Iterator[tuple[str, Any]]:
    """Models whose layers are random, one more each time.

    The entries of each array of a layer, kernels and statistics alike, are put into a random order. The paper draws
    from the initializers instead, which files of weights do not carry. With a random order each array keeps its
    distribution, and activations keep their range, while what was learned is gone. An array of equal entries does not
    change.

    Args:
      weights: a pytree, as a module of NNX, one of Equinox, or a dictionary of Linen's parameters.
      layers: names from the top to the bottom: paths in the pytree, or beginnings of such, joined by dots.
      key: of `jax.random`; None for `jax.random.key(0)`.

    Yields:
      The name of a layer, and weights of the same structure in which this one and all before it are random.

    Raises:
      ValueError: a layer without weights, at the first step.
    """
    key = jax.random.key(0) if key is None else key
    with_paths, structure = jax.tree_util.tree_flatten_with_path(weights)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in with_paths]
    leaves = [leaf for _, leaf in with_paths]
    floats = [i for i, x in enumerate(leaves) if hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)]
    members = {layer: [i for i in floats if f"{names[i]}.".startswith(f"{layer}.")] for layer in layers}
    if empty := [layer for layer in layers if not members[layer]]:
        raise InputError(f"layers {', '.join(empty)} have no weights: expected some of {', '.join(names[:20])}, ...")
    for layer in layers:
        for i in members[layer]:
            entries = jax.random.permutation(jax.random.fold_in(key, i), jnp.ravel(leaves[i]))
            leaves[i] = entries.reshape(jnp.shape(leaves[i]))
        yield layer, jax.tree.unflatten(structure, leaves)


@jax.jit
def rank_correlation(maps: jax.Array, others: jax.Array) -> jax.Array:
    """Spearman's rank correlation of maps; equal values share their mean rank.

    Args:
      maps: (..., h, w).
      others: (..., h, w).

    Returns:
      (...) float32 in -1..1; 0 where a map is constant, NaN where one holds NaN.

    Raises:
      ValueError: maps of different shapes.
    """
    if maps.shape != others.shape or maps.ndim < 2:
        raise InputError(f"maps of shapes {maps.shape} and {others.shape}: expected (..., h, w), both the same.")
    ranks = []
    for values in (maps, others):
        values = values.reshape(*values.shape[:-2], -1)
        of_one = jnp.vectorize(_mean_ranks, signature="(n)->(n)")(values)
        ranks.append(jnp.where(jnp.isnan(values).any(-1, keepdims=True), jnp.nan, of_one))
    return correlation(*ranks)


def _mean_ranks(values: jax.Array) -> jax.Array:
    """(n,) -> (n,) float32, from -(n - 1) / 2 to (n - 1) / 2."""
    ordered = jnp.sort(values)
    below, up_to = (jnp.searchsorted(ordered, values, side=side, method="sort") for side in ("left", "right"))
    return (below + up_to - values.size).astype(jnp.float32) / 2
