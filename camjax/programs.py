"""Traced programs as bytes, which JAX alone runs again: StableHLO in its portable form, and the types around it.

`jax.export` writes such a program with flatbuffers, a package that JAX does not install. Here the types are strings and
numbers, which any file can hold; the program's bytes are those of `jax.export`, and it makes them a function again.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.extend.mlir import deserialize_portable_artifact, ir, serialize_portable_artifact
from jax.extend.mlir.dialects import stablehlo

from camjax.errors import InputError

STABLEHLO = "1.13.0"
"""The version of StableHLO that programs are in: every JAX reads it that camjax supports. JAX itself takes a newer one,
of four weeks before its own release."""

ArrayType = tuple[str, str]
"""The shape of an array, as `jax.export.symbolic_shape` reads it, and its dtype: ("b, 224, 224, 3", "uint8")."""


class Program(NamedTuple):
    """A traced program.

    Attributes:
      code: StableHLO.
      arguments: types of its arguments.
      results: types of its results; their sizes may be expressions of those of the arguments.
      platforms: on which it runs.
      calling_convention: the version of JAX's rules for `code`.
    """

    code: bytes
    arguments: Sequence[ArrayType]
    results: Sequence[ArrayType]
    platforms: Sequence[str]
    calling_convention: int

    def function(self, *, on_any_platform: bool = False) -> Callable[..., list[jax.Array]]:
        """The program as a traceable function of its arguments, which returns its results.

        Args:
          on_any_platform: whether it runs on other platforms than those it was traced for, and JAX does not prepare
            itself for these.

        Raises:
          InputError: the code calls Python functions, which only a process can have that made them.
          Exception: the code is damaged, or in a version that is too new for this JAX.
        """
        if b"callback" in self.code:
            raise InputError("the program calls Python functions, which are not part of it: expected one by camjax.")
        with _stablehlo():
            deserialize_portable_artifact(self.code)
        scope = export.SymbolicScope()
        takes, gives = (
            [jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype) for shape, dtype in types]
            for types in (self.arguments, self.results)
        )

        def stand_in(*arguments):
            return jax.tree.map(jnp.zeros_like, gives)

        # With the types of the program, and other code.
        made = export.export(jax.jit(stand_in, keep_unused=True), platforms=self.platforms)(*takes)
        changes: dict[str, Any] = {"platforms": ()} if on_any_platform else {}
        if on_any_platform:
            changes["disabled_safety_checks"] = (export.DisabledSafetyCheck.platform(),)
        return dataclasses.replace(
            made,
            mlir_module_serialized=self.code,
            calling_convention_version=self.calling_convention,
            **changes,
        ).call


def traced(function: Callable[..., Any], *arguments: Any, platforms: Sequence[str] | None = None) -> Program:
    """Traces a function to a program.

    Args:
      function: of pytrees, which returns a pytree; the program takes and gives their leaves.
      *arguments: pytrees of arrays or of `jax.ShapeDtypeStruct`, whose sizes may be symbolic.
      platforms: as "cpu", "cuda", "rocm" and "tpu"; None for JAX's own here.
    """
    leaves, structure = jax.tree.flatten(arguments)

    def flat(*leaves):
        return jax.tree.leaves(function(*jax.tree.unflatten(structure, leaves)))

    with _without_places():
        exported = export.export(jax.jit(flat, keep_unused=True), platforms=platforms)(*leaves)
    takes, gives = (
        [(", ".join(map(str, aval.shape)), str(aval.dtype)) for aval in avals]
        for avals in (exported.in_avals, exported.out_avals)
    )
    with _stablehlo():
        code = serialize_portable_artifact(deserialize_portable_artifact(exported.mlir_module_serialized), STABLEHLO)
    return Program(code, takes, gives, exported.platforms, exported.calling_convention_version)


@contextlib.contextmanager
def _stablehlo() -> Iterator[None]:
    """Where StableHLO is read and written; what is wrong with it is raised, and not printed too."""
    with ir.Context() as context:
        stablehlo.register_dialect(context)
        context.attach_diagnostic_handler(lambda diagnostic: True)
        yield


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Leaves out of programs the lines of Python that their operations come from.

    They are paths of this machine, and of a function that JAX has traced before they are those of its first call.
    """
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
