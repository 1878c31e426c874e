"""SIGTERM, SIGINT and preemption notices: a run saves a checkpoint before it exits."""

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

import jax
from jax.experimental import multihost_utils

from camjax import interrupts

EXIT_CODE = 128 + signal.SIGTERM
"""143: the exit code after SIGTERM, as a shell reports it."""

# One count for all runs of a process, because JAX's processes agree on a number that must never decrease.
_COUNT = itertools.count(1)


_ANNOUNCEMENT = (
    "the run stops after the current step, which takes minutes if it is still compiled. Ctrl-C again ends it at once, "
    "without a checkpoint of this step."
)


_T = TypeVar("_T")


class _Requested(BaseException):
    """Ends a wait."""


class Interruption(contextlib.AbstractContextManager["Interruption"]):
    """Remembers signals, so that a loop can ask after each step whether to stop.

    With one process, SIGTERM and the first SIGINT (Ctrl-C) are remembered, and announced if the step is a long one; a
    second SIGINT interrupts at once. Python handles signals only in its main thread: in another thread nothing is
    caught.

    With several processes, JAX's runtime catches SIGTERM and preemption notices in any of them, and makes all agree on
    the same step; SIGINT counts as SIGTERM. This requires all processes to call `requested` equally often.
    """

    def __init__(self):
        self._signal: signal.Signals | None = None
        self._stack = contextlib.ExitStack()
        self._waiting = False

    def __enter__(self) -> "Interruption":
        # JAX's runtime has its own handler of SIGTERM where there are several processes.
        caught = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is threading.main_thread():
            for number in caught:
                self._stack.callback(signal.signal, number, signal.signal(number, self._handle))
            self._stack.enter_context(interrupts.announced(_ANNOUNCEMENT))
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def requested(self) -> bool:
        """Whether to save and leave now."""
        # True once, at the same call in all processes; always False with one process.
        if multihost_utils.reached_preemption_sync_point(next(_COUNT)):
            self._signal = signal.SIGTERM
        return self._signal is not None

    def unless_requested(self, wait: Callable[..., _T], *args) -> _T | None:
        """Returns `wait(*args)`, or None as soon as a signal comes; one that came before counts.

        A wait for data can last forever, and what is waited for is lost. With several processes it is waited for all
        the same, because they take the same steps.
        """
        if jax.process_count() > 1:
            return wait(*args)
        try:
            self._waiting = True
            if self._signal is not None:
                return None
            return wait(*args)
        except _Requested:
            return None
        finally:
            self._waiting = False

    def leave(self, message: str) -> NoReturn:
        """Ends the run after it has been saved; only when `requested` has returned True.

        Args:
          message: for stderr; says what was saved.

        Raises:
          KeyboardInterrupt: it was Ctrl-C. A script that does not catch it ends without a traceback.
          SystemExit: otherwise, with `EXIT_CODE`.
        """
        if self._signal is not None and jax.process_index() == 0:
            print(f"{self._signal.name}: {message}", file=sys.stderr, flush=True)
        if self._signal is signal.SIGINT:
            raise _without_traceback(KeyboardInterrupt())
        raise SystemExit(EXIT_CODE)

    def _handle(self, number: int, frame) -> None:
        if number == signal.SIGINT and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if number == signal.SIGINT and self._signal is not None:
            raise _without_traceback(KeyboardInterrupt())
        self._signal = signal.Signals(number)
        if self._waiting:
            self._waiting = False
            raise _Requested


def _without_traceback(interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
    """The interrupt, made to end a program without a traceback: it was asked for, and says nothing about the code."""
    before = sys.excepthook

    def hook(kind, error, trace) -> None:
        if error is interrupt:
            interrupts.end_without_compilation(interrupt)
        else:
            before(kind, error, trace)

    sys.excepthook = hook
    return interrupt
