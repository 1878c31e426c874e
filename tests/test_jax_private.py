"""Private names of JAX: each is still there and means the same, or the test says what to do."""

import jax
import pytest

from camjax import jax_private

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_NODES": "1",
}


def test_slurm_is_found(monkeypatch):
    try:
        before = jax_private.cluster() is not None
        for name, value in SLURM.items():
            monkeypatch.setenv(name, value)
        found = [before, jax_private.cluster() is not None]
    except (AttributeError, ImportError) as error:
        found = [repr(error)]
    assert found == [False, True], (
        "`jax.distributed.initialize` knows by other names whether it runs in a cluster. Read its source, and ask in "
        "`camjax.jax_private.cluster` what it asks; if JAX says it in public now, take that, and this test goes."
    )


def test_a_compilation_is_known_by_its_traceback():
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    with pytest.raises(Exception, match="no_such_option") as compiling:
        lowered.compile(compiler_options={"no_such_option": True})
    with pytest.raises(TypeError) as tracing:
        jax.jit(lambda x: x + 1).lower("1")
    traces = [error.value.__traceback__ for error in (compiling, tracing)]
    assert [jax_private.compiles(trace) for trace in traces] == [True, False], (
        "JAX compiles in another module than `jax._src.compiler`. Look at the traceback of `compiling`, and name the "
        "new one in `camjax.jax_private.compiles`; without it, Ctrl-C during a compilation may crash at exit."
    )
