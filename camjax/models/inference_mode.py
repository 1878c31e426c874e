"""Running a network for inference: no dropout, BatchNorm at its running statistics, whichever way it is told."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MethodType
from typing import Any, TypeVar

from flax import errors, nnx

from camjax.errors import InputError, printable

Module = TypeVar("Module", bound=nnx.Module)

_FLAGS = {"train": False, "training": False, "is_training": False}
_MODE = {**_FLAGS, "deterministic": True, "use_running_average": True, "inference": True}
"""How networks are told their mode, by an argument or an attribute, and what inference is."""


def inference_view(model: Module) -> Module:
    """A view of the model in inference mode: no dropout, BatchNorm at its running statistics.

    Attributes `train`, `training` and `is_training` of its modules, which NNX does not know, become False.

    Args:
      model: any module of NNX; it stays as it is.

    Returns:
      A module of the same type that shares the model's variables.
    """
    view = nnx.view(model, raise_if_not_found=False, deterministic=True, use_running_average=True)
    for _, module in nnx.iter_modules(view):
        for name, value in _FLAGS.items():
            if isinstance(vars(module).get(name), bool):
                setattr(module, name, value)
    return view


def run_for_inference(function: Callable, *args: Any) -> Any:
    """Calls a module, or a method of one, in inference mode.

    Args:
      function: a module as `inference_view` returns it, or a method of it, such as `inference_view(model).features`.
        If it has an argument for its mode (train, training, is_training, deterministic, use_running_average,
        inference), that is given.
      *args: of the call.

    Returns:
      What the function returns.

    Raises:
      ValueError: the call changed the module's statistics or drew random numbers, as a network in training does.
    """
    with keeps_its_state(function.__self__ if isinstance(function, MethodType) else function):
        return function(*args, **mode_arguments(function))


@contextlib.contextmanager
def keeps_its_state(module: Any) -> Iterator[None]:
    """Raises ValueError if a module's statistics or random generators change in the block: it runs for training.

    Args:
      module: of NNX; of Linen, which then raises errors of its own.
    """
    before = _state(module) if isinstance(module, nnx.Module) else {}
    try:
        yield
        changed = [path for path, value in _state(module).items() if before.get(path) is not value] if before else []
    except (errors.TraceContextError, errors.ModifyScopeVariableError, errors.InvalidRngError) as error:
        changed = [printable(error).partition(" (http")[0]]
    if changed:
        raise InputError(
            f"{type(module).__name__} does not run in inference mode: it changes {', '.join(changed[:3])}"
            f"{', ...' if len(changed) > 3 else ''}. If one of its methods takes the mode as an argument with a "
            "default of training, let BatchNorm and Dropout take it from model.train() and model.eval(), or, for an "
            "explainer, pass it on: forward=lambda model, images: model(images, train=False)."
        ) from None


def mode_arguments(function: Callable) -> dict[str, bool]:
    """The arguments that tell a function, or a module's `__call__`, to run for inference: those that it has."""
    parameters: Mapping[str, inspect.Parameter] = {}
    # The signature of an NNX class is that of its metaclass.
    called: Any = function if inspect.isroutine(function) else type(function).__call__
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):  # a function of C
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: value for name, value in _MODE.items() if name in parameters and parameters[name].kind in kinds}


def _state(module: nnx.Module) -> dict[str, Any]:
    """The statistics of a module and the states of its random generators, by their paths."""
    found = ((path, node) for path, node in nnx.iter_graph(module) if isinstance(node, nnx.BatchStat | nnx.RngState))
    return {".".join(map(str, path)): node.get_raw_value() for path, node in found}
