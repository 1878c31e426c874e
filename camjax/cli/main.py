"""The entry point of the command line: subcommands, version, and errors in one line."""

import sys
from collections.abc import Sequence

from tyro.extras import subcommand_cli_from_dict

import camjax
from camjax.cli.convert import convert
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
      The exit code: 0, or 1 for bad input, which is described on stderr. Words that do not parse exit with 2.
    """
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        print(f"camjax {camjax.__version__}")
        return 0
    try:
        subcommand_cli_from_dict(
            {"convert": convert, "evaluate": evaluate, "explain": explain, "models": models, "prepare": prepare},
            prog="camjax",
            description=DESCRIPTION,
            args=args or ["--help"],
        )
    # What the library raises for bad input; anything else is a bug, and shows its traceback.
    except (ValueError, OSError, ImportError) as error:
        print(f"camjax: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
