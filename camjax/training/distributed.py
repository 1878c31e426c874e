"""Several processes that train together: how they find each other, and how all of them end when one does.

JAX's runtime does both. One process is the coordinator, to which all send heartbeats. When a process dies, because it
was killed or its machine broke, the others end too:

- if it is the coordinator, the others notice the closed connection at once;
- otherwise, the coordinator misses its heartbeats for `HEARTBEAT_SECONDS`, and ends all processes.

JAX ends a process by SIGABRT (exit code 134, or -6 in Python), with a message that names the tasks "that stopped
sending heartbeats". If a collective operation notices first, as Gloo does on CPU, the process gets an exception.

After an uncaught exception a process exits without waiting for the others, which may be waiting for it in a collective
operation; so they end within seconds, too.
"""

import os
import sys
import traceback

import jax

from camjax import jax_private
from camjax.errors import InputError

HEARTBEAT_SECONDS = 10
"""How long a process may be silent before it counts as dead. A thread of its own sends the heartbeats, so that a slow
step or a long evaluation does not stop them."""


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the processes of a run. Call it before any other function of JAX.

    Without arguments, JAX finds the processes by itself on Cloud TPU, Slurm, Open MPI and Kubernetes; elsewhere this
    process trains alone. A second call does nothing.

    Args:
      coordinator: host:port at which the others reach process 0; any free port.
      num_processes: number of processes.
      process_id: index of this process, 0..num_processes-1.

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
    if jax.distributed.is_initialized() or (missing and not jax_private.in_cluster()):
        return
    # The only collectives between processes on CPU; other platforms ignore it.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    if jax.process_count() > 1:
        sys.excepthook = _leave


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"coordinator={coordinator!r}: expected host:port, as '10.0.0.1:8476'.")
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise InputError(
            f"process_id={process_id} of num_processes={num_processes}: expected 0..num_processes-1, each once."
        )


def _leave(kind, error, trace) -> None:
    """Exits after an uncaught exception without waiting for the other processes, which may be waiting for this one."""
    traceback.print_exception(kind, error, trace)
    print(
        f"Process {jax.process_index()} of {jax.process_count()} ends with this error, and the others within "
        f"{HEARTBEAT_SECONDS} seconds. If it is the error of a collective operation (Gloo, NCCL, a barrier), another "
        "process has died first: look at its output. Start all processes again with the same commands to resume from "
        "the last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(1)
