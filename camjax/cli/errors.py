"""How a command ends: an error that people can do something about is one message, and a bug shows its traceback."""

import linecache
import signal
import sys
import traceback
from collections.abc import Callable

import jax

INTERRUPTED = 128 + signal.SIGINT
"""130: what a shell reports of a process that Ctrl-C ended."""

_OURS = ("camjax", "experiments")


def run_command(name: str, command: Callable[[], object]) -> int:
    """Runs a command of the command line, or an experiment.

    What can be done about is an error of the system (a file that is not there, no permission, no room), a package that
    is missing, an exception of a type of camjax's own, and a ValueError that this project's code raises: it is about
    what was given. A ValueError that comes out of another library is a bug of ours, as all else is.

    Args:
      name: of the command, in front of the message.
      command: runs without arguments; what it returns is of no account.

    Returns:
      The exit code: 0, 1 for an error that was printed, or `INTERRUPTED` after Ctrl-C.

    Raises:
      Exception: a bug. Where processes train together every error comes back, without its traceback if it is no bug:
        `camjax.training.initialize` has made it end the other processes too.
    """
    try:
        command()
    except Exception as error:
        if not _can_be_helped(error):
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


def _can_be_helped(error: Exception) -> bool:
    if isinstance(error, OSError | ImportError) or _top(type(error).__module__) == "camjax":
        return True
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    # JAX takes its own functions out of a traceback, and NumPy's are in C: who raised it is in the line.
    raised = linecache.getline(frame.f_code.co_filename, line).lstrip().startswith("raise")
    return isinstance(error, ValueError) and raised and _top(frame.f_globals.get("__package__") or "") in _OURS


def _top(module: str) -> str:
    return module.partition(".")[0]
