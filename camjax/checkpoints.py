"""Checkpoints of a training run: the only file that imports Orbax."""

import contextlib
import errno
import functools
import glob
import itertools
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint import options as orbax_options
from orbax.checkpoint._src.serialization import tensorstore_utils

from camjax.addresses import as_path, is_address, make_folder, move_folder
from camjax.errors import InputError, printable, reading
from camjax.models import CamModel
from camjax.weights.fingerprint import tree_sha256

_KEEP_NEWEST = 2
KEPT = _KEEP_NEWEST + 1
"""How many checkpoints a run keeps at most: the newest two, and the best."""


class TrainingError(InputError, RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class TrainingState(Protocol):
    """What `Checkpoints` saves and restores: `camjax.training.TrainState`, a NamedTuple of modules, or of None."""

    @property
    def ema(self) -> CamModel | None:
        """The model with averaged weights."""

    @property
    def step(self) -> jax.Array:
        """() integer: the number of steps taken."""

    def _asdict(self) -> dict[str, Any]: ...


State = TypeVar("State", bound=TrainingState)
_Restored = TypeVar("_Restored")

_PARTS = ("model", "optimizer", "ema")
"""The items of a checkpoint, which are the fields of a `TrainState`; a run without averaged weights has no "ema"."""

_CHECKSUMS = "sha256"
"""The item of a checkpoint that has the SHA-256 of each other item. Checkpoints of an older camjax have none."""


def _is_said(record: logging.LogRecord) -> bool:
    """Whether a line of Orbax's log is shown: no error that it also raises, nor that a checkpoint has no metrics."""
    needless = record.levelno >= logging.ERROR or "did not provide metrics" in str(record.msg)
    return "orbax" not in record.pathname or not needless


logging.getLogger("absl").addFilter(_is_said)


_COMMIT_FILE = orbax_options.AtomicityOptions(mode=orbax_options.AtomicityMode.COMMIT_FILE)


def _with_s3(build: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Makes Orbax's description of where TensorStore keeps arrays know `s3://`; Orbax itself knows `gs://` only.

    It can go once Orbax writes to `s3://`: https://github.com/google/orbax/pull/2739.
    """

    def on_s3(spec: Any) -> Any:
        if not isinstance(spec, dict):
            return spec
        if spec.get("driver") not in ("gcs", "gcs_grpc"):
            return {name: on_s3(value) for name, value in spec.items()}
        spec = {**spec, "driver": "s3"}
        # TensorStore reads neither of these variables of the AWS tools.
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            spec |= {"endpoint": endpoint, "aws_region": region}
        if "AWS_ACCESS_KEY_ID" in os.environ:  # otherwise it logs each other place where it looks in vain
            spec["aws_credentials"] = {"type": "environment"}
        return spec

    @functools.wraps(build)
    def build_with_s3(directory: str, *args, **kwargs) -> dict[str, Any]:
        if not (found := re.match("s3:/+", directory)):
            return build(directory, *args, **kwargs)
        return on_s3(build(f"gs://{directory[found.end() :]}", *args, **kwargs))

    return build_with_s3


tensorstore_utils.build_kvstore_tspec = _with_s3(tensorstore_utils.build_kvstore_tspec)


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which does not ask JAX about preemption: `camjax.training.interruption` does.

    JAX's processes agree on the step to stop at by counting steps; Orbax would count from another thread as well.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


def metric_to_compare(metrics: Mapping[str, float], prefix: str = "") -> str:
    """The metric by which evaluations are compared: the mean average precision if there is one, else the accuracy."""
    precision = f"{prefix}mean_average_precision"
    return precision if precision in metrics else f"{prefix}accuracy"


def _compared(metrics: Mapping[str, float]) -> float:
    return metrics[metric_to_compare(metrics)]


class Checkpoints:
    """The checkpoints of one run, each a directory named by its step.

    A checkpoint is written in the background while training continues. It has a temporary name until it is complete,
    and what a killed process leaves under such a name is removed before the next checkpoint is written. The newest two
    checkpoints are kept, and the best one by `metric_to_compare`.

    In a bucket there are no temporary names: a checkpoint is complete once it has `commit_success.txt`, which is
    written last.

    A checkpoint has checksums of its arrays, which are compared on reading: a damaged one is an error, or, where the
    newest is asked for, a warning and the one before.

    Several processes open, save and restore together. The first one writes and all of them read, so all of them have
    to see the directory.

    Use it as a context manager, or call `close`, which waits for the last checkpoint.

    Args:
      directory: a folder, or an address of a bucket; created if it does not exist, unless read_only.
      read_only: create and change nothing; `save` is an error.
    """

    def __init__(self, directory: str | os.PathLike, *, read_only: bool = False):
        directory = as_path(directory)
        in_bucket = is_address(directory)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [
                    checkpoint_managers.LatestN(_KEEP_NEWEST),
                    checkpoint_managers.BestN(
                        get_metric_fn=_compared,
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            best_fn=_compared,  # or Orbax would forget the metrics when the process ends
            # Not Orbax's read_only, which logs three warnings each time; nothing is written unless `save` is called.
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            # Orbax does so by itself for gs://; elsewhere it renames a folder, which no bucket does in one step.
            atomicity_options=_COMMIT_FILE if in_bucket else None,
        )
        self._read_only = read_only
        self.directory = directory if in_bucket else directory.absolute()
        if not read_only:
            make_folder(self.directory)
        self._stack = contextlib.ExitStack()
        # By name, since Orbax finds the handlers of saved items only after the first call that saves or restores one.
        handlers: dict[str, ocp.CheckpointHandler] = {name: ocp.StandardCheckpointHandler() for name in _PARTS}
        handlers[_CHECKSUMS] = ocp.JsonCheckpointHandler()
        path = self._stack.enter_context(_without_wildcards(self.directory))
        self._stack.enter_context(_closed_loops_unsaid())
        self._manager = _Manager(path, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps of the complete checkpoints, in rising order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainingState, metrics: dict[str, float] | None = None) -> None:
        """Writes a checkpoint of model, optimizer, averaged weights, random state and step, in the background.

        Args:
          state: copied before this returns.
          metrics: of an evaluation of this state, among them "accuracy"; None if it was not evaluated. A checkpoint of
            this step that lacks them is replaced; otherwise one that exists stays.

        Raises:
          ValueError: opened with read_only.
          TrainingError: a parameter or statistic is not finite; nothing is written.
          OSError: the previous checkpoint could not be written.
        """
        if self._read_only:
            raise InputError(f"{self.directory} was opened with read_only=True: open it without, to save.")
        step = int(state.step)
        if step in self._manager.all_steps():
            if metrics is None or self.has_metrics(step):
                return
            self._manager.delete(step)
        trees = {name: _to_tree(part) for name, part in _parts(state).items()}
        if not _is_finite(trees["model"]):
            raise TrainingError(
                f"The model has parameters or statistics that are not finite after step {step}: training has diverged. "
                "Start again with a lower learning rate or a longer warm-up; the last good checkpoint stays."
            )
        args: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        args[_CHECKSUMS] = ocp.args.JsonSave({name: tree_sha256(tree) for name, tree in trees.items()})
        with self._writing():
            self._manager.save(step, args=ocp.args.Composite(**args), metrics=metrics, force=True)

    def has_metrics(self, step: int) -> bool:
        """Whether the checkpoint of a `step` was saved with metrics."""
        return (self.directory / str(step) / "metrics").is_dir()

    def restore(self, state: State, step: int | None = None) -> State:
        """The state of a checkpoint, on any number of devices.

        Args:
          state: of the same structure; its values do not matter and stay as they are. If it has averaged weights and
            the checkpoint has none, the average starts from the checkpoint's weights.
          step: of the checkpoint, or None for the newest that is not damaged; a warning names those that are.

        Raises:
          FileNotFoundError: the checkpoint does not exist.
          ValueError: the checkpoint is of another model or optimizer, or damaged.
        """

        def restore(step: int) -> State:
            parts = {name: part for name, part in _parts(state).items() if self._has(step, name)}
            trees = self._restore(parts, step)
            restored = {name: _from_tree(part, trees[name]) for name, part in parts.items()}
            if state.ema is not None and "ema" not in restored:
                restored["ema"] = _from_tree(state.ema, trees["model"])
            return type(state)(**restored)

        return self._newest_that_fits(restore, step)

    def restore_model(self, model: CamModel, step: int | None = None) -> CamModel:
        """The model of a checkpoint, with its averaged weights if it has any.

        Args:
          model: of the same structure; it may be abstract (`nnx.eval_shape`).
          step: as in `restore`.

        Raises:
          FileNotFoundError: as `restore`.
          ValueError: as `restore`.
        """

        def restore(step: int) -> CamModel:
            name = "ema" if self._has(step, "ema") else "model"
            return _from_tree(model, self._restore({name: model}, step)[name])

        return self._newest_that_fits(restore, step)

    def set_aside(self, after: int) -> list[Path]:
        """Moves the checkpoints after a step out of the way, for a run that goes on from that step.

        Args:
          after: the step.

        Returns:
          Where they are now: beside the directory, with ".damaged" in the name.
        """
        name = f"{self.directory.name}.damaged"
        moved = {step: _unused(self.directory.with_name(f"{name}-{step}")) for step in self.steps() if step > after}
        if moved:
            multihost_utils.sync_global_devices("every process has seen the checkpoints")
            if jax.process_index() == 0:
                for step, path in moved.items():
                    move_folder(self.directory / str(step), path)
            multihost_utils.sync_global_devices("the checkpoints are moved")
            self._manager.reload()
        return list(moved.values())

    def wait(self) -> None:
        """Waits for the checkpoint that is being written.

        Raises:
          OSError: it could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends Orbax's threads."""
        with self._stack, self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises an OSError that says why a checkpoint could not be written, in place of the errors of Orbax."""
        try:
            yield
        except Exception as error:
            reason = os.strerror(errno.ENOSPC) if "No space left" in str(error) else printable(error)
            raise OSError(
                f"A checkpoint could not be written to {self.directory}: {reason}. The ones before stay; the same "
                "command continues from the newest."
            ) from error

    def _newest_that_fits(self, restore: Callable[[int], _Restored], step: int | None) -> _Restored:
        """What `restore` returns for a step, or for None of the newest checkpoint for which it raises no ValueError.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          ValueError: of `restore`, for the step or, where none fits, for the newest checkpoint.
        """
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            found = f"there are {steps}" if steps else "there is none"
            wanted = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            raise FileNotFoundError(f"{self.directory}: expected {wanted}; {found}.")
        errors: list[InputError] = []
        for candidate in steps[::-1] if step is None else [step]:
            try:
                restored = restore(candidate)
            except InputError as error:
                errors.append(error)
                continue
            except FileNotFoundError as error:
                errors.append(InputError(f"{self.directory / str(candidate)} lacks a file: {error}."))
                continue
            for damaged in errors:
                warnings.warn(f"{damaged} The checkpoint of step {candidate} is used in its place.", stacklevel=3)
            return restored
        raise errors[0]

    def _has(self, step: int, name: str) -> bool:
        """Whether a checkpoint has a part. Only averaged weights may be missing; else restoring fails."""
        return name != "ema" or (self.directory / str(step) / name).is_dir()

    def _restore(self, parts: dict[str, nnx.Module], step: int) -> dict[str, dict]:
        """The arrays of parts of a checkpoint, by their names; ValueError if they do not fit, or are damaged."""
        path = self.directory / str(step)
        advice = "Restore this folder from a copy, or delete it to go on from the checkpoint before."
        with reading(path, "a whole checkpoint", advice):
            metadata = self._manager.item_metadata(step)
            stored = {name: _shapes(metadata[name].tree) for name in parts}
        # Compared before anything is allocated in these shapes.
        for name, part in parts.items():
            expected = _shapes(nnx.to_pure_dict(nnx.state(part)))
            if keys := [key for key in {**expected, **stored[name]} if expected.get(key) != stored[name].get(key)]:
                lines = [f"{key} is {stored[name].get(key)}, expected {expected.get(key)}" for key in keys[:3]]
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                raise InputError(
                    f"{path} does not fit: its {name} is of another model or optimizer: {'; '.join(lines)}{more}."
                )
        args: dict[str, Any] = {name: ocp.args.StandardRestore(_to_tree(part)) for name, part in parts.items()}
        if (path / _CHECKSUMS).is_dir():
            args[_CHECKSUMS] = ocp.args.JsonRestore()
        with reading(path, "a whole checkpoint", advice):
            trees = self._manager.restore(step, args=ocp.args.Composite(**args))
            for name in parts:
                if _CHECKSUMS in args and tree_sha256(trees[name]) != trees[_CHECKSUMS][name]:
                    raise InputError(f"{path} is damaged: the arrays of its {name} are not those saved. {advice}")
        return {name: trees[name] for name in parts}


@contextlib.contextmanager
def _without_wildcards(directory: Path) -> Iterator[Path]:
    r"""A path to a directory without `*`, `?`, `[` and `\`, which Orbax takes for patterns and so finds no files."""
    if is_address(directory) or (not glob.has_magic(str(directory)) and "\\" not in str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="camjax-") as folder:
        link = Path(folder, "checkpoints")
        link.symlink_to(directory, target_is_directory=True)
        yield link


@contextlib.contextmanager
def _closed_loops_unsaid() -> Iterator[None]:
    """Leaves out what Python says of Orbax's event loop when a write has failed, which is an error of its own."""
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def checkpoint_bytes(state: TrainingState) -> int:
    """The size of a checkpoint before Orbax compresses it. The state may be abstract (`jax.eval_shape`)."""
    shapes = jax.eval_shape(lambda: _parts(state))
    return sum(leaf.nbytes for part in shapes.values() for leaf in jax.tree.leaves(_to_tree(part)))


def _parts(state: TrainingState) -> dict:
    """The modules of a state by the names that they have in a checkpoint."""
    return {name: part for name, part in state._asdict().items() if part is not None}


def _is_finite(tree: dict) -> bool:
    """Whether no floating-point array, of any precision, holds NaN or infinity."""
    arrays = (leaf for leaf in jax.tree.leaves(tree) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating))
    return all(np.isfinite(array).all() for array in arrays)


def _to_tree(node) -> dict:
    """The arrays of a module as a nested dict of NumPy arrays (of shapes, where they are abstract).

    NumPy, because Orbax refuses device arrays that only one of several processes can address. The state is the same in
    all processes, and the first one writes it.
    """
    return jax.tree.map(_to_numpy, nnx.to_pure_dict(nnx.state(node)))


def _to_numpy(leaf):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf) if _is_abstract(leaf) else jax.random.key_data(leaf)
    # Zeros, not the abstract value: Orbax would look for the devices that the array was saved from.
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
        return jax.random.wrap_key_data(jax.device_put(value))
    return jax.device_put(value)  # jnp.asarray would compile a program for each shape


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf by its path; random keys as the numbers that they are stored as."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_key = leaf.dtype is not None and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        shape = jax.eval_shape(jax.random.key_data, leaf).shape if is_key else leaf.shape
        found[jax.tree_util.keystr(path, simple=True, separator=".")] = tuple(shape)
    return found


def _unused(path: Path) -> Path:
    """The path, or the first with a number behind it that does not exist."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([path], numbered) if not candidate.exists())


def _is_abstract(leaf) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)
