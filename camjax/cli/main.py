"""The entry point of the command line: subcommands and version."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from tyro.extras import subcommand_cli_from_dict

import camjax
from camjax.cli.compare import compare
from camjax.cli.convert import convert
from camjax.cli.errors import run_command
from camjax.cli.evaluate import evaluate
from camjax.cli.explain import explain
from camjax.cli.models import models
from camjax.cli.prepare import prepare

DESCRIPTION = """Class activation mapping: what an image classifier sees, and where.

camjax COMMAND --help describes a command; camjax --version prints the version."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      args: the words behind `camjax`; those of the process if None.

    Returns:
      The exit code: 0, 1 for bad input, which is described on stderr, or 130 after Ctrl-C. Words that do not parse exit
      with 2.
    """
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        print(f"camjax {camjax.__version__}")
        return 0
    commands = {function.__name__: function for function in (compare, convert, evaluate, explain, models, prepare)}
    words = args or ["--help"]
    with _current_directory_in_path():
        return run_command(
            "camjax", lambda: subcommand_cli_from_dict(commands, prog="camjax", description=DESCRIPTION, args=words)
        )


@contextlib.contextmanager
def _current_directory_in_path() -> Iterator[None]:
    """For networks of one's own, which `--model MODULE:NAME` and runs import: their modules may lie where one works.

    Behind all that is installed, so that no file that happens to lie there stands in for it.
    """
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


if __name__ == "__main__":
    sys.exit(main())
