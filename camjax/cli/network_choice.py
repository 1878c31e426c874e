"""The network on the command line: what --model and --weights ask for together."""

import os

DEFAULT_MODEL = "efficientnet_lite0"


def network_choice(model: str | None, weights: str | None) -> tuple[str, str | None]:
    """The arguments of `camjax.load_model`.

    Args:
      model: what --model says, or None. Then a file by `camjax convert` and a run say it; for other weights, and
        without any, it is `DEFAULT_MODEL`.
      weights: what --weights says, or None.
    """
    if model is not None or weights is None:
        return model or DEFAULT_MODEL, weights
    if os.path.isdir(weights):
        return os.path.join(weights, ""), None  # with a separator, it is the path of a run

    from camjax.loading import model_of

    return model_of(weights) or DEFAULT_MODEL, weights
