"""The registry of models: a name, how to build it, and where its pretrained weights come from."""

import difflib

import jax.numpy as jnp
from flax import nnx

from camjax.models import (
    alexnet,
    convnext,
    densenet,
    efficientnet_lite,
    googlenet,
    inception,
    mobilenet,
    nin,
    resnet,
    small_gap,
    squeezenet,
    vgg,
)
from camjax.models.base import CamModel
from camjax.models.head import Pool, PooledHead
from camjax.models.layers import ConvBN, fold_batchnorm
from camjax.models.spec import ModelSpec
from camjax.models.surgery import with_new_head

__all__ = [
    "CamModel",
    "ConvBN",
    "ModelSpec",
    "PooledHead",
    "create_model",
    "fold_batchnorm",
    "list_models",
    "model_spec",
    "with_new_head",
]


# A family's file lists its networks in SPECS; a new family is one name here.
_FAMILIES = (
    alexnet,
    convnext,
    densenet,
    efficientnet_lite,
    googlenet,
    inception,
    mobilenet,
    nin,
    resnet,
    small_gap,
    squeezenet,
    vgg,
)
_SPECS = {spec.name: spec for family in _FAMILIES for spec in family.SPECS}


def list_models() -> list[str]:
    """Names that `create_model` and `load_model` take, in alphabetical order."""
    return sorted(_SPECS)


def model_spec(name: str) -> ModelSpec:
    """The registered model of that name.

    Raises:
      ValueError: the name is not registered; the message gives the near names and the whole list.
    """
    if name in _SPECS:
        return _SPECS[name]
    near = difflib.get_close_matches(str(name), _SPECS, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"There is no model named {name!r}.{hint} Known: {', '.join(list_models())}.")


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    pool: Pool = "gap",
    dtype=jnp.float32,
    rngs: nnx.Rngs | None = None,
) -> CamModel:
    """Builds a model with random weights.

    Args:
      name: one of `list_models()`.
      num_classes: C; the model's own default (1000 for ImageNet networks) if None.
      pool: "gap" (global average pooling) or "gmp" (global max pooling).
      dtype: compute dtype, float32 or bfloat16. Parameters are float32.
      rngs: random keys of the initial weights; `nnx.Rngs(0)` if None.

    Returns:
      The model.

    Raises:
      ValueError: unknown name, pool or dtype.
    """
    spec = model_spec(name)
    num_classes = spec.num_classes if num_classes is None else num_classes
    rngs = nnx.Rngs(0) if rngs is None else rngs
    model = spec.build(num_classes=num_classes, pool=pool, dtype=dtype, rngs=rngs)
    model.created_as = {"name": name, "num_classes": num_classes, "pool": pool}
    return model
