"""The one engine: the maps of methods from one pass of a network over a batch, inside a compiled program."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from camjax.attribution.gradients import output_gradients
from camjax.attribution.methods import Method, Needs
from camjax.attribution.network import CutNetwork
from camjax.cam import normalize_map, resize_map
from camjax.errors import InputError


class Attribution(NamedTuple):
    """What a method says of a batch.

    Attributes:
      outputs: (B, ...) of the network.
      targets: class ids (B, N), or a function of the outputs.
      maps: (B, N, h, w) float32; (1, 1, h, w) of a method that has one map for all images and classes.
    """

    outputs: jax.Array
    targets: Any
    maps: jax.Array


def attribute(
    network: CutNetwork,
    images: jax.Array,
    choose: Callable[[jax.Array], Any],
    methods: Sequence[Method],
    *,
    combine: Literal["mean", "max"] = "mean",
    input_size: tuple[int, int] | None = None,
    multi_label: bool = False,
) -> dict[str, Attribution]:
    """The maps of methods that do not run the network on changed images; traceable.

    There is one forward pass of the whole image, one backward pass to the features for all methods that take gradients,
    and one to the images.

    Args:
      network: with a kernel if a method needs one.
      images: (B, H, W, 3).
      choose: outputs (B, ...) -> targets: class ids (B, N), a function of the outputs, or None for all classes.
      methods: whose maps are wanted; none that needs changed images.
      combine: how maps of several layers become one; see `combine_layers`.
      input_size: (H, W) of the network's input in pixels, for methods that take crops.
      multi_label: of the model, for the same methods: their outputs are means of the crops' probabilities.

    Returns:
      Method's name -> `Attribution`.

    Raises:
      ValueError: a method takes crops, and input_size is None.
    """
    found = {}
    whole = [method for method in methods if method.crops is None]
    if whole:
        outputs, targets, maps = _of_whole_images(network, images, choose, whole, combine)
        found = {name: Attribution(outputs, targets, of_method) for name, of_method in maps.items()}
    for method in methods:
        if method.crops is not None:
            found[method.name] = _of_crops(network, images, choose, method, input_size, multi_label)
    return {method.name: found[method.name] for method in methods}


def _of_whole_images(network, images, choose, methods, combine):
    needs = {method.needs for method in methods}
    feature_gradients: Any = None
    image_gradients: Any = None
    if needs == {Needs.IMAGE_GRADIENT}:
        outputs, image_gradients = output_gradients(network, images)
    else:
        features = network.features(images)
        if Needs.GRADIENTS in needs:
            outputs, feature_gradients = output_gradients(network.head_of(images), features)
        else:
            outputs = network.head(features, images)
        if Needs.IMAGE_GRADIENT in needs:
            _, image_gradients = output_gradients(network, images)
    chosen = choose(outputs)
    targets = all_classes(outputs) if chosen is None else chosen
    if feature_gradients is not None:
        several = isinstance(features, tuple)
        gradients = feature_gradients(targets)
        layers = list(zip(features, gradients, strict=True)) if several else [(features, gradients)]

    def maps_of(method: Method) -> jax.Array:
        if method.needs is Needs.KERNEL:
            return method.function(features, network.kernel.weights, chosen)
        if method.needs is Needs.IMAGE_GRADIENT:
            return method.function(image_gradients(targets))
        if method.needs is Needs.NOTHING:
            return method.function(images.shape[1:3])[None, None]
        maps = [method.function(layer.astype(jnp.float32), gradient) for layer, gradient in layers]
        return combine_layers(maps, combine) if several else maps[0]

    return outputs, targets, {method.name: maps_of(method) for method in methods}


def _of_crops(network, images, choose, method, input_size, multi_label) -> Attribution:
    if input_size is None:
        raise InputError(
            f"{method.name} takes crops of the network's input size, which is not known here: expected "
            f"camjax.make_cam_fn(model, {method.name!r}), with a model that has an `input_size`."
        )
    batch, crops = len(images), method.crops
    cut = crops.cut(images, input_size)
    count = cut.shape[1]
    cut = cut.reshape(-1, *cut.shape[2:])
    features = network.features(cut)
    outputs = crops.merge_outputs(network.head(features, cut).reshape(batch, count, -1), multi_label)
    targets = choose(outputs)
    targets = all_classes(outputs) if targets is None else targets
    ids_of_crops = jnp.broadcast_to(targets[:, None], (batch, count, targets.shape[1]))
    features = features.reshape(batch, count, *features.shape[1:])
    maps = method.function(features, network.kernel.weights, ids_of_crops)
    return Attribution(outputs, targets, crops.merge_maps(maps, input_size, images.shape[1:3]))


def all_classes(outputs: jax.Array) -> jax.Array:
    """(B, C) outputs -> (B, C) int32 ids of all classes in order."""
    return jnp.broadcast_to(jnp.arange(outputs.shape[1], dtype=jnp.int32), outputs.shape)


def combine_layers(maps: Sequence[jax.Array], mode: Literal["mean", "max"] = "mean") -> jax.Array:
    """The mean, or the maximum, of maps of several layers.

    Each is resized (bilinear, half-pixel centers) to the largest of them and divided by its own maximum, because layers
    differ in scale (Jiang et al. 2021, section III-D, scale early layers for the maximum).

    Args:
      maps: for each layer (B, N, h, w); sizes may differ. Negative values are set to zero.
      mode: "mean" or "max".

    Returns:
      (B, N, h', w') float32 in 0..1, at the largest height and width of all.

    Raises:
      ValueError: no maps, or another mode.
    """
    if not maps or mode not in ("mean", "max"):
        raise InputError(f"{len(maps)} maps, and mode {mode!r}: expected at least one, and 'mean' or 'max'.")
    size = max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)
    scaled = jnp.stack([normalize_map(resize_map(jax.nn.relu(m), size), mode="max") for m in maps])
    return scaled.mean(0) if mode == "mean" else scaled.max(0)
