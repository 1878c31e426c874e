"""Traced functions as plain operations, for converters that know JAX's own and no platforms."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_INSIDE = ("jaxpr", "call_jaxpr", "fun_jaxpr", "program")
"""Parameters of operations that only stand for the program in them."""


def plain(function: Callable[..., Any], *examples: Any) -> Callable[..., list[jax.Array]]:
    """A function that does the same with JAX's elementary operations and loops.

    Of forms for several platforms it has the one that is right on all others. Compiled functions inside, functions with
    derivatives of their own, and the products of `camjax.models.bilinear` are written out.

    Args:
      function: of arrays, which returns a pytree.
      *examples: of the arguments, as for `jax.make_jaxpr`; sizes may be symbolic.

    Returns:
      A traceable function of the same arguments, which returns the leaves.
    """
    program = jax.make_jaxpr(function)(*examples)
    return lambda *arguments: _run(program, arguments)


def _pad(array, value, *, padding_config):
    """`lax.pad` by concatenation."""
    for axis, (low, high, inside) in enumerate(padding_config):
        if inside or not all(is_symbolic_dim(count) or count >= 0 for count in (low, high)):
            return lax.pad_p.bind(array, value, padding_config=padding_config)
        before, after = (
            lax.broadcast_in_dim(value, (*array.shape[:axis], count, *array.shape[axis + 1 :]), ())
            for count in (low, high)
        )
        parts = [part for part, count in ((before, low), (array, 1), (after, high)) if is_symbolic_dim(count) or count]
        array = lax.concatenate(parts, axis) if len(parts) > 1 else array
    return array


def _windows(combine: Callable, empty: float) -> Callable:
    """A reduction over windows, as one over the images that are shifted to each place of a window."""

    def of_places(array, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
        if {*base_dilation, *window_dilation} != {1}:
            raise NotImplementedError("a pooling with dilation")
        config = tuple((low, high, 0) for low, high in padding)
        padded = _pad(array, np.array(empty, array.dtype), padding_config=config)
        spans = [
            (side - size) // stride * stride + 1
            for side, size, stride in zip(padded.shape, window_dimensions, window_strides, strict=True)
        ]
        places = itertools.product(*map(range, window_dimensions))
        parts = (
            lax.slice(padded, place, [at + span for at, span in zip(place, spans, strict=True)], window_strides)
            for place in places
        )
        return functools.reduce(combine, parts)

    return of_places


def _scatter(scatter: Callable) -> Callable:
    """A scatter along the last axis, for each of the others at its own indices, as one into all of the numbers.

    And one that adds a window at a constant place, as gradients of an index or a slice do, as a sum.
    """

    def along_last_axis(array, indices, updates, *, dimension_numbers, mode, **params):
        if scatter is lax.scatter_add and isinstance(indices, np.ndarray) and indices.ndim == 1:
            window = lax.expand_dims(updates, dimension_numbers.inserted_window_dims)
            config = [(0, 0, 0)] * array.ndim
            for axis, low in zip(dimension_numbers.scatter_dims_to_operand_dims, indices.tolist(), strict=True):
                config[axis] = (low, array.shape[axis] - low - window.shape[axis], 0)
            return lax.add(array, _pad(window, np.array(0, window.dtype), padding_config=config))
        *lead, length = array.shape
        last = (array.ndim - 1,)
        if dimension_numbers.scatter_dims_to_operand_dims != last or updates.shape[:-1] != array.shape[:-1]:
            raise NotImplementedError(f"{scatter.__name__} of arrays of shapes {array.shape} and {updates.shape}")
        places = lax.squeeze(indices, (-1,))
        places = lax.broadcast_in_dim(places, updates.shape, (*dimension_numbers.operand_batching_dims, *last))
        rows, step = lax.full(updates.shape, 0, places.dtype), length
        for axis in reversed(range(len(lead))):
            rows, step = rows + step * lax.broadcasted_iota(places.dtype, updates.shape, axis), step * lead[axis]
        numbers = lax.ScatterDimensionNumbers((), (0,), (0,))
        places, updates = lax.reshape(places + rows, (updates.size, 1)), lax.reshape(updates, (updates.size,))
        return lax.reshape(scatter(lax.reshape(array, (step,)), places, updates, numbers, mode=mode), array.shape)

    return along_last_axis


_OTHERS: dict[str, Callable[..., Any]] = {
    "pad": _pad,
    "reduce_window_max": _windows(lax.max, -np.inf),
    "reduce_window_sum": _windows(lax.add, 0),
    "scatter-add": _scatter(lax.scatter_add),
    "scatter-min": _scatter(lax.scatter_min),
}
"""Operations that jax2onnx converts in another form, or with a constant batch alone."""


def _run(program: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    jaxpr: Jaxpr = program.jaxpr
    values = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        results = _results(equation, [value(atom) for atom in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _results(equation: Any, inputs: list[Any]) -> list[Any]:
    primitive, params = equation.primitive, dict(equation.params)
    if primitive.name == "platform_index":
        return [np.int32(params["platforms"].index(None))]
    if primitive.name == "cond" and isinstance(inputs[0], np.integer):
        return _run(params["branches"][int(inputs[0])], inputs[1:])
    if primitive.name not in ("scan", "while", "cond") and (inside := {*_INSIDE} & params.keys()):
        program = params[inside.pop()]
        if isinstance(program, Jaxpr):
            program = ClosedJaxpr(program, ())
        return _run(program, inputs)
    for name, program in params.items():
        if isinstance(program, ClosedJaxpr):
            params[name] = _plain_program(program)
        elif name == "branches":
            params[name] = tuple(map(_plain_program, program))
    if primitive.name in _OTHERS:
        return [_OTHERS[primitive.name](*inputs, **params)]
    if inputs and not any(isinstance(value, jax.core.Tracer) for value in inputs) and _is_small(equation):
        with jax.ensure_compile_time_eval():  # the places of windows
            return [np.asarray(primitive.bind(*inputs, **params))]
    results = primitive.bind(*inputs, **params)
    return list(results) if primitive.multiple_results else [results]


def _is_small(equation: Any) -> bool:
    """Whether its result is one array of a few numbers."""
    shapes = [variable.aval.shape for variable in equation.outvars]
    return len(shapes) == 1 and not any(map(is_symbolic_dim, shapes[0])) and np.prod(shapes[0]) <= 8


def _plain_program(program: ClosedJaxpr) -> ClosedJaxpr:
    """The program of a loop's body or of a branch, with constants as they were."""
    return jax.make_jaxpr(lambda *arguments: _run(program, arguments))(*program.in_avals)
