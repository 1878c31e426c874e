"""The one engine: the maps of methods from one pass of a network over a batch, inside a compiled program."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from camjax.attribution.attention import Attention
from camjax.attribution.gradients import hessian_products, output_gradients
from camjax.attribution.methods import REFINED_SIZES, Method, Needs
from camjax.attribution.module_layers import biases_of, cut_module, last_layers, outputs_of_layers
from camjax.attribution.network import CutNetwork, Whole, whole_module
from camjax.attribution.targets import as_target
from camjax.cam import normalize_map, resize_map
from camjax.errors import InputError
from camjax.models.base import CamModel
from camjax.models.vit import VisionTransformer


class Attribution(NamedTuple):
    """What a method says of a batch.

    Attributes:
      outputs: (B, ...) of the network.
      targets: class ids (B, N), or a function of the outputs.
      maps: (B, N, h, w) float32; (1, 1, h, w) of a method that has one map for all images and classes; a tuple of
        several layers' maps that are not combined.
    """

    outputs: jax.Array
    targets: Any
    maps: Any


def attribute(
    network: CutNetwork,
    images: jax.Array,
    choose: Callable[[jax.Array], Any],
    methods: Sequence[Method],
    *,
    combine: Literal["mean", "max"] | None = "mean",
    input_size: tuple[int, int] | None = None,
    multi_label: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Attribution]:
    """The maps of methods that do not run the network on changed images; traceable.

    There is one forward pass of the whole image, one backward pass to the features for all methods that take gradients
    of the same scores, and one to the images.

    Args:
      network: with a kernel if a method needs one.
      images: (B, H, W, 3).
      choose: outputs (B, ...) -> targets: class ids (B, N), a function of the outputs, or None for all classes.
      methods: whose maps are wanted; none that needs changed images.
      combine: how maps of several layers become one, see `combine_layers`; None leaves them a tuple.
      input_size: (H, W) of the network's input in pixels, for methods that take crops.
      multi_label: of the model, for the same methods: their outputs are means of the crops' probabilities.
      options: method's name -> its options.

    Returns:
      Method's name -> `Attribution`.

    Raises:
      ValueError: a method takes crops, and input_size is None, or layers that the network is not known to have.
    """
    found: dict[str, Attribution] = {}
    options = options or {}
    if of_a_kind := [method for method in methods if method.of_a_kind]:
        whole_network = whole_module(network)
        for method in of_a_kind:
            method.check_kind(None if whole_network is None else whole_network.module)
    whole = [method for method in methods if method.crops is None]
    refined = [method for method in whole if method.combine]
    if refined and isinstance(jax.eval_shape(network.features, images), tuple):
        refined = []
    for cut, of_cut in (
        (network, [method for method in whole if method not in refined]),
        (_cut_at_sizes(network, images) if refined else network, refined),
    ):
        if of_cut:
            outputs, targets, maps = _of_whole_images(cut, images, choose, of_cut, combine, options)
            found |= {name: Attribution(outputs, targets, of_method) for name, of_method in maps.items()}
    for method in methods:
        if method.crops is not None:
            found[method.name] = _of_crops(network, images, choose, method, input_size, multi_label)
    return {method.name: found[method.name] for method in methods}


def _of_whole_images(network, images, choose, methods, combine, options):
    needs = {method.needs for method in methods}
    feature_gradients: Any = None
    image_gradients: Any = None
    if needs == {Needs.IMAGE_GRADIENT}:
        outputs, image_gradients = output_gradients(network, images)
    else:
        features = network.features(images)
        if needs & {Needs.GRADIENTS, Needs.CURVATURE}:
            outputs, feature_gradients = output_gradients(network.head_of(images), features)
        else:
            outputs = network.head(features, images)
        if needs & {Needs.IMAGE_GRADIENT, Needs.BIASES}:
            _, image_gradients = output_gradients(network, images)
    chosen = choose(outputs)
    targets = all_classes(outputs) if chosen is None else chosen
    shared = feature_gradients(targets) if any(m.needs is Needs.GRADIENTS and not m.target for m in methods) else None

    def maps_of(method: Method) -> Any:
        terms: tuple[Any, ...]
        of_method = options.get(method.name, {})
        function, explained = method.with_options(of_method), method.explained(targets, of_method)
        if method.needs is Needs.KERNEL:
            return function(features, network.kernel.weights, chosen)
        if method.needs is Needs.IMAGE_GRADIENT:
            return function(image_gradients(explained))
        if method.needs is Needs.NOTHING:
            return function(images.shape[1:3])[None, None]
        if method.of_attention:
            return function(*_of_attention(method, network, images, explained))
        if method.needs is Needs.BIASES:
            return function(*_of_biases(method, network, images, image_gradients(explained), explained))
        if method.needs is Needs.CURVATURE:
            terms = hessian_products(network.head_of(images), features, explained)
        else:
            terms = (feature_gradients(explained) if method.target else shared,)
        # Of one layer arrays, and of several tuples of them.
        layers = zip(*(array if isinstance(features, tuple) else (array,) for array in (features, *terms)), strict=True)
        maps = [function(layer.astype(jnp.float32), *of_layer) for layer, *of_layer in layers]
        how = method.combine or combine
        if how is None and isinstance(features, tuple):
            return tuple(maps)
        if isinstance(features, tuple) or method.combine:
            return combine_layers(maps, how)
        return maps[0]

    return outputs, targets, {method.name: maps_of(method) for method in methods}


def _cut_at_sizes(network: CutNetwork, images: jax.Array) -> CutNetwork:
    """The network cut at several layers: the last of each of the smallest sizes of feature maps."""
    whole = whole_module(network)
    if whole is None:
        raise InputError(
            "maps of several layers, of a network that is cut at one: expected an explainer of several layers, as "
            'camjax.attribution.explain_nnx(model, ["layer2", "layer3", "layer4"]); or a model of camjax, or a network '
            "of NNX, whose layers can be found."
        )
    smallest = jax.eval_shape(network.features, images).shape[1:3]
    names = last_layers(outputs_of_layers(whole, images), smallest, REFINED_SIZES)
    return cut_module(whole.module, names, whole.run)


def _of_biases(method, network, images, image_gradients, targets):
    """The arguments of a method that needs biases."""
    whole = whole_module(network)
    if whole is None:
        raise InputError(
            f"{method.name} needs the layers of the network that have a bias: expected a model of camjax, or a network "
            "of NNX by camjax.attribution.explain_nnx, whose layers can be found."
        )
    biases = biases_of(whole, outputs_of_layers(whole, images))
    if not biases:
        return _less_mean(whole, images), image_gradients, (), ()
    inside = cut_module(whole.module, list(biases), whole.run)
    _, gradients = output_gradients(inside.head_of(images), inside.features(images))
    found = gradients(targets)
    return _less_mean(whole, images), image_gradients, tuple(biases.values()), found if len(biases) > 1 else (found,)


def _of_attention(method, network, images, targets):
    """The arguments of a method that needs attention weights."""
    whole = whole_module(network)
    assert whole is not None and isinstance(whole.module, VisionTransformer)
    model, scores = whole.module, targets
    run: Callable[[Any, jax.Array], jax.Array] = whole.run
    if method.needs is Needs.BLOCK_SCORES:
        run = type(model).block_logits

        def scores(outputs):
            return sum(as_target(targets, of_block)(of_block) for of_block in jnp.moveaxis(outputs, 1, 0))

    names = [f"blocks.{i}.attention.weights" for i in range(len(model.blocks))]
    inside = cut_module(model, names, run)
    weights = inside.features(images)
    _, gradients = output_gradients(inside.head_of(images), weights)
    found = gradients(scores)
    if len(names) == 1:
        weights, found = (weights,), (found,)
    grid, others = model.grid(*images.shape[1:3]), model.other_tokens
    return Attention(weights, *grid, others, model.shares(weights[0].shape[-1])), found


def _less_mean(whole: Whole, images: jax.Array) -> jax.Array:
    images = images.astype(jnp.float32)
    model = whole.module
    if not isinstance(model, CamModel):
        return images
    return images - jnp.broadcast_to(model.mean_of(*images.shape[1:3]), images.shape)


def _of_crops(network, images, choose, method, input_size, multi_label) -> Attribution:
    if input_size is None:
        raise InputError(
            f"{method.name} takes crops of the network's input size, which is not known here: expected "
            f"camjax.make_cam_fn(model, {method.name!r}), with a model that has an `input_size`."
        )
    batch, crops = images.shape[0], method.crops
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


def combine_layers(maps: Sequence[jax.Array], mode: Literal["mean", "max", "product"] = "mean") -> jax.Array:
    """The mean, the maximum, or the product of maps of several layers.

    Each is resized (bilinear, half-pixel centers) to the largest of them and divided by its own maximum, because layers
    differ in scale (Jiang et al. 2021, section III-D, scale early layers for the maximum). For the product each is
    scaled to 0..1 before it is resized (Domeniconi et al. 2026), and a map that holds a NaN makes the product one.

    Args:
      maps: for each layer (B, N, h, w); sizes may differ. Negative values are set to zero.
      mode: "mean", "max" or "product".

    Returns:
      (B, N, h', w') float32 in 0..1, at the largest height and width of all.

    Raises:
      ValueError: no maps, or another mode.
    """
    if not maps or mode not in ("mean", "max", "product"):
        raise InputError(f"{len(maps)} maps, and mode {mode!r}: expected at least one, and 'mean', 'max' or 'product'.")
    size = max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)
    if mode == "product":
        unknown = jnp.stack([jnp.isnan(m).any((-2, -1), keepdims=True) for m in maps]).any(0)
        product = jnp.stack([resize_map(normalize_map(jax.nn.relu(m)), size) for m in maps]).prod(0)
        return jnp.where(unknown, jnp.nan, product)
    scaled = jnp.stack([normalize_map(resize_map(jax.nn.relu(m), size), mode="max") for m in maps])
    return scaled.mean(0) if mode == "mean" else scaled.max(0)
