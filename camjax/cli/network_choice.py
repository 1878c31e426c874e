"""The network on the command line: what --model and --weights ask for together."""

import os

from camjax.errors import InputError

DEFAULT_MODEL = "efficientnet_lite0"


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
