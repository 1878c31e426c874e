"""Arrays over several devices: how they are split, and results and types that say so."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def split_of(array: Any) -> NamedSharding | None:
    """How the first axis of an array is split over the devices of a mesh; None if it is not, or is traced."""
    if not isinstance(array, jax.Array) or isinstance(array, jax.core.Tracer):
        return None
    sharding = array.sharding
    if not isinstance(sharding, NamedSharding) or not sharding.spec or sharding.spec[0] is None:
        return None
    return NamedSharding(sharding.mesh, PartitionSpec(sharding.spec[0]))


def laid_out_like(
    argument: int, *, trailing: int
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Decorates a function whose results all begin with the leading dimensions of one of its arrays.

    With explicit axes JAX asks, at each gather and at many a reshape, where the result shall lie: inside of networks
    and of its own functions too. In the decorated function the compiler decides that, as it does for all other meshes,
    and the results lie as the argument's leading dimensions do.

    Args:
      argument: position of the array.
      trailing: number of its last dimensions that results do not begin with.
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @functools.wraps(function)
        def decorated(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            like = args[argument]
            if not isinstance(like, jax.Array) or not jax.typeof(like).sharding.mesh.explicit_axes:
                return function(*args, **kwargs)
            leaves, structure = jax.tree.flatten((args, kwargs))
            places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

            def of_arrays(*arrays):
                found = dict(zip(places, arrays, strict=True))
                whole = [found.get(place, leaf) for place, leaf in enumerate(leaves)]
                args, kwargs = jax.tree.unflatten(structure, whole)
                return function(*args, **kwargs)

            sharding = jax.typeof(like).sharding
            leading = PartitionSpec(*sharding.spec[: like.ndim - trailing])
            # JAX takes the mesh from its context, which is empty where nobody called `jax.set_mesh`.
            results = NamedSharding(sharding.mesh, leading) if jax.sharding.get_abstract_mesh().empty else leading
            return jax.sharding.auto_axes(of_arrays, out_sharding=results)(*(leaves[place] for place in places))

        return decorated

    return decorate


def varying_alike(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays, which inside of `jax.shard_map` may then all differ between the devices that any of them differs on.

    JAX does so for its own products; a loop's first state needs it, and a primitive.
    """
    axes = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    missing = [frozenset().union(*axes) - own for own in axes]
    return [
        jax.lax.pcast(array, tuple(sorted(names)), to="varying") if names else array
        for array, names in zip(arrays, missing, strict=True)
    ]


class Placed:
    """Weights that follow images: they are copied once to each device, or mesh, that images were put on.

    Args:
      weights: a pytree of arrays.
    """

    def __init__(self, weights: Any):
        self._copies: dict[jax.Device | NamedSharding | None, Any] = {None: weights}

    def beside(self, images: Any) -> Any:
        """The weights where the images are."""
        place = _place_of(images)
        if place not in self._copies:
            self._copies[place] = jax.device_put(self._copies[None], place)
        return self._copies[place]


def _place_of(images: Any) -> jax.Device | NamedSharding | None:
    """Where images were put deliberately: a device, or all of a mesh; None for NumPy, traced and uncommitted ones."""
    if not isinstance(images, jax.Array) or isinstance(images, jax.core.Tracer) or not images.committed:
        return None
    if isinstance(images.sharding, NamedSharding):
        return NamedSharding(images.sharding.mesh, PartitionSpec())
    devices = images.devices()
    return next(iter(devices)) if len(devices) == 1 else None
