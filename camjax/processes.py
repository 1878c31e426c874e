"""Several processes that work on one thing together: how they join, tell each other results, and end.

JAX's runtime joins them. One process is the coordinator, to which all send heartbeats. When a process dies, because it
was killed or its machine broke, the others end too:

- if it is the coordinator, the others notice the closed connection at once;
- otherwise, the coordinator misses its heartbeats for `HEARTBEAT_SECONDS`, and ends all processes.

JAX ends a process by SIGABRT (exit code 134, or -6 in Python), with a message that names the tasks that stopped sending
heartbeats; a sentence of ours follows it. If a collective operation notices first, as Gloo does on CPU, the process
gets an exception.

After an uncaught exception a process exits without waiting for the others, which may be waiting for it in a collective
operation; so they end within seconds, too.
"""

import atexit
import functools
import itertools
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from camjax import jax_private
from camjax.errors import InputError

HEARTBEAT_SECONDS = 10
"""How long a process may be silent before it counts as dead. A thread of its own sends the heartbeats, so that a slow
step or a long evaluation does not stop them."""

_POLL_MS = 2000

# One count for all that the processes tell each other: they tell the same things in the same order.
_COUNT = itertools.count()

_T = TypeVar("_T")


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    preemption: bool = True,
) -> None:
    """Joins the processes of a run. Call it before any other function of JAX.

    Without arguments, JAX finds the processes by itself on Cloud TPU, Slurm, Open MPI and Kubernetes; elsewhere this
    process works alone. A second call does nothing.

    Args:
      coordinator: host:port at which the others reach process 0; any free port.
      num_processes: number of processes.
      process_id: index of this process, 0..num_processes-1.
      preemption: whether JAX keeps SIGTERM for `camjax.training.fit`, which then stops all processes after the same
        step. Without it, SIGTERM ends a process as usual, and the others with it.

    Raises:
      ValueError: some of the arguments without the others, or out of range.
      RuntimeError: JAX has been used already, or the processes did not find each other.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        present = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        raise InputError(
            f"{present} without {' and '.join(missing)}: give all three, or none on Cloud TPU, Slurm, Open MPI or "
            "Kubernetes, where they are found automatically."
        )
    if coordinator is not None and num_processes is not None and process_id is not None:
        _check(coordinator, num_processes, process_id)
    if jax.distributed.is_initialized() or (missing and jax_private.cluster() is None):
        return
    # The only collectives between processes on CPU; other platforms ignore it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", preemption)
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    if jax.process_count() > 1:
        sys.excepthook = functools.partial(_leave, _watched())


def started_in_many() -> bool:
    """Whether this process is one of several that Cloud TPU, Slurm, Open MPI or Kubernetes started together."""
    cluster = jax_private.cluster()
    return cluster is not None and cluster.get_process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that prints, and writes what is written once."""
    return jax.process_index() == 0


def in_first(function: Callable[[], _T]) -> _T:
    """Calls a function in the first process; the others wait for its result, however long it takes.

    Every process has to call it.

    Args:
      function: what only one process should do, or decide; returns JSON's types.

    Returns:
      The function's result, in all processes.
    """
    if jax.process_count() == 1:
        return function()
    key = f"camjax/{next(_COUNT)}"
    if is_first():
        jax_private.coordinator().key_value_set(key, json.dumps(function()))
    return json.loads(_told(key))


def gather(value: Any) -> list[Any]:
    """The values of all processes, in their order, of JSON's types; every process has to call it.

    A process waits for the others, however long they take.
    """
    if jax.process_count() == 1:
        return [value]
    key = f"camjax/{next(_COUNT)}"
    # Not by a collective operation: JAX would round 64-bit numbers to 32 on the way, and Gloo waits for half an hour.
    jax_private.coordinator().key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_told(f"{key}/{index}")) for index in range(jax.process_count())]


def gather_arrays(tree: Any) -> Any:
    """The arrays of all processes, of the same shapes, stacked along a new first axis; every process has to call it.

    Args:
      tree: arrays of at most 32 bits.

    Returns:
      The same pytree, NumPy.
    """
    if jax.process_count() == 1:
        return jax.tree.map(lambda array: np.asarray(array)[None], tree)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(jax.tree.map(np.asarray, tree), tiled=False)


def _told(key: str) -> str:
    """Waits for what a process tells the others under a key; in parts, so that Ctrl-C is heard."""
    while True:
        try:
            return jax_private.coordinator().blocking_key_value_get(key, _POLL_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"coordinator={coordinator!r}: expected host:port, as '10.0.0.1:8476'.")
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise InputError(
            f"process_id={process_id} of num_processes={num_processes}: expected 0..num_processes-1, each once."
        )


_AGAIN = "Start all processes again with the same commands: what is finished is kept, and the rest goes on."


def _watched() -> subprocess.Popen:
    """Starts a program of a line that says what to do if this process is killed, as JAX does when another one dies.

    JAX says which one it was, and leaves no time for a word of ours.
    """
    sentence = (
        f"Process {jax.process_index()} of {jax.process_count()} has ended before its work was done: it was killed, or "
        f"JAX ended it because another process had died, which the lines above name. {_AGAIN}"
    )
    # It waits until this process says a line, or is gone.
    program = ["sh", "-c", 'read -r line || echo "$0" >&2', sentence]
    watcher = subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=True)

    def leave() -> None:
        jax.distributed.shutdown()
        watcher.communicate(b"end\n")

    atexit.register(leave)
    return watcher


def _leave(watcher: subprocess.Popen, kind, error, trace) -> None:
    """Exits after an uncaught exception without waiting for the other processes, which may be waiting for this one."""
    traceback.print_exception(kind, error, trace)
    print(
        f"Process {jax.process_index()} of {jax.process_count()} ends with this error, and the others within "
        f"{HEARTBEAT_SECONDS} seconds. If it is the error of a collective operation (Gloo, NCCL, a barrier), another "
        f"process has died first: look at its output. {_AGAIN}",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    watcher.communicate(b"end\n")
    os._exit(1)
