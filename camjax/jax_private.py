"""What camjax takes from JAX without JAX's promise: the only file that says `jax._src`.

`tests/test_jax_private.py` says what to do when one of them has gone.
"""

import traceback
from types import TracebackType
from typing import Any


def in_cluster() -> bool:
    """Whether JAX can find the processes of a run by itself.

    What `jax.distributed.initialize` asks; its error does not tell this case from others.
    """
    from jax._src import clusters

    kinds = (kind for kind in clusters.ClusterEnv._cluster_types if not kind.opt_in_only_method)
    return any(kind.is_env_present() for kind in kinds)


def processes_in_cluster() -> int:
    """How many processes the cluster started together that JAX finds by itself; 1 without one."""
    from jax._src import clusters

    kinds = (kind for kind in clusters.ClusterEnv._cluster_types if not kind.opt_in_only_method)
    found = next((kind for kind in kinds if kind.is_env_present()), None)
    return found.get_process_count() if found else 1


def coordination_client() -> Any:
    """The connection of this process to the coordinator, by which processes tell each other texts under keys.

    `jax.experimental.multihost_utils` only has operations of all devices, which Gloo gives up after half an hour.
    """
    from jax._src import distributed

    return distributed.global_state.client


def compiles(trace: TracebackType | None) -> bool:
    """Whether an exception with this traceback came while JAX compiled a program."""
    return any(frame.f_globals.get("__name__") == "jax._src.compiler" for frame, _ in traceback.walk_tb(trace))
