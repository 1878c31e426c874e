"""How an experiment starts from the command line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import tyro

from camjax.addresses import local_path
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
    config = (tyro.conf.FlagCreatePairsOff,)  # --sample, without --no-sample
    sys.exit(run_command(program, lambda: main(_checked(tyro.cli(options, prog=program, config=config)))))


def _checked(options: Options) -> Options:
    """The options; raises InputError for an address where the experiment takes only folders and files."""
    for name, value in vars(options).items():
        if isinstance(value, Path) and name not in getattr(options, "TAKE_ADDRESSES", ()):
            local_path(value, f"--{name.replace('_', '-')}")
    return options
