"""The types of options that several commands and experiments have: one placeholder and one default each."""

from pathlib import Path
from typing import Annotated

import tyro

from camjax.errors import InputError


def arg(metavar: str, default: bool = True):
    """An option with a placeholder for its value; `default=False` hides its default, which its sentence tells."""
    return tyro.conf.arg(metavar=metavar) if default else tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Count = Annotated[int, arg("N")]
Share = Annotated[float, arg("SHARE")]
Folder = Annotated[Path, arg("DIR")]
OptionalCount = Annotated[int | None, arg("N", default=False)]
OptionalRate = Annotated[float | None, arg("RATE", default=False)]
OptionalFolder = Annotated[Path | None, arg("DIR", default=False)]
OptionalPath = Annotated[Path | None, arg("PATH", default=False)]
OptionalName = Annotated[str | None, arg("NAME", default=False)]
Weights = Annotated[str | None, arg("FILE", default=False)]


def at_least_one(options: object, *names: str) -> None:
    """Raises ValueError for the first of the named options that is below 1; None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected at least 1.")
