"""What a user's network has to have: checked when it is registered and when it is first created."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from camjax.errors import InputError
from camjax.models.base import CamModel, takes_more_than_features

# What explaining, evaluating and training use of a model; a subclass of `CamModel` inherits most of it.
_MODEL = (
    *("input_size", "features", "head", "dtype", "min_size", "class_names", "created_as"),
    *("input_rule", "mean_image", "set_input_rule"),
)

_HOW = (
    "a model derived from camjax.models.CamModel, which sets `head`, such as camjax.models.PooledHead, and defines "
    "`backbone`; the rest is CamModel's"
)


def check_name(name: str) -> None:
    """Raises ValueError unless the name is valid as that of a network, and cannot be mistaken for a path."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name):
        raise InputError(
            f"name={name!r}: expected letters, digits, '_' and '-'; names with '/', '.' or ':' are those of runs, "
            "files and modules."
        )


def check_constructor(name: str, constructor: Callable) -> None:
    """Raises ValueError unless a constructor takes what `create_model` gives it."""
    if not callable(constructor):
        raise InputError(
            f"register_model({name!r}, {constructor!r}): expected a function, or a class derived from "
            "camjax.models.CamModel, that makes the model."
        )
    if missing := [argument for argument in ("num_classes", "rngs") if not _takes(constructor, argument)]:
        raise InputError(
            f"register_model({name!r}): the constructor has no argument {' and no '.join(missing)}: expected "
            "constructor(num_classes, *, rngs), and where they apply pool and dtype."
        )


def default_classes(constructor: Callable) -> int | None:
    """The default of a constructor's `num_classes`; None if it has none."""
    parameter = _parameters(constructor).get("num_classes")
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def builder(name: str, constructor: Callable[..., CamModel]) -> Callable[..., CamModel]:
    """`ModelSpec.build` of a constructor; the first model that it makes is checked.

    It gives the constructor those of `num_classes`, `pool`, `dtype` and `rngs` that it takes, and raises ValueError for
    a pool other than "gap", or a dtype other than float32, that it does not take.
    """
    checked = False

    def build(*, num_classes, pool, dtype, rngs):
        nonlocal checked
        options = {"pool": (pool, pool == "gap"), "dtype": (dtype, jnp.dtype(dtype) == jnp.float32)}
        given = {}
        for option, (value, is_default) in options.items():
            if _takes(constructor, option):
                given[option] = value
            elif not is_default:
                raise InputError(f"{option}={value!r}: the constructor of {name!r} takes no {option}. Leave it out.")
        model = constructor(num_classes=num_classes, rngs=rngs, **given)
        if not checked:
            _check_model(name, model, num_classes)
            checked = True
        return model

    return build


def _parameters(constructor: Callable) -> Mapping[str, inspect.Parameter]:
    # The signature of a class of NNX is that of its metaclass, which takes anything.
    function = inspect.getattr_static(constructor, "__init__") if isinstance(constructor, type) else constructor
    return inspect.signature(function).parameters


def _takes(constructor: Callable, argument: str) -> bool:
    parameters = _parameters(constructor)
    by_keyword = parameters.get(argument)
    if by_keyword is not None:
        return by_keyword.kind is not by_keyword.POSITIONAL_ONLY
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _check_model(name: str, model: Any, num_classes: int) -> None:
    """Raises ValueError unless a model keeps the contract; nothing is computed but shapes."""
    if not isinstance(model, nnx.Module):
        raise InputError(f"{name!r} makes {type(model).__name__}: expected {_HOW}.")
    missing = [attribute for attribute in _MODEL if not hasattr(model, attribute)]
    if isinstance(model, CamModel) and type(model).backbone is CamModel.backbone:
        missing.append("backbone")
    if hasattr(model, "head") and not hasattr(model.head, "num_classes"):
        missing.append("head.num_classes")
    if missing:
        raise InputError(f"{name!r} makes {type(model).__name__} without {', '.join(missing)}: expected {_HOW}.")
    if model.head.num_classes != num_classes:
        raise InputError(
            f"{name!r} with num_classes={num_classes} has a head of {model.head.num_classes} classes: expected the "
            "constructor to pass num_classes on to its head."
        )
    images = jax.ShapeDtypeStruct((1, *model.input_size, 3), jnp.uint8)
    features = jax.eval_shape(lambda model, images: model.features(images), model, images)
    if len(features.shape) != 4:
        raise InputError(
            f"{name!r}, for an image of its input_size {model.input_size}, has features of shape {features.shape}: "
            "expected (1, h, w, K)."
        )
    kernel = getattr(model.head, "kernel", None)
    if kernel is not None and kernel.shape != (features.shape[3], num_classes):
        raise InputError(
            f"{name!r} has features of {features.shape[3]} channels and a head.kernel of shape {kernel.shape}: "
            f"expected ({features.shape[3]}, {num_classes})."
        )
    logits = jax.eval_shape(lambda model, images: model(images), model, images)
    by_head = logits
    if not takes_more_than_features(model):
        by_head = jax.eval_shape(lambda model, features: model.head(features), model, features)
    if by_head.shape != (1, num_classes) or logits.shape != by_head.shape:
        raise InputError(
            f"{name!r}, for one image, has `head(features)` of shape {by_head.shape} and `model(images)` of shape "
            f"{logits.shape}: expected (1, {num_classes}) of both."
        )
