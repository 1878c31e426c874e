"""Several processes that train together: how they find each other, and how all end when one of them does.

JAX's own runtime does both. One process is the coordinator; each sends it heartbeats. A process that dies, by a kill
or a broken machine, ends the others:

- the coordinator dies: the others notice the closed connection at once;
- another one dies: the coordinator misses its heartbeats for `HEARTBEAT_SECONDS`, and ends all.

JAX ends a process by SIGABRT (exit code 134, or -6 in Python), with a message that names the tasks "that stopped
sending heartbeats". Where a collective operation notices first (Gloo on CPU does), it is an exception instead.

A process that ends by an uncaught exception leaves without waiting for the others, which would wait for it in a
collective operation; so they end within seconds as well.
"""

import os
import sys
import traceback

import jax
from jax._src import clusters

HEARTBEAT_SECONDS = 10
"""How long a process may be silent before it counts as dead. Its heartbeats come from a thread of their own: a slow
step, a long evaluation or a busy Python does not stop them."""


def initialize(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the processes of a run; to be called before anything else of JAX.

    Without arguments, JAX finds out on Cloud TPU, Slurm, Open MPI and Kubernetes; elsewhere nothing happens, and the
    process trains on its own. Called again, it does nothing.

    Args:
      coordinator: host:port of process 0, as all others reach it; the port is any free one.
      num_processes: how many there are.
      process_id: which of them this is, 0..num_processes-1.

    Raises:
      ValueError: some of the arguments without the others, or out of range.
      RuntimeError: JAX has been used already, so that it is too late; or the processes did not find each other.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        there = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
        raise ValueError(
            f"{there} without {' and '.join(missing)}: give all three, or none on Cloud TPU, Slurm, Open MPI or "
            "Kubernetes, where they are found automatically."
        )
    if not missing:
        _check(coordinator, num_processes, process_id)
    if jax.distributed.is_initialized() or (missing and not _in_cluster()):
        return
    # Two CPU processes have no other way to sum up; of no account on accelerators.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    if jax.process_count() > 1:
        sys.excepthook = _leave


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"coordinator={coordinator!r}: expected host:port, as '10.0.0.1:8476'.")
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise ValueError(
            f"process_id={process_id} of num_processes={num_processes}: expected 0..num_processes-1, each once."
        )


def _in_cluster() -> bool:
    """Whether JAX can find out about the processes by itself."""
    # Not public, but the question that `jax.distributed.initialize` asks; it answers by an error that others share.
    kinds = (kind for kind in clusters.ClusterEnv._cluster_types if not kind.opt_in_only_method)
    return any(kind.is_env_present() for kind in kinds)


def _leave(kind, error, trace) -> None:
    """Ends this process after an uncaught exception: an orderly end would wait for the others, and they for it."""
    traceback.print_exception(kind, error, trace)
    print(
        f"Process {jax.process_index()} of {jax.process_count()} ends with this error, and the others follow within "
        f"{HEARTBEAT_SECONDS} seconds. If it is the error of a collective operation (Gloo, NCCL, a barrier), another "
        "process has died first: look at its output. Start all processes again with the same commands, and they go "
        "on from the last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(1)
