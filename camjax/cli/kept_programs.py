"""Traced programs with their weights on disk: a command's second start neither builds its network nor traces it.

A file holds arrays and a program; reading it runs nothing. It counts as long as camjax's code, the versions, JAX's
settings and the files of weights stay the same. One that is damaged or out of date is made again.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from camjax.errors import InputError, reading
from camjax.files import whole_file
from camjax.programs import Program, traced

MOST_BYTES = 1 << 28
"""Of the arrays of a program that is kept, since each takes so much of the user's disk."""


_ABOUT = "about-"
_TYPES = ("arguments", "results", "platforms")


class KeptProgram(NamedTuple):
    """A function that is ready to run.

    Attributes:
      about: what was said of it.
      call: the function of its arguments after the arrays.
    """

    about: Mapping[str, np.ndarray]
    call: Callable[..., Any]


def kept_file(directory: Path, *name: str | int | None) -> Path:
    """The file of the program of that name; a program replaces an older one."""
    return directory / f"{_sha256(repr(name))[:32]}.npz"


def find_program(path: Path) -> KeptProgram | None:
    """The program that `keep_program` wrote; None if there is none that counts."""
    if not path.exists():
        return None
    try:
        with reading(path, "a program of camjax", "Delete it."), np.load(path) as file:
            if file["depends_on"].item() != _depends_on(map(Path, file["files"].tolist())):
                return None
            arguments, results, platforms = (file[f"program.{name}"].tolist() for name in _TYPES)
            code, convention = file["program"].tobytes(), file["program.calling_convention"].item()
            program = Program(code, arguments, results, platforms, convention)
            count = sum(name.isdecimal() for name in file)
            arrays = [file[str(i)] for i in range(count)]
            about = {name[len(_ABOUT) :]: file[name] for name in file if name.startswith(_ABOUT)}
            return _ready(about, program, jax.device_put(arrays))
    except (InputError, OSError):
        return None


def keep_program(
    path: Path | None,
    about: Mapping[str, np.ndarray],
    function: Callable[..., Any],
    arrays: Sequence[jax.Array],
    *examples: jax.ShapeDtypeStruct,
    files: Iterable[Path] = (),
) -> KeptProgram:
    """Makes a program, and keeps it for `find_program`.

    Args:
      path: from `kept_file`; None keeps nothing.
      about: what its users have to know: arrays of numbers or strings by name.
      function: (arrays, *arguments) -> a tuple of arrays; traceable.
      arrays: of NumPy's types.
      *examples: of the arguments.
      files: that the arrays come from.
    """
    if path is None or sum(array.nbytes for array in arrays) > MOST_BYTES:
        return KeptProgram(about, functools.partial(jax.jit(function), arrays))
    files = [file.absolute() for file in files]
    program = traced(function, arrays, *examples)
    content = {
        "depends_on": np.array(_depends_on(files)),
        "files": np.array([*map(str, files)], np.str_),
        "program": np.frombuffer(program.code, np.uint8),
        "program.calling_convention": np.array(program.calling_convention),
        **{f"program.{name}": np.array(getattr(program, name), np.str_) for name in _TYPES},
        **{f"{_ABOUT}{name}": value for name, value in about.items()},
        **{str(i): np.asarray(array) for i, array in enumerate(arrays)},
    }
    try:
        with whole_file(path, make_parent=True) as draft, draft.open("wb") as file:
            np.savez(file, **content)  # type: ignore[arg-type]  # for NumPy, any may be `allow_pickle`
    except OSError:
        pass  # such as a full disk: the next start makes it again
    # By way of what was kept, so that the next start finds the same program compiled.
    return _ready(about, program, arrays)


def _ready(about: Mapping[str, np.ndarray], program: Program, arrays: Sequence[jax.Array]) -> KeptProgram:
    # For a program that says that it is for CPUs, JAX imports SciPy's linear algebra, which none of these needs.
    run = program.function(on_any_platform=True)
    return KeptProgram(about, functools.partial(jax.jit(lambda arrays, *others: tuple(run(*arrays, *others))), arrays))


def _depends_on(files: Iterable[Path]) -> str:
    """A hash of all that a program depends on besides its name."""
    code = sorted(Path(__file__).parents[1].rglob("*.py"))
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in (*code, *files)]
    versions = [metadata.version(package) for package in ("jax", "jaxlib", "flax")]
    settings = sorted((name, str(value)) for name, value in jax.config.values.items())
    return _sha256(repr([stamps, versions, settings, export.default_export_platform()]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
