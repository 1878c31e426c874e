"""Exact receptive fields: which pixels a unit of the last feature map can see.

They are measured on the network, not computed from its layers: pixels that are NaN make every unit that depends on them
NaN, for any weights. A unit's field is a rectangle, because the networks are convolutional.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from camjax.checks import check_images, num_classes
from camjax.errors import InputError
from camjax.models import CamModel
from camjax.models.inference_mode import inference_view


class ReceptiveFields(NamedTuple):
    """The receptive fields of the units of a feature map (h, w), the same for all channels, in images of H x W pixels.

    Attributes:
      rows: (h, 2) int: the first row of pixels that a row of units sees, and the one after the last.
      columns: (w, 2) int: the same for columns.
      size: (H, W).
    """

    rows: np.ndarray
    columns: np.ndarray
    size: tuple[int, int]

    def boxes(self) -> np.ndarray:
        """(h, w, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1 of all units."""
        rows, columns = self.rows / self.size[0], self.columns / self.size[1]
        corners = [np.meshgrid(rows[:, end], columns[:, end], indexing="ij") for end in (0, 1)]
        return np.stack([*corners[0], *corners[1]], axis=-1).astype(np.float32)


def receptive_fields(model: CamModel, size: tuple[int, int] | None = None) -> ReceptiveFields:
    """The receptive field of each unit of `model.features`, clipped to the image.

    Works on the CPU, in some dozens of forward passes of strips of an image.

    Args:
      model: has `features(images) -> (B, h, w, K)`; it is not changed. A layer that selects by a comparison, such as a
        rectifier written as `jnp.where(x > 0, x, 0)`, hides its inputs from this function; maxima and minima do not.
      size: (H, W) of the images; the model's input size if None.

    Returns:
      `ReceptiveFields`.

    Raises:
      ValueError: the network has no class activation maps, the images are too small for it, or the features of a black
        image are not finite.
    """
    num_classes(model)
    height, width = model.input_size if size is None else size
    size = height, width
    check_images(model, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
    smallest = getattr(model, "min_size", 1)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        leaves, structure = jax.tree.flatten(jax.device_get(model))

        def features(leaves, images):
            return inference_view(jax.tree.unflatten(structure, leaves)).features(images)

        @jax.jit
        def sees_nan(leaves, images):
            """(h, w) whether a unit sees a pixel that is NaN."""
            spreading = _spreading(jax.make_jaxpr(features)(leaves, images))
            return jnp.isnan(spreading(*leaves, images)[0][0]).any(-1)

        seen = functools.partial(sees_nan, leaves)
        # Rows do not depend on columns: the narrowest image is enough for them.
        strips = (size[0], min(smallest, size[1])), (min(smallest, size[0]), size[1])
        rows, columns = (_intervals(seen, strip, axis) for axis, strip in enumerate(strips))
    return ReceptiveFields(rows, columns, size)


def _intervals(seen: Callable[[np.ndarray], jax.Array], size: tuple[int, int], axis: int) -> np.ndarray:
    """(h, 2) the first row (axis 0) or column (axis 1) that units see, and the one after the last."""
    length = size[axis]
    if np.asarray(seen(np.zeros((1, *size, 3), np.float32))).any():
        raise InputError("the features of a black image are not finite: expected a network with finite weights.")

    def reached(count: int, from_end: bool) -> np.ndarray:
        """Whether units see any of the first, or last, `count` rows."""
        images = np.zeros((1, *size, 3), np.float32)
        lines = np.moveaxis(images, axis + 1, 0)
        lines[slice(length - count, None) if from_end else slice(count)] = np.nan
        return np.asarray(np.asarray(seen(images)).any(1 - axis))

    first = _fewest(lambda count: reached(count, False), length) - 1
    end = length - _fewest(lambda count: reached(count, True), length) + 1
    return np.stack([first, end], axis=1)


def _fewest(reached: Callable[[int], np.ndarray], most: int) -> np.ndarray:
    """The smallest count in 1..most at which each unit is reached, by bisection for all units together."""
    # One row is enough near the border, and everywhere in deep networks.
    now = reached(1)
    low, high = np.where(now, 0, 1), np.where(now, 1, most)
    while (open_ := np.flatnonzero(high - low > 1)).size:
        count = int((low[open_[0]] + high[open_[0]]) // 2)
        now = reached(count)
        high = np.where(now, np.minimum(high, count), high)
        low = np.where(now, low, np.maximum(low, count))
    return high


def _spreading(closed: ClosedJaxpr) -> Callable[..., list]:
    """The function of a jaxpr, changed so that NaN always spreads.

    On a CPU the maximum of a number and NaN may be either: a rectifier or a max pooling would hide its inputs. Maxima
    become sums here, which depend on the same pixels.
    """

    def function(*arguments):
        values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        values.update(zip(closed.jaxpr.invars, arguments, strict=True))

        def read(atom):
            return atom.val if isinstance(atom, Literal) else values[atom]

        for equation in closed.jaxpr.eqns:
            results = _evaluate(equation, [read(atom) for atom in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in closed.jaxpr.outvars]

    return function


def _evaluate(equation, inputs: list) -> list:
    """The results of one equation, see `_spreading`."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        # A choice between ways to compute the same on different platforms; the last one is for all platforms.
        return _spreading(params["branches"][-1])(*inputs[1:])
    for key in ("jaxpr", "call_jaxpr"):
        inner = params.get(key)
        if isinstance(inner, ClosedJaxpr) and name != "scan":
            return _spreading(inner)(*inputs)
    if name in _AS_SUMS and jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
        return [_AS_SUMS[name](*inputs, **params)]
    results = equation.primitive.bind(*inputs, **equation.primitive.get_bind_params(params))
    return results if equation.primitive.multiple_results else [results]


def _sum_of_window(operand, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    return jax.lax.reduce_window(
        operand,
        np.zeros((), operand.dtype),
        jax.lax.add,
        window_dimensions,
        window_strides,
        padding,
        base_dilation,
        window_dilation,
    )


_AS_SUMS: dict[str, Callable[..., Any]] = {
    "max": lambda a, b: a + b,
    "min": lambda a, b: a + b,
    "clamp": lambda low, x, high: low + x + high,
    "reduce_max": lambda operand, *, axes, **_: operand.sum(axes),
    "reduce_window_max": _sum_of_window,
}
