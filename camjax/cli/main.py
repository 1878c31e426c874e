"""The entry point of the command line: subcommands and version."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from tyro.extras import subcommand_cli_from_dict

import camjax
from camjax.cli.annotate import annotate
from camjax.cli.app import app
from camjax.cli.compare import compare
from camjax.cli.convert import convert
from camjax.cli.errors import run_command
from camjax.cli.evaluate import evaluate
from camjax.cli.explain import explain
from camjax.cli.export import export
from camjax.cli.models import models
from camjax.cli.prepare import prepare
from camjax.cli.train import train

DESCRIPTION = """Class activation mapping: what an image classifier sees, and where.

camjax COMMAND --help describes a command; camjax --version prints the version."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      args: the arguments after `camjax`; None for those of the process.

    Returns:
      The exit code: 0, 1 for an error that stderr describes, or 130 after Ctrl-C. Arguments that do not parse exit
      with 2.
    """
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        print(f"camjax {camjax.__version__}")
        return 0
    functions = (annotate, app, compare, convert, evaluate, explain, export, models, prepare, train)
    commands = {function.__name__: function for function in functions}
    words = args or ["--help"]
    with _current_directory_in_path():
        return run_command(
            "camjax", lambda: subcommand_cli_from_dict(commands, prog="camjax", description=DESCRIPTION, args=words)
        )


@contextlib.contextmanager
def _current_directory_in_path() -> Iterator[None]:
    """Lets `--model MODULE:NAME` and runs import a user's module from the current directory.

    The directory comes last in the path, so that no file in it hides an installed module.
    """
    directory = os.getcwd()
    sys.path.append(directory)
    try:
        yield
    finally:
        sys.path.remove(directory)


if __name__ == "__main__":
    sys.exit(main())
