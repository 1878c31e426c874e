"""How a command ends: an error that the user can correct is one line, and a bug shows its traceback."""

import linecache
import signal
import sys
import traceback
from collections.abc import Callable

import jax

from camjax.errors import InputError

INTERRUPTED = 128 + signal.SIGINT
"""130: the exit code that a shell reports for a process that Ctrl-C ended."""


def run_command(name: str, command: Callable[[], object]) -> int:
    """Runs a command of the command line, or an experiment.

    Three kinds of errors are the user's to correct, and are printed as one line: `InputError`, an error of the
    operating system (a missing file, no permission, no space), and a package that is not installed. Any other
    exception is a bug.

    Args:
      name: of the command; the message begins with it.
      command: called without arguments; its result is ignored.

    Returns:
      The exit code: 0, 1 for an error that was printed, or `INTERRUPTED` after Ctrl-C.

    Raises:
      Exception: a bug. Where several processes train together, every exception is raised again, one that the user can
        correct without its traceback: `camjax.training.initialize` then ends the other processes too.
    """
    try:
        command()
    except Exception as error:
        if not _is_for_the_user(error):
            raise
        if jax.distributed.is_initialized():
            raise error.with_traceback(None) from None
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        if jax.distributed.is_initialized():
            raise interrupt.with_traceback(None) from None
        print(f"{name}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _is_for_the_user(error: Exception) -> bool:
    if _is_raised_by_our_line(error):  # TODO: remove, with the function, once camjax raises no plain ValueError
        return True
    return isinstance(error, InputError | OSError | ImportError)


def _is_raised_by_our_line(error: Exception) -> bool:
    """Whether it is of a type of camjax's own, or a line of camjax or of the experiments raises this ValueError."""
    if type(error).__module__.partition(".")[0] == "camjax":
        return True
    *_, (frame, number) = traceback.walk_tb(error.__traceback__)
    # JAX takes its own functions out of a traceback, and NumPy's are in C: the line itself says who raised.
    raises = linecache.getline(frame.f_code.co_filename, number).lstrip().startswith("raise")
    package = (frame.f_globals.get("__package__") or "").partition(".")[0]
    return isinstance(error, ValueError) and raises and package in ("camjax", "experiments")
