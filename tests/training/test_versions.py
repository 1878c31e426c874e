"""Checkpoints outlive versions: of JAX, by runs that move between two environments, and of Orbax's API."""

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint
import pytest
from tiny_run import arrays

from camjax import checkpoints

OTHER = os.environ.get("CAMJAX_OTHER_PYTHON")
"""The Python of an environment with other versions, as `make test-latest` sets it."""

STEPS = 6


def run(python, run_dir, **options):
    """A run of `STEPS` steps, or one that ends before with an error."""
    root = Path(__file__).parents[2]
    # Flags that one jaxlib knows end another one's process.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(root), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    options |= {"run_dir": str(run_dir), "steps": STEPS, "checkpoint_every": 2}
    code = "import json, sys; from tests.training.tiny_run import main; main(json.loads(sys.argv[1]))"
    command = [python, "-c", code, json.dumps(options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def finish(python, run_dir):
    finished = run(python, run_dir)
    assert finished.returncode == 0, finished.stderr
    return json.loads((run_dir / "run_card.json").read_text())["wall_time"]["from_step"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The arrays at the end of a run that never stopped."""
    run_dir = tmp_path_factory.mktemp("unbroken")
    assert finish(sys.executable, run_dir) == 0
    return arrays(run_dir)


@pytest.mark.skipif(not OTHER, reason="no second environment: `make test-latest` after `make test` has one")
@pytest.mark.parametrize(("first", "second"), [(OTHER, sys.executable), (sys.executable, OTHER)], ids=["here", "there"])
def test_a_run_goes_on_with_other_versions(tmp_path, unbroken, first, second):
    """A checkpoint is restored to the bit (it has checksums), and the run goes on as if it had never stopped."""
    broken = run(first, tmp_path, breaks_after=36)
    assert "the disk is gone" in broken.stderr, broken.stderr
    assert finish(second, tmp_path) == 4
    moved = arrays(tmp_path)
    assert moved.keys() == unbroken.keys()
    for name, value in unbroken.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def test_orbax_still_has_what_checkpoints_use():
    tree = ast.parse(inspect.getsource(checkpoints))
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = sorted(chain for chain in chains if chain.split(".")[0] in ("ocp", "checkpoint_managers"))
    assert "ocp.CheckpointManager" in used

    def is_there(chain):
        thing = orbax.checkpoint
        for name in chain.removeprefix("ocp.").split("."):
            thing = getattr(thing, name, None)
        return thing is not None

    gone = [chain for chain in used if not is_there(chain)]
    assert not gone, (
        f"Orbax has no {', '.join(gone)} any more, but perhaps the API of its version 1. Write camjax/checkpoints.py, "
        "the only file that imports Orbax, with `training.Checkpointer` of that one, which reads the checkpoints that "
        "there are: Orbax's guide 'Orbax v0 to v1 Migration Guide' says how."
    )
