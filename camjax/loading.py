"""Loads trained models: a network of the registry with weights from somewhere, or a run of camjax's own training."""

import contextlib
import dataclasses
import os
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from camjax.addresses import as_path, reaching
from camjax.class_names import imagenet_class_names
from camjax.errors import InputError, few, printable
from camjax.exporting.file import is_exported_file
from camjax.models import CamModel, ModelSpec, create_model, list_models, model_spec, with_new_head
from camjax.models.caffe_layers import CAFFE_NAMES
from camjax.models.head import Pool
from camjax.models.registry import is_qualified
from camjax.models.shapes import model_shapes
from camjax.models.spec import FileFormat, WeightsSource
from camjax.runs import load_run
from camjax.weights import camjax_file
from camjax.weights.camjax_file import Description
from camjax.weights.errors import WeightsError
from camjax.weights.placing import NameTable, not_finite
from camjax.weights.readers import HUB_FILES, read_tensors
from camjax.weights.timm_config import TimmConfig, read_timm_config


def load_model(
    name: str | os.PathLike,
    weights: str | os.PathLike | None = None,
    *,
    num_classes: int | None = None,
    pool: Pool | None = None,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs | None = None,
    mean_image: str | os.PathLike | None = None,
    backbone_only: bool = False,
    trust: bool = False,
) -> CamModel:
    """A model with trained weights.

    Args:
      name: one of `camjax.list_models()`, or `MODULE:NAME`, see `camjax.register_model`; or the directory of a run of
        camjax's own training, written as a path: with a `/` ("runs/cub", "./cub") or as a `pathlib.Path`; or the path
        of a file that `camjax convert` wrote, which says what network it is of. A run may also be in a bucket:
        "gs://BUCKET/run", "s3://BUCKET/run".
      weights: None for the weights that are installed with camjax (EfficientNet-Lite0 to 2: ImageNet) or for a run,
        which has its own. Otherwise

        - a file: PyTorch's (`.pth`, `.pt`, `.bin`), `.safetensors` or `.npz` with the names of the network's PyTorch
          implementation; Caffe's `.caffemodel`; or a `.safetensors` file that `camjax convert` wrote. What wrappers
          put before the names ("module.", "_orig_mod.", "model.", "state_dict.") is taken off, and a warning says so. A
          `config.json` by timm beside the file says how images are normalized, their size, and the number of classes; a
          warning says where that differs from the network's default;
        - the address of such a file, as a string: `hf://OWNER/NAME[@REVISION][/FILE]` or `https://...`, see
          `camjax.weights.fetch.fetch`. A file is downloaded once, and read from a cache after that;
        - the short name of a published file, such as "cam-release"; `camjax models` lists them;
        - the directory of a run of camjax's own training with this network, or of a repository of the Hugging Face Hub,
          with its `model.safetensors` or `pytorch_model.bin`.
      num_classes: C. If the file or run has as many classes, its head is kept; otherwise only its backbone is, with a
        new, untrained head, and a warning says so. None keeps the head as it is: a run, and a file by `camjax convert`,
        say how many classes they have; another file has to have the network's default number.
      pool: "gap" or "gmp"; None for what the weights were trained with if they say it, else "gap". Not for a run, which
        has its own.
      dtype: compute dtype, float32 or bfloat16; None for float32, or for the run's own.
      rngs: random keys of a new head and of dropout; `nnx.Rngs(0)` if None.
      mean_image: Caffe's `mean.binaryproto` that the network was trained with, subtracted in place of the mean color;
        None for what the weights say.
      backbone_only: take only the backbone, also from weights of the network that this one was made from: those of
        torchvision's `vgg16` for "vgg16_gap" and "vgg16_wsol", of Caffe's `bvlc_googlenet` for "googlenet_gap". The
        head, and the layers in front of it that the original network lacks, are new and have to be trained; a warning
        names what of the weights was left out. Not for a run.
      trust: whether a run whose network is `MODULE:NAME` may import that module, which runs its code. Without it, the
        module has to be imported already.

    Returns:
      The model, with class names if they are known, in inference mode (`model.eval()`): `model(images)` gives its
      logits. `camjax.training` switches modes itself; in a loop of your own, call `model.train()` first.

    Raises:
      ValueError: an unknown name, no weights given for a model without installed ones, or weights or pool given for a
        run.
      FileNotFoundError: the weights file or run does not exist.
      camjax.weights.download.FetchError: an address cannot be fetched; an OSError.
      camjax.weights.errors.WeightsError: the file is damaged, of another kind, does not fit the model, or has values
        that are NaN or infinite.
    """
    if is_exported_file(name):
        raise InputError(
            f"{name} is an exported network, without its layers: camjax.load_exported(path), camjax explain, camjax "
            "annotate and camjax evaluate take it. Here give the network that it was exported from."
        )
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if weights is None and _is_file(name) and (own := model_of(name)) is not None:
        name, weights = own, name

    if isinstance(name, os.PathLike) or _is_path(name):
        model = _run_model(name, weights, pool, dtype, backbone_only, trust)
    else:
        model = model_with_weights(
            name,
            weights,
            num_classes=num_classes,
            backbone_only=backbone_only,
            pool=pool,
            dtype=jnp.float32 if dtype is None else dtype,
            rngs=rngs,
        )
    if mean_image is not None:
        # Imported here, since it brings protobuf along.
        from camjax.weights.caffe_file import read_mean_binaryproto

        model.set_input_rule(**model.input_rule, mean_image=read_mean_binaryproto(mean_image))
    model.eval()
    trained_classes = model.head.num_classes
    if num_classes is None or num_classes == trained_classes:
        return model
    warnings.warn(
        f"load_model({str(name)!r}, num_classes={num_classes}): the trained weights are for {trained_classes} classes. "
        "Their backbone is kept; the head is new and has to be trained.",
        stacklevel=2,
    )
    return with_new_head(model, num_classes, rngs=rngs)


def model_with_weights(
    name: str,
    weights: str | os.PathLike | None = None,
    *,
    num_classes: int | None = None,
    backbone_only: bool = False,
    pool: Pool | None = None,
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs | None = None,
) -> CamModel:
    """A model of the registry with the weights of a source, in training mode; arguments and errors as in `load_model`.

    With backbone_only, num_classes is that of the new head. Otherwise any number accepts as many classes as the weights
    have, and None as many as they say they have, or else the network's default.
    """
    spec = _spec(name)
    rngs = nnx.Rngs(0) if rngs is None else rngs
    found = _installed_weights(spec) if weights is None else _given_weights(spec, weights, backbone_only)
    pool = pool or found.description.pool or "gap"
    if backbone_only:
        model = create_model(spec.name, num_classes, pool=pool, dtype=dtype, rngs=rngs)
    else:
        # Abstract at first: drawing random weights only to overwrite them would take longer than reading the file.
        wsol = found.description.wsol
        model = model_shapes(spec.name, found.description.num_classes, pool=pool, dtype=dtype, wsol=wsol)
    try:
        tensors, unwrapped = found.names.unwrap(model, found.tensors)
    except WeightsError as error:
        raise WeightsError(f"{found.source}: {error}") from None
    if unwrapped is not None:
        warnings.warn(f"{found.source}: {unwrapped}.", stacklevel=3)
    if backbone_only:
        left_out = found.names.place(model, tensors, source=found.source, new_layers=spec.new_layers)
        warnings.warn(
            f"load_model({spec.name!r}, backbone_only=True): {', '.join(spec.new_layers)} of the model are new and "
            f"have to be trained. Left out of {found.source}: {few(left_out) or 'nothing'}.",
            stacklevel=3,
        )
    else:
        in_file = found.description.num_classes or found.names.count_classes(tensors)
        if num_classes is not None and in_file not in (None, model.head.num_classes):
            model = model_shapes(spec.name, in_file, pool=pool, dtype=dtype, wsol=wsol)
        found.names.place(model, tensors, source=found.source)
        _start_random_state(model, rngs)
    default = (model.mean, model.std, model.input_size)
    try:
        if found.description.input_rule:
            model.set_input_rule(**found.description.input_rule, mean_image=found.mean_image)
        if not backbone_only:
            model.class_names = found.description.class_names
            if found.description.multi_label:
                model.multi_label = True
        model.input_size = found.description.input_size or model.input_size
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{found.source}: what the file says of its model does not fit ({error}).") from None
    if found.config is not None:
        _say_differences(found.config, spec.name, default, (model.mean, model.std, model.input_size))
    elif alike := spec.look_alikes.keys() & tensors.keys():
        theirs = next(source.name for source in spec.weights if source.publisher == "timm")
        warnings.warn(
            f"{found.source}: timm's {theirs} and {spec.look_alikes[alike.pop()]} have tensors of the same names and "
            f"shapes, and are different networks. It is taken for {theirs}; no config.json beside the file says so.",
            stacklevel=3,
        )
    return model


def _is_path(name: str) -> bool:
    """Whether a name is a path: a word without separator and suffix, and MODULE:NAME, are names of the registry."""
    return not is_qualified(name) and any(mark in str(name) for mark in ("/", os.sep, "."))


def _is_file(name: str | os.PathLike) -> bool:
    return (
        isinstance(name, str | os.PathLike) and os.path.isfile(name) and (not isinstance(name, str) or _is_path(name))
    )


def _is_address(weights: str | os.PathLike) -> TypeGuard[str]:
    return isinstance(weights, str) and "://" in weights


def _run_model(name: str | os.PathLike, weights, pool, dtype, backbone_only: bool, trust: bool) -> CamModel:
    """The model of a run of camjax's own training."""
    if _is_address(name) and not name.startswith(("gs://", "s3://")):
        raise InputError(
            f"load_model({name!r}): this is an address. Give the model's name first: "
            f"load_model(NAME, weights={name!r})."
        )
    directory = as_path(name)
    if backbone_only:
        raise InputError(
            f"load_model({str(name)!r}, backbone_only=True): a run has all of its weights. For its backbone alone with "
            "a new head, see camjax.with_new_head."
        )
    with reaching(directory):
        is_file, is_folder = directory.is_file(), directory.is_dir()
    if is_file:
        raise InputError(
            f"load_model({str(directory)!r}): this is a file. Give the model's name first: "
            f"load_model(NAME, weights={str(directory)!r})."
        )
    if not is_folder:
        raise FileNotFoundError(
            f"Run directory {directory} not found. Give the directory that training wrote to, or a model's name "
            f"({', '.join(list_models())}); a file of weights is given as load_model(NAME, weights=FILE)."
        )
    given = [option for option, value in (("weights", weights), ("pool", pool)) if value is not None]
    if given:
        raise InputError(
            f"load_model({str(directory)!r}, {', '.join(f'{option}=...' for option in given)}): a run has its own "
            f"{' and '.join(given)}. Leave {'them' if len(given) > 1 else 'it'} out."
        )
    model = load_run(directory, dtype=dtype, trust=trust)
    for place, array in camjax_file.tensors_of(model).items():
        if (why := not_finite(array)) is not None:
            raise WeightsError(f"{directory}: the newest checkpoint holds no weights: in {place}, {why}.")
    return model


@dataclass(frozen=True)
class _Weights:
    """Tensors by name, and what is known of them."""

    tensors: Mapping[str, np.ndarray]
    names: NameTable
    source: str  # where they come from, for errors
    description: Description
    mean_image: np.ndarray | None = None  # (H, W, 3) RGB in 0..255
    config: TimmConfig | None = None


def _installed_weights(spec: ModelSpec) -> _Weights:
    """The weights that a pip package has; without one, the error says where weights come from."""
    if spec.packaged is None or spec.packaged.packaged is None:
        raise InputError(_needs_weights(spec))
    path = spec.packaged.packaged()
    names = NameTable(spec.tensor_names, spec.class_layer)
    return _Weights(read_tensors(path), names, str(path), Description(class_names=imagenet_class_names()))


def _given_weights(spec: ModelSpec, weights: str | os.PathLike, backbone_only: bool) -> _Weights:
    """The weights of a file, of an address, of a short name, or of a run."""
    source = str(weights)
    published = spec.short_names.get(weights) if isinstance(weights, str) else None
    if published is not None and published.backbone_only and not backbone_only:
        raise InputError(
            f"load_model({spec.name!r}, weights={source!r}): {published.title} is the network that this one was made "
            "from. With backbone_only=True its backbone is taken, and the head is new."
        )
    path = _path_of(weights if published is None else published)
    if published is not None or _is_address(weights):
        source += f" (kept as {path})"
    if path.is_dir() and not (path / "run.json").is_file():  # a repository of the Hub, as a folder
        path = next((path / name for name in HUB_FILES if (path / name).is_file()), path)
    if path.is_dir():
        run = load_run(path)
        return _camjax_weights(spec, camjax_file.tensors_of(run), source, camjax_file.describe(run))
    if not path.exists() and spec.short_names:
        raise FileNotFoundError(
            f"Weight file {path} not found. Check the path, or give the short name of a published file of {spec.name}: "
            f"{', '.join(spec.short_names)}."
        )
    tensors = read_tensors(path)
    if (description := camjax_file.read_description(path)) is not None:
        return _camjax_weights(spec, tensors, f"{source} (camjax's {description.model})", description)
    is_caffe = path.suffix.lower() == ".caffemodel"
    if is_caffe and spec.caffe_order:
        _check_order(spec, path, source)
    if not is_caffe and not spec.tensor_names:
        raise InputError(
            f"load_model({spec.name!r}, weights={source!r}): no names of weights other than Caffe's and camjax's own "
            f"are known for this model. Give a .caffemodel file, a file by `camjax convert`, or a run."
        )
    format: FileFormat = "caffemodel" if is_caffe else "pytorch"
    names = NameTable((*spec.tensor_names, *(CAFFE_NAMES if is_caffe else ())), spec.class_layer)
    config = None if is_caffe else read_timm_config(path)
    if config is not None:
        _check_architecture(spec, config, source)
    description = Description(
        num_classes=None if published is None else published.num_classes,
        class_names=imagenet_class_names() if published is not None and published.data == "ImageNet" else None,
        input_rule=spec.input_rules.get(format, {}),
    )
    if config is not None:
        description = dataclasses.replace(
            description,
            num_classes=config.num_classes or description.num_classes,
            class_names=config.class_names or description.class_names,
            input_rule=config.input_rule or description.input_rule,
            input_size=config.input_size,
        )
    return _Weights(tensors, names, source, description, config=config)


def _check_architecture(spec: ModelSpec, config: TimmConfig, source: str) -> None:
    """Raises WeightsError if a `config.json` says that the weights are of another network than this one."""
    known = [weights.name for weights in spec.weights]
    if not known or config.architecture in known:
        return
    fitting = [name for name in list_models() if config.architecture in (w.name for w in model_spec(name).weights)]
    advice = f"They are for {' or '.join(fitting)}." if fitting else "camjax has no network for them."
    raise WeightsError(
        f"{source}: {config.path} says that these are weights of {printable(config.architecture)!r}, and "
        f"{spec.name} takes those of {' or '.join(map(repr, known))}. {advice}"
    )


def _check_order(spec: ModelSpec, path: Path, source: str) -> None:
    """Raises WeightsError if a caffemodel's layers without weights are in another order than the network's."""
    from camjax.weights.caffe_file import caffe_layers

    order = [name for name in caffe_layers(path) if name in spec.caffe_order]
    if order != [name for name in spec.caffe_order if name in order]:
        raise WeightsError(
            f"{source}: its layers are in the order {', '.join(order)}, as in bvlc_reference_caffenet, and those of "
            f"{spec.name} in the order {', '.join(spec.caffe_order)}: another network with weights of the same names "
            "and shapes. Give a .caffemodel of bvlc_alexnet."
        )


def _say_differences(config: TimmConfig, name: str, default: tuple, found: tuple) -> None:
    """Warns where a `config.json` has another rule for images than the network by default."""
    said: list[str] = []
    usual: list[str] = []
    for what, ours, theirs in zip(("mean", "std", "size"), default, found, strict=True):
        if not np.allclose(ours, theirs, atol=1e-3):
            for words, numbers in ((said, theirs), (usual, ours)):
                words.append(f"{what} ({', '.join(f'{number:g}' for number in numbers)})")
    if said:
        warnings.warn(
            f"{config.path}: images have {', '.join(said)} for these weights, in place of {name}'s {', '.join(usual)}.",
            stacklevel=4,
        )


def _path_of(weights: str | os.PathLike | WeightsSource) -> Path:
    """The path of a file or run; a file with an address is downloaded first."""
    if isinstance(weights, WeightsSource):
        assert weights.address is not None, "short names are for addresses"
        if weights.other_address is None:
            return _path_of(weights.address)
        try:
            return _path_of(weights.address)
        except OSError as error:
            with contextlib.suppress(OSError):
                return _path_of(weights.other_address)
            raise error
    if _is_address(weights):
        # Imported here, since it brings huggingface_hub and requests along.
        from camjax.weights.fetch import fetch

        return fetch(weights)
    if re.match(r"(hf|https?):[/\\](?![/\\])", str(weights)):
        raise InputError(f"weights={weights!r}: a Path drops a slash of an address. Give the address as a string.")
    return Path(weights)


def model_of(weights: str | os.PathLike) -> str | None:
    """The name of the network that a file by `camjax convert` is of; None for any other weights.

    Args:
      weights: a file or an address, as in `load_model`.

    Raises:
      ValueError: the network is one of the user's own, in a module that is not imported yet. A file does not decide
        which code runs.
    """
    path = _path_of(weights)
    description = camjax_file.read_description(path) if path.is_file() else None
    name = None if description is None else description.model
    if name is not None and is_qualified(name) and name.split(":")[0] not in sys.modules:
        raise InputError(
            f"{weights} is of {name}, a network of your own. Name it: load_model({name!r}, "
            f"weights=...), or --model {name}."
        )
    return name


def _camjax_weights(spec: ModelSpec, tensors: dict[str, np.ndarray], source: str, description: Description) -> _Weights:
    """Weights in camjax's own names, with the mean image among the tensors."""
    mean_image = tensors.pop(camjax_file.MEAN_IMAGE, None)
    if mean_image is not None and (why := not_finite(mean_image)) is not None:
        raise WeightsError(f"{source}: the mean image is damaged: {why}.")
    return _Weights(tensors, NameTable(camjax_file.TABLE, spec.class_layer), source, description, mean_image)


def _spec(name: str) -> ModelSpec:
    """The registered model; the error for an unknown name also thinks of a directory of that name."""
    try:
        return model_spec(name)
    except ValueError as error:
        if not os.path.isdir(str(name)):
            raise
        raise InputError(f"{error} For the run in the directory {name}, write load_model('./{name}').") from None


def _needs_weights(spec: ModelSpec) -> str:
    """The error for a model whose weights are not installed with camjax."""
    if not spec.weights:
        return (
            f"load_model({spec.full_name!r}): no trained weights of this model are published. Train one that begins as "
            f"create_model({spec.full_name!r}), and give the directory of the run: load_model('path/to/run')."
        )
    backbone = spec.weights_in_words(backbone_only=True)
    installed = [name for name in list_models() if model_spec(name).installed]
    lines = [
        f"load_model({spec.name!r}) needs trained weights, and none for this model are installed with camjax. Give",
        "  weights=FILE, a path or an address (hf://... or https://...):",
        f"    {spec.weights_in_words()}; or",
        *([f"    {backbone}, with backbone_only=True, to train a new head; or"] if backbone else []),
        "    a file by `camjax convert`; or",
        *(
            f"  weights={name!r}{', backbone_only=True' * source.backbone_only}: {source.title}, {source.address}; or"
            for name, source in spec.short_names.items()
        ),
        "  a run of your own training: load_model('path/to/run').",
        f"Installed are the weights of {', '.join(installed)} only.",
        f"For random weights write create_model({spec.name!r}).",
    ]
    return "\n".join(lines)


def _start_random_state(model: nnx.Module, rngs: nnx.Rngs) -> None:
    """Gives the random state of dropout, which no file holds, fresh keys, and counts of 0."""
    for _, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.RngKey):
            variable.set_value(rngs.dropout())
        elif isinstance(variable, nnx.RngCount):
            variable.set_value(jnp.zeros((), jnp.uint32))
