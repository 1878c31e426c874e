"""The network on the command line: what --model and --weights ask for together."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from camjax.errors import InputError

if TYPE_CHECKING:
    from camjax.exporting.network import ExportedNetwork

DEFAULT_MODEL = "efficientnet_lite0"
DEFAULT_METHOD, DEFAULT_THRESHOLD = "cam", 0.2


def network_choice(model: str | None, weights: str | None) -> tuple[str, str | None]:
    """The arguments of `camjax.load_model`.

    Args:
      model: what --model says, or None. Then a file by `camjax convert` and a run say it; for other weights, and
        without any, it is `DEFAULT_MODEL`.
      weights: what --weights says, or None.

    Raises:
      ValueError: the short name of published weights, without a model; the message lists those that have it.
    """
    if model is not None or weights is None:
        return model or DEFAULT_MODEL, weights
    if os.path.isdir(weights):
        return os.path.join(weights, ""), None  # with a separator, it is the path of a run

    from camjax.loading import model_of
    from camjax.models import list_models, model_spec

    having = [name for name in list_models() if weights in model_spec(name).short_names]
    if len(having) == 1:
        return having[0], weights
    if having and not os.path.exists(weights):
        choices = ", ".join(f"--model {name}" for name in having)
        raise InputError(f"--weights {weights} are those of several networks: say which by {choices}.")
    return model_of(weights) or DEFAULT_MODEL, weights


def exported_network(model: str | None, methods: Iterable[str], *others: Any) -> "ExportedNetwork | None":
    """The network of a file by `camjax export`; None if --model names something else.

    Args:
      model: what --model says, or None.
      methods: what --method says.
      *others: what --layer, --weights and --trust say, of those that the command has.

    Raises:
      ValueError: the file is damaged, or an option says what the file has settled.
    """
    from camjax.exporting.file import is_exported_file

    if model is None or not is_exported_file(model):
        return None
    from camjax.exporting.network import load_exported

    exported = load_exported(model)
    if any(others) or {*methods} - {exported.method}:
        raise InputError(
            f"--model {model} is an exported network, by {exported.method}: leave out --method, --layer, --weights and "
            "--trust, or give the network that it was exported from."
        )
    return exported
