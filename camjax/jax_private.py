"""What camjax takes from JAX without JAX's promise: the only file that says `jax._src`.

`tests/test_jax_private.py` says what to do when one of them has gone.
"""

import traceback
from types import TracebackType
from typing import Any


def cluster() -> Any:
    """The class by which JAX can find the processes of a run by itself; None if there is none.

    What `jax.distributed.initialize` asks; its error does not tell this case from others.
    """
    from jax._src import clusters

    kinds = (kind for kind in clusters.ClusterEnv._cluster_types if not kind.opt_in_only_method)
    return next((kind for kind in kinds if kind.is_env_present()), None)


def coordinator() -> Any:
    """The connection of this process to the first one, once `jax.distributed.initialize` has been called."""
    from jax._src import distributed

    return distributed.global_state.client


def compiles(trace: TracebackType | None) -> bool:
    """Whether an exception with this traceback came while JAX compiled a program."""
    return any(frame.f_globals.get("__name__") == "jax._src.compiler" for frame, _ in traceback.walk_tb(trace))
