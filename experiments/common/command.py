"""How an experiment starts from the command line."""

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

from camjax.cli.errors import run_command

Options = TypeVar("Options")


def start(experiment: str, main: Callable[[Options], None], options: type[Options]) -> NoReturn:
    """Reads the options from the command line, runs the experiment, and exits.

    Args:
      experiment: its folder's name, as in `python -m experiments.NAME`.
      main: runs the experiment.
      options: a dataclass, whose docstring is the help.
    """
    program = f"python -m experiments.{experiment}"
    sys.exit(run_command(program, lambda: main(tyro.cli(options, prog=program))))
