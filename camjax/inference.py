"""A model and a method, compiled: images in; logits, maps and boxes out."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.attribution.adapters.nnx import nnx_cutter
from camjax.attribution.engine import all_classes, attribute
from camjax.attribution.methods import METHODS, Method, common_image_size, method_named
from camjax.attribution.network import CutNetwork, cut_model
from camjax.boxes import boxes_from_maps
from camjax.checks import (
    ImageCheck,
    as_array,
    check_class_ids,
    check_images,
    check_threshold,
    check_top_k,
    num_classes,
    warn_if_scaled,
)
from camjax.errors import InputError
from camjax.models.conv import as_read, as_written
from camjax.models.inference_mode import inference_view
from camjax.models.layers import fold_batchnorm
from camjax.outputs import BoundNetwork, CamOutput, Localization
from camjax.sharding import Placed, laid_out_like, split_of

_KEY = re.compile(r"\w+")


class TopAndAsked(NamedTuple):
    """A method's results for the top classes and for the classes asked for, from one pass.

    Attributes:
      top: the top_k classes by falling logit: a `Localization`, or a `CamOutput` where no boxes were wanted.
      asked: the classes that were given, in their order; None where none were.
    """

    top: Any
    asked: Localization | None


def cam_fn(model: nnx.Module, images: Any, class_ids: Any = None) -> CamOutput:
    """Logits and class activation maps from one forward pass (Zhou et al. 2016, eqs. 1 and 2).

    A jitted function of model and images: use it anywhere, also inside a `jit` of your own. The model runs in
    inference mode and is not changed. For many calls with fixed weights, `make_cam_fn` has the
    lower cost per call.

    Args:
      model: has `features(images) -> (B, h, w, K)` and `head` with `kernel` (K, C), or None where the features are
        the class maps already, as every camjax model with class activation maps.
      images: (B, H, W, 3) RGB in 0..255, uint8 or float: an array of JAX or NumPy, or a tensor of another library on
        the CPU.
      class_ids: (B,) or (B, N) integers in 0..C-1; None for the class of the largest logit.

    Returns:
      `CamOutput`; N = 1 for class_ids (B,) or None.

    Raises:
      ValueError: images or class_ids of another shape or type, or concrete class_ids out of range. Ids that are
        traced (inside a `jit` of your own) cannot raise: one out of range gives a map of NaN.
    """
    classes = num_classes(model)
    images = check_images(model, images)
    warn_if_scaled(images)
    class_ids = check_class_ids(class_ids, len(images), classes)
    return _cam_jit(model, images, class_ids)


@jax.jit
@laid_out_like(1, trailing=3)
def _cam_jit(model, images, class_ids) -> CamOutput:
    row = METHODS["cam"]
    return _maps(model, images, class_ids, [row], _ids_or_top(1))[row.name]


def make_cam_fn(
    model: nnx.Module | BoundNetwork,
    method: str = "cam",
    *,
    top_k: int | None = 1,
    layer: str | None = None,
    **options: Any,
) -> Callable[..., CamOutput]:
    """Binds a snapshot of the model's weights into a function of the images alone, at the lowest cost per call.

    The snapshot is prepared for inference: BatchNorm is folded into the convolutions, which changes results within
    rounding. It does not follow the model: after more training, make a new one.

    Args:
      model: a camjax model that has what the method needs, or an exported network, at its own method, layer and
        options. "cam" takes any model that `cam_fn` takes.
      method: of `camjax.attribution.METHODS`: "cam", "gradcam", "scorecam", ...; docs/attribution.md describes them.
      top_k: number of classes, in order of falling logit, whose maps a call without class_ids returns; None for all
        C classes in order of their ids.
      layer: the path of the layer to explain, as "stages.2.5": a submodule that is called once and returns
        (B, h, w, K). None for the network's last feature map. `camjax.evaluation.choose_layer` finds a faithful one.
        With a layer, BatchNorm is not folded.
      **options: of the method: `chunk_size` and `progress` of those that run the network on changed images, and others
        that the method's function in `camjax.attribution` describes.

    Returns:
      `cam_fn(images, class_ids=None) -> CamOutput`, with the arguments and errors of `camjax.cam_fn`; class_ids
      override top_k. It runs on the device that the images were put on, or on all devices of a mesh over which their
      first axis is sharded; results lie as the images do. A second call with the same shapes compiles nothing.

    Raises:
      ValueError: unknown method, option or layer, top_k not in 1..C, a model without what the method needs, or a layer
        for a method that is not of a layer.
    """
    row = method_named(method, options)
    check_top_k(top_k, row.num_classes(model))
    run = _bind_methods(model, [row], _ids_or_top(top_k), {row.name: options}, layer=layer)
    return lambda images, class_ids=None: run(images, class_ids)[row.name]


def make_localize_fn(
    model: nnx.Module | BoundNetwork,
    method: str = "cam",
    *,
    threshold: float = 0.2,
    top_k: int | None = 1,
    layer: str | None = None,
    **options: Any,
) -> Callable[..., Localization]:
    """Binds a snapshot of the model into a function from images to maps and boxes.

    The box of a class is that of the largest 8-connected component of the region where its map, resized to the
    image's size (bilinear, half-pixel centers), is strictly above `threshold` times the map's maximum
    (Zhou et al. 2016, section 3.2, with 0.2). A map whose maximum is not positive, or that holds a NaN, has no such
    region: its box is zeros and `valid` is False. "backprop" and "smoothgrad" have a box rule of their own (Simonyan et
    al. 2014), which does not use the threshold; see `camjax.attribution.saliency_boxes`.

    Args:
      model: as in `make_cam_fn`.
      method: as in `make_cam_fn`.
      threshold: share of the maximum, 0 <= threshold < 1.
      top_k: as in `make_cam_fn`.
      layer: as in `make_cam_fn`.
      **options: as in `make_cam_fn`.

    Returns:
      `localize_fn(images, class_ids=None) -> Localization`, with the arguments and errors of `camjax.cam_fn`.

    Raises:
      ValueError: threshold out of range, and as `make_cam_fn`.
    """
    row = method_named(method, options)
    check_top_k(top_k, row.num_classes(model))
    threshold = check_threshold(threshold)
    run = _bind_methods(model, [row], _ids_or_top(top_k), {row.name: options}, threshold=threshold, layer=layer)
    return lambda images, class_ids=None: run(images, class_ids)[row.name]


def make_localize_fns(
    model: nnx.Module | BoundNetwork,
    methods: Sequence[str],
    *,
    threshold: float = 0.2,
    top_k: int = 1,
    top_boxes: bool = True,
    layer: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[..., dict[str, TopAndAsked]]:
    """Binds a snapshot of the model into one function that runs several methods, for top classes and given ones.

    All methods that do not run the network on changed images are one compiled program: the forward pass is made once,
    and one backward pass serves all methods that take gradients of the features.

    Args:
      model: as in `make_cam_fn`.
      methods: of `camjax.attribution.METHODS`, each once; they take images of one size.
      threshold: as in `make_localize_fn`.
      top_k: number of classes by falling logit, 1..C.
      top_boxes: whether boxes of the top classes are drawn, which takes most of the time beside the network's.
      layer: as in `make_cam_fn`, of all methods.
      options: method -> its options, as in `make_cam_fn`.

    Returns:
      `localize(images, class_ids=None) -> {method: TopAndAsked}`, in the order of `methods`; arguments and errors are
      those of `camjax.cam_fn`.

    Raises:
      ValueError: no method, one given twice, methods that take images of different sizes, and as `make_localize_fn`.
    """
    common_image_size(model, methods)
    options = {} if options is None else options
    rows = [method_named(name, options.get(name, {})) for name in methods]
    for row in rows:
        check_top_k(top_k, row.num_classes(model))
    choose = _top_and_ids(top_k)
    threshold = check_threshold(threshold)
    return _bind_methods(
        model, rows, choose, options, threshold=threshold, split=top_k, top_boxes=top_boxes, layer=layer
    )


def all_maps_program(model: nnx.Module, method: str) -> tuple[Callable[..., Any], list[jax.Array]]:
    """What a `make_cam_fn(model, method, top_k=None)` computes, as a function of the weights too.

    Returns:
      A traceable function (arrays, images (B, H, W, 3)) -> logits (B, C) and maps (B, C, h, w), and its arrays: the
      numbers of a snapshot with BatchNorm folded, without the keys of random generators.

    Raises:
      ValueError: as `make_cam_fn`.
    """
    row = method_named(method)
    row.num_classes(model)
    arrays, rebuilt = _unbound(fold_batchnorm(model))

    def program(arrays, images):
        out = _for_each_class(_maps(rebuilt(arrays), images, None, [row], _ids_or_top(None))[row.name])
        return out.logits, out.maps

    return program, list(arrays.values())


def localization_program(
    model: nnx.Module,
    method: str = "cam",
    *,
    top_k: int | None = 1,
    layer: str | None = None,
    **options: Any,
) -> tuple[Callable[..., Localization], dict[str, jax.Array]]:
    """What a `make_localize_fn(model, method, ...)` computes, as a function of the weights and the threshold too.

    Args:
      model: as in `make_localize_fn`.
      method: one whose maps and boxes are one compiled program: no loop on the host.
      top_k: as in `make_localize_fn`.
      layer: as in `make_localize_fn`.
      **options: as in `make_localize_fn`.

    Returns:
      A traceable function (arrays, threshold, images (B, H, W, 3), class_ids (B, N) or None) -> `Localization`, and its
      arrays by their places in the model: a snapshot with BatchNorm folded, without the keys of random generators.

    Raises:
      ValueError: a method that runs on the host in part, and as `make_localize_fn`.
    """
    row = method_named(method, options)
    check_top_k(top_k, row.num_classes(model))
    if row.is_loop or row.host_boxes:
        whole = ", ".join(name for name, row in METHODS.items() if not (row.is_loop or row.host_boxes))
        part = "runs the network many times in a loop on the host" if row.is_loop else "draws its boxes on the host"
        raise InputError(f"{method} {part}, and is not one compiled program. Expected one of {whole}.")
    cut, choose = _cutter(model, layer, [row]), _ids_or_top(top_k)
    arrays, rebuilt = _unbound(fold_batchnorm(model) if layer is None else nnx.clone(model))

    def program(arrays, threshold, images, class_ids=None):
        out = _maps(rebuilt(arrays), images, class_ids, [row], choose, {row.name: options}, cut)[row.name]
        return _for_each_class(out, boxes_from_maps(out.maps, images.shape[1:3], threshold))

    return program, arrays


def _unbound(model: nnx.Module) -> tuple[dict[str, jax.Array], Callable[[Sequence[jax.Array]], nnx.Module]]:
    """The model's arrays by their places in it, but for random keys, and what makes the model of others."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(model)
    keys = {i: leaf for i, (_, leaf) in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)}

    def rebuilt(arrays):
        rest = iter(arrays)
        return jax.tree.unflatten(structure, [keys[i] if i in keys else next(rest) for i in range(len(leaves))])

    names = [".".join(_KEY.findall(jax.tree_util.keystr(path))).removesuffix(".value") for path, _ in leaves]
    return {name: leaf for i, (name, (_, leaf)) in enumerate(zip(names, leaves, strict=True)) if i not in keys}, rebuilt


class BoundFunction:
    """A jitted function of images and class ids, bound to a snapshot of a model with its BatchNorm folded.

    `bound(images, class_ids=None)` calls `function` with images (B, H, W, 3) and class_ids (B, N) or None, and raises
    ValueError for other images or class_ids as `cam_fn` does. The snapshot follows the images: for images committed to
    a device (`jax.device_put(images, device)`) it is copied there at the first call, and the results are there too; for
    images over a mesh, to each of its devices, and the results lie as the images do.

    Args:
      model: any model that `function` takes.
      function: `function(model, images, class_ids, *arguments)`, traceable.
      classes: C, to check the class_ids against.
      *arguments: further pytrees, which travel with the weights: other values compile nothing new.
      fold: whether BatchNorm is folded.
    """

    def __init__(self, model: nnx.Module, function: Callable, classes: int, *arguments: Any, fold: bool = True):
        leaves, structure = jax.tree.flatten((fold_batchnorm(model) if fold else nnx.clone(model), *arguments))
        self._structure = structure
        self._leaves = Placed(as_read(leaves))
        self._check = ImageCheck(model)
        self._classes = classes

        @laid_out_like(1, trailing=3)
        def compiled(leaves, images, class_ids, split):
            model, *arguments = jax.tree.unflatten(structure, as_written(leaves))
            found = function(model, images, class_ids, *arguments)
            if split is None or split.mesh.explicit_axes:
                return found
            # The compiler would leave whole on each device what does not depend on the images, as a centered map.
            return jax.lax.with_sharding_constraint(found, split)

        self._compiled = jax.jit(compiled, static_argnums=3)

    def __call__(self, images: Any, class_ids: Any = None) -> Any:
        """The function's result."""
        images = self._check(images)
        class_ids = check_class_ids(class_ids, len(images), self._classes)
        return self._compiled(self._leaves.beside(images), images, class_ids, split_of(images))

    def snapshot(self, images: Any) -> tuple:
        """The model and the other arguments, on the device of the images."""
        return jax.tree.unflatten(self._structure, as_written(self._leaves.beside(images)))


def _bind_methods(
    model: Any,
    rows: Sequence[Method],
    choose: Callable[[jax.Array, jax.Array | None], jax.Array | None],
    options: Mapping[str, Mapping[str, Any]],
    *,
    threshold: float | None = None,
    split: int | None = None,
    top_boxes: bool = True,
    layer: str | None = None,
) -> Callable[..., dict[str, Any]]:
    """The engine of the functions above.

    Args:
      model: a camjax model.
      rows: methods.
      choose: (logits (B, C), class_ids (B, N) or None) -> class ids (B, N'), or None for all classes.
      options: method -> its options.
      threshold: of boxes; an argument of the compiled programs, so that another one compiles nothing. None: no boxes.
      split: number of classes that come first, as `TopAndAsked.top`; None: results are not split.
      top_boxes: whether these get boxes.
      layer: to explain; None for the last feature map.

    Returns:
      `run(images, class_ids=None) -> {method: CamOutput, Localization or TopAndAsked}`.
    """
    boxless = 0 if top_boxes or split is None else split
    if isinstance(model, BoundNetwork):
        return _bind_network(model, choose, options, threshold, split, boxless, layer)
    cut = _cutter(model, layer, rows)
    compiled = [row for row in rows if not row.is_loop]
    looped = [row for row in rows if row.is_loop]
    on_host = {row.name: row.host_boxes for row in rows if row.host_boxes and threshold is not None}

    @laid_out_like(1, trailing=3)
    def finish(out, images, threshold):
        one_for_all = out.maps.shape[1] < out.class_ids.shape[1]
        maps = out.maps if one_for_all else out.maps[:, boxless:]
        boxes = () if threshold is None else boxes_from_maps(maps, images.shape[1:3], threshold)
        return _split(_for_each_class(out, boxes, boxless), split, boxless)

    def program(model, images, class_ids, threshold):
        outs = _maps(model, images, class_ids, compiled, choose, options, cut)
        found = {
            name: _for_each_class(out) if name in on_host else finish(out, images, threshold)
            for name, out in outs.items()
        }
        if not looped:
            return found, None
        network = cut(model)
        features = network.features(images)
        logits = network.head(features, images).astype(jnp.float32)
        chosen = choose(logits, class_ids)
        return found, (features, CamOutput(logits, all_classes(logits) if chosen is None else chosen, features))

    numbers = None if threshold is None else jnp.float32(threshold)
    bound = BoundFunction(model, program, min(row.num_classes(model) for row in rows), numbers, fold=layer is None)
    finish_fn = jax.jit(finish)
    split_fn = jax.jit(functools.partial(_split, count=split, boxless=boxless))

    def run(images, class_ids=None):
        images = as_array(images, "images")
        if isinstance(images, jax.core.Tracer) and (of_host := {**on_host, **{row.name: row for row in looped}}):
            raise InputError(
                f"{', '.join(of_host)} inside of jax.jit or another transformation: part of it runs on the host, which "
                "sees no values there. Call it outside; on images that are sharded over devices it uses all of them."
            )
        found, forward = bound(images, class_ids)
        if looped:
            features, out = forward
            model, threshold = bound.snapshot(images)
            network, multi_label = cut(model), getattr(model, "multi_label", False)
            for row in looped:
                of_row = options.get(row.name, {})
                maps = row.loop(network, images, features, out.logits, out.class_ids, multi_label, of_row)
                of_method = out._replace(maps=maps)
                found[row.name] = of_method if row.name in on_host else finish_fn(of_method, images, threshold)
        for name, host_boxes in on_host.items():
            out = found[name]
            boxes, valid = host_boxes(images, out.maps[:, boxless:])
            found[name] = split_fn(Localization(out.logits, out.class_ids, out.maps, boxes, valid))
        return {row.name: found[row.name] for row in rows}

    return run


def _bind_network(
    network: BoundNetwork,
    choose: Callable[[jax.Array, jax.Array | None], jax.Array | None],
    options: Mapping[str, Mapping[str, Any]],
    threshold: float | None,
    split: int | None,
    boxless: int,
    layer: str | None,
) -> Callable[..., dict[str, Any]]:
    """`_bind_methods` of a network that has its method already."""
    if given := [*(["layer"] if layer else []), *options.get(network.method, {})]:
        raise InputError(
            f"{', '.join(given)} of an exported network, whose maps are made as it was exported: leave it out, or take "
            "the network that it was exported from."
        )
    network_fn = network.choosing(choose, threshold, boxes=threshold is not None)

    def run(images, class_ids=None):
        found = network_fn(images, class_ids)
        if threshold is None:
            return {network.method: found}
        found = found._replace(boxes=found.boxes[:, boxless:], valid=found.valid[:, boxless:])
        return {network.method: _split(found, split, boxless)}

    return run


def _cut_at_the_end(model: nnx.Module) -> CutNetwork:
    """The network at its last feature map."""
    return cut_model(inference_view(model))


def _cutter(model: nnx.Module, layer: str | None, rows: Sequence[Method]) -> Callable[[nnx.Module], CutNetwork]:
    """Cuts the model, or one with other weights, at a layer; ValueError for methods that are not of a layer."""
    if layer is None:
        return _cut_at_the_end
    if others := [row.name for row in rows if not row.of_a_layer]:
        of_a_layer = ", ".join(name for name, row in METHODS.items() if row.of_a_layer)
        raise InputError(
            f"layer={layer!r} of {', '.join(others)}: expected methods that are defined at any layer, {of_a_layer}; or "
            "leave out the layer."
        )
    return nnx_cutter(model, layer)


def _maps(model, images, class_ids, rows, choose, options=None, cut=_cut_at_the_end) -> dict[str, CamOutput]:
    """The traced body: methods -> logits, class ids and maps, which a method may have once for all images."""
    found = attribute(
        cut(model),
        images,
        lambda outputs: choose(outputs.astype(jnp.float32), class_ids),
        rows,
        input_size=getattr(model, "input_size", None),
        multi_label=getattr(model, "multi_label", False),
        options=options,
    )
    return {name: CamOutput(of.outputs.astype(jnp.float32), of.targets, of.maps) for name, of in found.items()}


def _ids_or_top(top_k: int | None) -> Callable[[jax.Array, jax.Array | None], jax.Array | None]:
    """The class ids that were given; for None the top_k classes, or all (None)."""

    def choose(logits, class_ids):
        return _top(logits, top_k) if class_ids is None and top_k is not None else class_ids

    return choose


def _top(logits: jax.Array, count: int) -> jax.Array:
    """(B, C) -> (B, count) int32 class ids by falling logit."""
    # Of logits on several devices XLA gathers those of the whole batch for a top_k, and none for a maximum.
    return jax.lax.argmax(logits, 1, jnp.int32)[:, None] if count == 1 else jax.lax.top_k(logits, count)[1]


def _top_and_ids(top_k: int) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """The top_k classes, followed by the class ids that were given."""

    def choose(logits, class_ids):
        top = _top(logits, top_k)
        return top if class_ids is None else jnp.concatenate([top, class_ids], axis=1)

    return choose


def _for_each_class(out: CamOutput, boxes: Sequence[jax.Array] = (), boxless: int = 0) -> CamOutput | Localization:
    """Maps of all images and classes, and boxes and valid if there are any, where there is one for all.

    The first `boxless` classes have no boxes.
    """
    batch, number = out.class_ids.shape
    maps = jnp.broadcast_to(out.maps, (batch, number, *out.maps.shape[2:]))
    of_boxes = [jnp.broadcast_to(x, (batch, number - boxless, *x.shape[2:])) for x in boxes]
    made: Any = Localization if of_boxes else CamOutput
    return made(out.logits, out.class_ids, maps, *of_boxes)


def _split(found: Any, count: int | None, boxless: int = 0) -> Any:
    """A `Localization` as `TopAndAsked`, whose top are the first `count` classes: those without boxes, if any are."""
    if count is None:
        return found
    logits, class_ids, maps, *boxes = found
    made: Any = CamOutput if boxless else Localization
    top = made(logits, class_ids[:, :count], maps[:, :count], *(x[:, :count] for x in boxes if not boxless))
    asked = Localization(logits, class_ids[:, count:], maps[:, count:], *(x[:, count - boxless :] for x in boxes))
    return TopAndAsked(top, asked if asked.class_ids.shape[1] else None)
