"""Ctrl-C while JAX computes or compiles: one hears of it, and the second one ends the process.

Python calls its signal handlers in the main thread, between two instructions. A computation that one waits for is a
single instruction, however long it takes. Without this, Ctrl-C would show nothing until its end.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax  # noqa: F401  before `_end_at_once` is registered, so that this is called before JAX waits for its threads

from camjax import jax_private

EXIT_CODE = 128 + signal.SIGINT
"""130: the exit code that a shell reports for a process that Ctrl-C ended."""

_PATIENCE = 0.5
"""How many seconds the main thread has to react by itself."""

_FILES = {-1}
"""Files to which Python writes signals, as `signal.set_wakeup_fd` returns them: none, and those of `announced`."""

_COMPILING = threading.Event()
"""Set when the process should end without the compilation that runs in JAX's threads."""


@contextlib.contextmanager
def announced(sentence: str) -> Iterator[None]:
    """Watches SIGINT and SIGTERM while the block runs, if Python handles them.

    If the block goes on for half a second after the first one, the sentence is printed to stderr. If it goes on for as
    long after a second SIGINT, the process ends with `EXIT_CODE`, except in an interactive session. A block inside
    takes over from the one around it. In another thread than the main one, and where asyncio has taken the signals,
    nothing is watched.

    Args:
      sentence: what happens next; the signal's name comes before it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    with receiver, sender:
        file = sender.fileno()
        before = signal.set_wakeup_fd(file, warn_on_full_buffer=False)
        watcher = threading.Thread(target=_watch, args=(receiver, sentence), daemon=True, name="interrupts")
        if before in _FILES:
            watcher.start()
            _FILES.add(file)
        else:
            signal.set_wakeup_fd(before)
        try:
            yield
        finally:
            if file in _FILES:
                signal.set_wakeup_fd(before)
                _FILES.remove(file)
                sender.shutdown(socket.SHUT_WR)
                watcher.join()


def _watch(receiver: socket.socket, sentence: str) -> None:
    """Reads the numbers of signals until the block ends."""
    interrupts, said, deadline = 0, False, None
    while True:
        receiver.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
        try:
            received = receiver.recv(1)
        except TimeoutError:
            deadline = None
            if interrupts > 1 and not hasattr(sys, "ps1"):
                print("SIGINT: ended at once.", file=sys.stderr, flush=True)
                os._exit(EXIT_CODE)
            if not said:
                print(sentence, file=sys.stderr, flush=True)
                said = True
            continue
        if not received:
            return
        number = received[0]
        interrupts += number == signal.SIGINT
        if number in (signal.SIGINT, signal.SIGTERM) and deadline is None:
            deadline = time.monotonic() + _PATIENCE
            sentence = sentence if said else f"{signal.Signals(number).name}: {sentence}"


def end_without_compilation(interrupt: KeyboardInterrupt) -> None:
    """Prepares the end of the process after an interrupt: a compilation that it left running is not waited for.

    JAX raises the interrupt, but compiles on in threads of its own. The interpreter would wait for them, and crash
    when they end (jaxlib 0.10).
    """
    if jax_private.compiles(interrupt.__traceback__):
        _COMPILING.set()


@atexit.register
def _end_at_once() -> None:
    if _COMPILING.is_set():
        sys.stdout.flush()
        os._exit(EXIT_CODE)
