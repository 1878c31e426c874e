"""Checkpoints of a training run: the only file that knows of Orbax."""

import os
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from orbax.checkpoint import checkpoint_managers

from camjax.models import CamModel
from camjax.training.step import TrainState

_KEEP_NEWEST = 2


class Checkpoints:
    """The checkpoints of one run, each a directory named by its step.

    Writing goes on in the background while training continues, under a temporary name until it is complete, so that a
    checkpoint that can be seen is whole. The newest two stay, and the best by accuracy.

    Use it as a context manager, or call `close`, which waits for the last checkpoint.

    Args:
      directory: made where it does not exist, unless read_only.
      read_only: for reading alone: nothing is made or changed, and saving is an error.
    """

    def __init__(self, directory: str | os.PathLike, *, read_only: bool = False):
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [
                    checkpoint_managers.LatestN(_KEEP_NEWEST),
                    checkpoint_managers.BestN(
                        get_metric_fn=lambda metrics: metrics["accuracy"], n=1, keep_checkpoints_without_metrics=False
                    ),
                ]
            ),
            # Not Orbax's read_only, which logs three warnings each time; nothing is written unless `save` is called.
            create=not read_only,
        )
        self._read_only = read_only
        self.directory = Path(directory).absolute()  # Orbax takes no other
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps that there are complete checkpoints of, in rising order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
        """Writes a checkpoint of model, optimizer, random state and step, in the background.

        Args:
          state: copied before this returns.
          metrics: of an evaluation of this state, among them "accuracy"; None where there was none.

        Raises:
          ValueError: opened with read_only.
        """
        if self._read_only:
            raise ValueError(f"{self.directory} was opened with read_only=True: open it without, to save.")
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(_to_tree(state.model)),
                optimizer=ocp.args.StandardSave(_to_tree(state.optimizer)),
            ),
            metrics=metrics,
            force=True,
        )

    def restore(self, state: TrainState, step: int | None = None) -> TrainState:
        """The state of a checkpoint.

        Args:
          state: of the same structure, whose values do not matter; left as it is.
          step: of the checkpoint, or None for the newest.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          ValueError: the checkpoint is of another model or optimizer.
        """
        trees = {"model": _to_tree(state.model), "optimizer": _to_tree(state.optimizer)}
        restored = self._restore(trees, step)
        return TrainState(
            _from_tree(state.model, restored["model"]), _from_tree(state.optimizer, restored["optimizer"])
        )

    def restore_model(self, model: CamModel, step: int | None = None) -> CamModel:
        """The model of a checkpoint, without the optimizer; arguments and errors as for `restore`.

        `model` may be abstract (`nnx.eval_shape`).
        """
        return _from_tree(model, self._restore({"model": _to_tree(model)}, step)["model"])

    def close(self) -> None:
        """Waits for checkpoints that are being written."""
        self._manager.close()

    def _restore(self, trees: dict, step: int | None):
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            there = f"there are {steps}" if steps else "there is none"
            wanted = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            raise FileNotFoundError(f"{self.directory}: expected {wanted}; {there}.")
        step = steps[-1] if step is None else step
        args = {name: ocp.args.StandardRestore(tree) for name, tree in trees.items()}
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.directory / str(step)} does not fit: it is of another model or optimizer, or damaged. "
                f"Orbax says: {error}"
            ) from error


def _to_tree(node) -> dict:
    """The arrays of a module as a nested dict of NumPy arrays (of shapes, where they are abstract).

    NumPy, because Orbax refuses device arrays that only one of several processes can address; the state is the same
    in all of them, and the first writes it.
    """
    return jax.tree.map(_to_numpy, nnx.to_pure_dict(nnx.state(node)))


def _to_numpy(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf) if _is_abstract(leaf) else jax.random.key_data(leaf)
    # Zeros, not the abstract value itself, for which Orbax would look for the devices that the array was saved from.
    return np.zeros(leaf.shape, leaf.dtype) if _is_abstract(leaf) else np.asarray(leaf)


def _from_tree(node, tree: dict):
    """A copy of `node` that holds the values of `tree`, a dict as `_to_tree` makes it."""
    state = nnx.to_pure_dict(nnx.state(node))
    state = jax.tree.map(_like, state, tree)
    node = nnx.clone(node)
    nnx.update(node, state)
    return node


def _like(leaf, value):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jax.numpy.asarray(value))
    return jax.numpy.asarray(value)


def _is_abstract(leaf) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)
