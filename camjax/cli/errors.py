"""How a command ends: an error that the user can correct is one line, and a bug shows its traceback."""

import sys
from collections.abc import Callable

import jax

from camjax import interrupts
from camjax.errors import InputError
from camjax.processes import in_first


def run_command(name: str, command: Callable[[], object]) -> int:
    """Runs a command of the command line, or an experiment.

    Three kinds of errors are the user's to correct, and are printed as one line: `InputError`, an error of the
    operating system (a missing file, no permission, no space), and a package that is not installed. Any other
    exception is a bug.

    Args:
      name: of the command; the message begins with it.
      command: called without arguments; its result is ignored.

    Returns:
      The exit code: 0, 1 for an error that was printed, or 130 after Ctrl-C.

    Raises:
      Exception: a bug. Where several processes train together, every exception is raised again, one that the user can
        correct without its traceback: `camjax.training.initialize` then ends the other processes too.
    """
    try:
        with interrupts.announced(f"{name} ends after the computation that runs. Ctrl-C again ends it at once."):
            command()
            if jax.distributed.is_initialized():
                in_first(lambda: None)  # which may write for longer than JAX waits at the end
    except Exception as error:
        if not isinstance(error, InputError | OSError | ImportError):
            raise
        if jax.distributed.is_initialized():
            raise error.with_traceback(None) from None
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        if jax.distributed.is_initialized():
            raise interrupt.with_traceback(None) from None
        interrupts.end_without_compilation(interrupt)
        print(f"{name}: interrupted.", file=sys.stderr)
        return interrupts.EXIT_CODE
    return 0
