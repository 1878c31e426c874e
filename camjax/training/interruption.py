"""SIGTERM, SIGINT and preemption notices: a run saves where it stands before it leaves."""

import contextlib
import itertools
import os
import signal
import sys
import threading
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 128 + signal.SIGTERM
"""143: what a process that left because of SIGTERM exits with, as a shell reports it."""

# One count for all runs of a process: JAX's agreement is on a number that only ever grows.
_QUESTIONS = itertools.count(1)


class Interruption(contextlib.AbstractContextManager):
    """Turns signals into a question that a loop asks after each step.

    One process: SIGTERM, and the first SIGINT (Ctrl-C), are remembered; a second SIGINT interrupts at once. Signals
    reach Python's main thread alone: in another thread nothing is caught.

    Several processes: JAX's runtime catches SIGTERM in any of them, and preemption notices, and has all agree on the
    same step. SIGINT counts as SIGTERM there. For that, all processes ask equally often.
    """

    def __init__(self):
        self._signal: signal.Signals | None = None
        self._before = {}

    def __enter__(self) -> "Interruption":
        # JAX's runtime has its own handler of SIGTERM where there are several processes.
        caught = (signal.SIGINT,) if jax.process_count() > 1 else (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in caught}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether to save and leave now."""
        # True once, at the same question in all processes; always False where there is one process.
        if multihost_utils.reached_preemption_sync_point(next(_QUESTIONS)):
            self._signal = signal.SIGTERM
        return self._signal is not None

    def leave(self, message: str) -> NoReturn:
        """Ends the run after it has been saved.

        Args:
          message: what was saved, for stderr.

        Raises:
          KeyboardInterrupt: it was Ctrl-C.
          SystemExit: otherwise, with `EXIT_CODE`.
        """
        if jax.process_index() == 0:
            print(f"{self._signal.name}: {message}", file=sys.stderr, flush=True)
        if self._signal is signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(EXIT_CODE)

    def _handle(self, number: int, frame) -> None:
        if number == signal.SIGINT and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if number == signal.SIGINT and self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)
