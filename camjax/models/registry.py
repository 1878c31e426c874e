"""The registry of networks: by name, what builds a network and where its weights come from."""

import difflib
import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from camjax.errors import InputError
from camjax.models.base import CamModel
from camjax.models.contract import builder, check_constructor, check_name, default_classes
from camjax.models.head import Pool
from camjax.models.spec import ModelSpec
from camjax.models.wsol.table import with_wsol

# The files of this package that have networks, each with its `SPECS`. A new file is one name here.
FAMILIES = (
    "alexnet",
    "convnext",
    "densenet",
    "efficientnet_lite",
    "efficientnet_v2",
    "googlenet",
    "inception",
    "mobilenet",
    "mobilenet_v3",
    "nin",
    "regnet",
    "resnet",
    "small_gap",
    "squeezenet",
    "swin",
    "vgg",
    "vit",
)
_SPECS: dict[str, ModelSpec] = {
    spec.name: spec for family in FAMILIES for spec in importlib.import_module(f"camjax.models.{family}").SPECS
}


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
    """Registers a network under a name, by which camjax's functions and commands find it.

    Call it in a module that can be imported. The name `MODULE:NAME` then imports that module first, as in
    `camjax explain --model my_package.my_module:my_net`. A training run notes the name in this form, so it loads in any
    process that can import the module. A network that a script or notebook registers has its bare name alone: its
    runs load where the same name has been registered before.

    Args:
      name: letters, digits, "_" and "-".
      constructor: a class derived from `camjax.models.CamModel`, or a function that returns such a model. It takes
        num_classes and rngs, and optionally pool and dtype, as `create_model` does.
      num_classes: default number of classes; None for the constructor's own default.
      new_layers: places in the model that start new when the backbone of another network is taken over.

    Raises:
      ValueError: the name is taken or invalid, or the constructor lacks arguments. Whether the model keeps the contract
        of camjax's models is checked when the first one is created.
    """
    check_name(name)
    check_constructor(name, constructor)
    num_classes = default_classes(constructor) if num_classes is None else num_classes
    if num_classes is None:
        raise InputError(f"register_model({name!r}): the constructor has no default of num_classes: give num_classes=.")
    new = ModelSpec(
        name,
        builder(name, constructor),
        num_classes,
        new_layers=tuple(new_layers),
        # As in pickle, MODULE:NAME is what importing the module gives.
        module=sys._getframe(1).f_globals["__name__"],
        constructor=constructor,
    )
    old = _SPECS.get(name)
    if old is not None and not _is_run_again(old, new):
        owner = "camjax" if old.module is None else f"the module {old.module}"
        raise InputError(f"register_model({name!r}): the name is taken by {owner}. Choose another.")
    _SPECS[name] = new


def _is_run_again(old: ModelSpec, new: ModelSpec) -> bool:
    """Whether the same module, or cell of a notebook, has run again."""
    names = [getattr(spec.constructor, "__qualname__", None) for spec in (old, new)]
    return old.module == new.module and (
        old.constructor is new.constructor or (names[0] == names[1] and names[0] is not None and "<" not in names[0])
    )


def model_spec(name: str) -> ModelSpec:
    """A registered network.

    Args:
      name: as it is registered, or `MODULE:NAME`, for which the module is imported.

    Returns:
      What is known of the network.

    Raises:
      ValueError: the name is not registered (the message gives similar names and the whole list), the module does not
        exist, or it registers no such name.
    """
    if is_qualified(name):
        return _module_spec(*name.split(":"))
    if name in _SPECS:
        return _SPECS[name]
    near = difflib.get_close_matches(str(name), _SPECS, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(
        f"There is no model named {name!r}.{hint} Known: {', '.join(list_models())}. A network of your own has a name "
        "after camjax.register_model; as MODULE:NAME it is registered by importing the module."
    )


def is_qualified(name: str) -> bool:
    """Whether a name has the form `MODULE:NAME`, of a network that a module registers by `register_model`."""
    return isinstance(name, str) and re.fullmatch(r"\w+(\.\w+)*:\w[\w-]*", name) is not None


def _module_spec(module: str, name: str) -> ModelSpec:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, and another one that it imports does not
        raise InputError(
            f"{module}:{name}: module {error.name} not found. It has to be in Python's path, as installed packages "
            "are; the command line looks in the current directory too."
        ) from None
    if name not in _SPECS or _SPECS[name].module is None:
        registered = ", ".join(other for other, spec in sorted(_SPECS.items()) if spec.module is not None)
        raise InputError(
            f"{module}:{name}: importing {module} registers no model named {name!r}. Registered: "
            f"{registered or 'none'}. Call camjax.register_model({name!r}, ...) in the module."
        )
    return _SPECS[name]


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    pool: Pool = "gap",
    dtype: DTypeLike = jnp.float32,
    rngs: nnx.Rngs | None = None,
    wsol: str | Mapping[str, Any] | None = None,
) -> CamModel:
    """Builds a model with random weights.

    Args:
      name: one of `list_models()`, or `MODULE:NAME`, see `register_model`.
      num_classes: C; the model's own default (1000 for ImageNet networks) if None.
      pool: "gap" (global average pooling) or "gmp" (global max pooling).
      dtype: compute dtype, float32 or bfloat16. Parameters are float32.
      rngs: random keys of the initial weights; `nnx.Rngs(0)` if None.
      wsol: the method for weakly supervised localization that it is trained by: "has", "cutmix", "adl", "acol",
        "spg" or "tscam", or a mapping with options, {"method": "acol", "threshold": 0.6}; docs/training.md describes
        them. None or "cam" for none.

    Returns:
      The model.

    Raises:
      ValueError: unknown name, pool, dtype or method; or a registered network does not keep the contract of camjax's
        models.
    """
    spec = model_spec(name)
    num_classes = spec.num_classes if num_classes is None else num_classes
    rngs = nnx.Rngs(0) if rngs is None else rngs
    model = spec.build(num_classes=num_classes, pool=pool, dtype=dtype, rngs=rngs)
    model.created_as = {"name": spec.full_name, "num_classes": num_classes, "pool": pool}
    return model if wsol is None else with_wsol(model, wsol, rngs=rngs)
