"""A run in a process of its own, for tests that kill it: a network and data so small that starting is most of it."""

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from matplotlib.figure import Figure

from camjax.models import CamModel, ConvBN, PooledHead
from camjax.training import Checkpoints, Recipe, fit, run_card
from tests import processes

BATCH_SIZE = 8


class Net(CamModel):
    """Convolution, BatchNorm, dropout: all kinds of state that a checkpoint holds."""

    def __init__(self, dropout=0.2):
        super().__init__(input_size=(8, 8), stride=2, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.layer = ConvBN(3, 8, 3, 2, rngs=nnx.Rngs(1))
        self.head = PooledHead(8, 3, dropout=dropout, rngs=nnx.Rngs(2))

    def backbone(self, x):
        return self.layer(x)


class Colors:
    """Noise whose brightness tells its class. Reads take `wait` seconds, and fail after `breaks_after` of them."""

    def __init__(self, wait=0.0, breaks_after=None):
        self.reads, self.breaks_after = 0, breaks_after
        self.wait = wait

    def __len__(self):
        return 40

    def __getitem__(self, index):
        time.sleep(self.wait)
        self.reads += 1
        if self.breaks_after is not None and self.reads > self.breaks_after:
            raise ValueError("the disk is gone")
        rng = np.random.default_rng(index)
        image = rng.integers(0, 100, (8, 8, 3)) + 50 * (index % 3)
        return {"image": image.astype(np.uint8), "label": index % 3}


def tiny_recipe(steps, **changes) -> Recipe:
    return Recipe(**{"steps": steps, "batch_size": BATCH_SIZE, "learning_rate": 0.05, "warmup_steps": 2, **changes})


def arrays(run_dir) -> dict[str, np.ndarray]:
    """Everything in the newest checkpoint, as Orbax reads it without a model."""
    directory = Path(run_dir) / "checkpoints"
    with Checkpoints(directory, read_only=True) as checkpoints:
        step = checkpoints.steps()[-1]
    found = {"newest": np.array(step)}
    for item in ("model", "optimizer", "ema"):
        if (directory / str(step) / item).is_dir():
            tree = ocp.StandardCheckpointer().restore(directory / str(step) / item)
            leaves = jax.tree_util.tree_leaves_with_path(tree)
            found |= {item + jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return found


def main(options: dict) -> None:
    processes.join(options)
    run_card.curves_figure = lambda lines: Figure(figsize=(1, 1))  # as in conftest.py: a real one takes a second
    fit(
        Net(options.get("dropout", 0.2)),
        Colors(options.get("wait", 0.0), options.get("breaks_after")),
        tiny_recipe(options["steps"], **options.get("recipe", {})),
        run_dir=options["run_dir"],
        checkpoint_every=options.get("checkpoint_every", 5),
        log_every=1,
        num_threads=1,
        progress=False,
    )


def start(options: dict, log, function: Callable[[dict], None] = main) -> multiprocessing.Process:
    """Starts a function in a process of its own. Its output is appended to the file `log`."""
    return processes.start(function, options, log)
