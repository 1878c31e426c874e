"""The registry of models: a name, how to build it, and where its pretrained weights come from."""

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Sequence

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
from camjax.models.contract import builder, check_constructor, check_name, default_classes
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
    "register_model",
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


def register_model(
    name: str,
    constructor: Callable[..., CamModel],
    *,
    num_classes: int | None = None,
    new_layers: Sequence[str] = ("head",),
) -> None:
    """Gives a network of one's own a name, by which everything takes it that takes camjax's own.

    Call it in a module that can be imported. `MODULE:NAME` then stands for the network wherever a name does, as in
    `camjax explain --model my_package.my_module:my_net`: it imports the module first. A run of training notes the name
    in this form, and loads again in any process that can import the module. What a script or notebook registers for
    itself has the bare name alone: its runs load where the same name has been registered before.

    Args:
      name: letters, digits, "_" and "-".
      constructor: a class derived from `camjax.models.CamModel`, or a function that makes such a model, with arguments
        num_classes and rngs, and where they apply pool and dtype, as of `create_model`.
      num_classes: C where none is asked for; None for the constructor's own default.
      new_layers: places in the model that start new where a backbone trained without them is taken over.

    Raises:
      ValueError: a name that is taken or cannot be one, or a constructor that lacks arguments. Whether the model keeps
        the contract of camjax's models is checked when the first is made.
    """
    check_name(name)
    check_constructor(name, constructor)
    num_classes = default_classes(constructor) if num_classes is None else num_classes
    if num_classes is None:
        raise ValueError(f"register_model({name!r}): the constructor has no default of num_classes: give num_classes=.")
    # As pickle does, a name in a module stands for what importing the module gives.
    module = sys._getframe(1).f_globals["__name__"]
    spec = ModelSpec(
        name, builder(name, constructor), num_classes, new_layers=tuple(new_layers), module=module, source=constructor
    )
    there = _SPECS.get(name)
    if there is not None and not _registered_again(there, spec):
        owner = "camjax" if there.module is None else f"the module {there.module}"
        raise ValueError(f"register_model({name!r}): the name is taken by {owner}. Choose another.")
    _SPECS[name] = spec


def _registered_again(there: ModelSpec, spec: ModelSpec) -> bool:
    """Whether a module, or a notebook's cell, that ran before has run again."""
    names = [getattr(s.source, "__qualname__", None) for s in (there, spec)]
    return there.module == spec.module and (
        there.source is spec.source or (names[0] == names[1] and names[0] is not None and "<" not in names[0])
    )


def model_spec(name: str) -> ModelSpec:
    """The registered model of that name, or of `MODULE:NAME`, for which the module is imported.

    Raises:
      ValueError: the name is not registered; the message gives the near names and the whole list. Or there is no such
        module, or it registers no such name.
    """
    if is_own(name):
        return _spec_of_module(*name.split(":"))
    if name in _SPECS:
        return _SPECS[name]
    near = difflib.get_close_matches(str(name), _SPECS, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(
        f"There is no model named {name!r}.{hint} Known: {', '.join(list_models())}. A network of your own has a name "
        "after camjax.register_model; as MODULE:NAME it is registered by importing the module."
    )


def is_own(name: str) -> bool:
    """Whether a name has the form `MODULE:NAME`, of a network that a module registers by `register_model`."""
    return isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)*:\w[\w-]*", name) is not None


def _spec_of_module(module: str, name: str) -> ModelSpec:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another
        raise ValueError(
            f"{module}:{name}: there is no module {error.name}. It has to be in Python's path, as installed packages "
            "are; the command line looks in the current directory too."
        ) from None
    if name not in _SPECS or _SPECS[name].module is None:
        own = ", ".join(other for other, spec in sorted(_SPECS.items()) if spec.module is not None)
        raise ValueError(
            f"{module}:{name}: importing {module} registers no model named {name!r}. Registered: {own or 'none'}. "
            f"Call camjax.register_model({name!r}, ...) in the module."
        )
    return _SPECS[name]


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
      name: one of `list_models()`, or `MODULE:NAME`, see `register_model`.
      num_classes: C; the model's own default (1000 for ImageNet networks) if None.
      pool: "gap" (global average pooling) or "gmp" (global max pooling).
      dtype: compute dtype, float32 or bfloat16. Parameters are float32.
      rngs: random keys of the initial weights; `nnx.Rngs(0)` if None.

    Returns:
      The model.

    Raises:
      ValueError: unknown name, pool or dtype; or a network of one's own that does not keep the contract of models.
    """
    spec = model_spec(name)
    num_classes = spec.num_classes if num_classes is None else num_classes
    rngs = nnx.Rngs(0) if rngs is None else rngs
    model = spec.build(num_classes=num_classes, pool=pool, dtype=dtype, rngs=rngs)
    model.created_as = {"name": spec.full_name, "num_classes": num_classes, "pool": pool}
    return model
