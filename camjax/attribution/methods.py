"""The methods by the names that they have on command lines."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from camjax.attribution import decomposition, gradient_methods, perturbation


class Method(NamedTuple):
    """A method of attribution; one of the two functions is given.

    Attributes:
      name: on command lines.
      from_gradients: (features (B, h, w, K), gradients (B, N, h, w, K)) -> maps (B, N, h, w).
      from_network: (network, images, features, target, **options) -> maps, for methods that perturb; runs outside of
        `jax.jit`, in compiled pieces.
      options: names of the options that it takes.
    """

    name: str
    from_gradients: Callable | None = None
    from_network: Callable | None = None
    options: tuple[str, ...] = ()


_FROM_GRADIENTS = gradient_methods.FROM_GRADIENTS | decomposition.FROM_GRADIENTS

METHODS: Mapping[str, Method] = {
    **{name: Method(name, from_gradients=function) for name, function in _FROM_GRADIENTS.items()},
    **{
        name: Method(name, from_network=function, options=options)
        for name, (function, options) in perturbation.FROM_NETWORK.items()
    },
}
"""Name -> method."""


def method_named(name: str, options: Mapping[str, Any]) -> Method:
    """The method of a name.

    Raises:
      ValueError: no such method, or it has not one of the options.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"method is {name!r}: expected one of {', '.join(METHODS)}.{hint}")
    method = METHODS[name]
    if unknown := [option for option in options if option not in method.options]:
        known = ", ".join(method.options) if method.options else "none"
        raise ValueError(f"{name} has no option {', '.join(unknown)}: it has {known}.")
    return method
