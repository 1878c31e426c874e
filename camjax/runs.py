"""What the directory of a training run holds, for those who read it: `run.json` and the checkpoints.

`camjax.training` writes both.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NotRequired

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on

from camjax.addresses import as_path, reaching
from camjax.errors import InputError, reading
from camjax.json_files import read_json
from camjax.models import CamModel
from camjax.models.base import WholeInputRule, image_size
from camjax.models.registry import is_qualified
from camjax.models.shapes import model_shapes

RUN_FORMAT = 1
"""The version of `run.json` that is written and read."""


class Made(TypedDict):
    """The arguments of `camjax.create_model`."""

    name: str
    num_classes: int
    pool: Literal["gap", "gmp"]
    wsol: NotRequired[dict[str, Any]]


class _RunInputRule(WholeInputRule):
    """With the shape of a mean image in its place."""

    mean_image: list[int] | None


class Run(TypedDict):
    """What `run.json` says; an older camjax did not write those that are not required."""

    format: int
    model: Made | None
    dtype: str
    input: _RunInputRule
    class_names: list[str] | None
    recipe: dict[str, Any]
    loss: NotRequired[str]
    multi_label: NotRequired[bool]
    input_size: NotRequired[list[int]]
    starting_weights: NotRequired[dict[str, str | float]]
    data: NotRequired[dict[str, Any]]
    augmentation: NotRequired[str | None]
    evaluation: NotRequired[dict[str, Any] | None]
    lengthened: NotRequired[list[list[int]]]


class _Version(TypedDict):
    format: int


def checkpoints_of(directory: str | os.PathLike) -> Path:
    """The directory of a run's checkpoints."""
    return as_path(directory) / "checkpoints"


def read_run(directory: str | os.PathLike) -> Run:
    """The contents of `run.json`.

    Raises:
      FileNotFoundError: the directory holds no run.
      ValueError: the file is damaged, or of a later version.
    """
    path = as_path(directory) / "run.json"
    with reaching(path):
        exists = path.is_file()
    if not exists:
        raise FileNotFoundError(
            f"{directory} is no run directory: expected {path}, which camjax.training.fit(run_dir=...) writes."
        )
    advice = "Restore the file from a copy."
    version = read_json(path, _Version, advice=advice)["format"]
    if version != RUN_FORMAT:
        raise InputError(f"{path} has format {version!r}; this camjax reads {RUN_FORMAT}. Install a newer camjax.")
    return read_json(path, Run, advice=advice)


def load_run(directory: str | os.PathLike, *, dtype: DTypeLike | None = None, trust: bool = False) -> CamModel:
    """The model of a run's newest checkpoint that is not damaged.

    Args:
      directory: the `run_dir` of `camjax.training.fit`, a folder or an address of a bucket.
      dtype: compute dtype, float32 or bfloat16; None for the run's own.
      trust: whether to import the module that the run names, if its network is `MODULE:NAME`. Importing a module runs
        its code. A module that is imported already, and a network that is registered, need no trust.

    Returns:
      The model, with the run's class names and `multi_label`.

    Raises:
      FileNotFoundError: the run does not exist, or has no checkpoint yet.
      ValueError: a file of the run is damaged, its model was not made by `create_model`, or a module would have to be
        imported without `trust`.
    """
    # Imported here, since it brings Orbax along.
    from camjax.checkpoints import Checkpoints

    run = read_run(directory)
    if run["model"] is None:
        raise InputError(
            f"{directory} is a run of a model that camjax.create_model did not make, so it cannot be built from a "
            "name. Build it, and fill it with camjax.training.Checkpoints(directory).restore_model(model)."
        )
    name = run["model"]["name"]
    if is_qualified(name) and not trust and (module := name.partition(":")[0]) not in sys.modules:
        raise InputError(
            f"{directory} is a run of the network {name!r}: building it imports the module {module}, which runs its "
            f"code. If you trust this run, give --trust or trust=True, or import {module} first."
        )
    rule = run["input"]
    with _of_file(as_path(directory) / "run.json"):
        model = model_shapes(**run["model"], dtype=jnp.dtype(run["dtype"] if dtype is None else dtype))
        model.class_names = run["class_names"]
        if "input_size" in run:
            model.input_size = image_size(run["input_size"])
        model.multi_label = run.get("multi_label", False)
        shape = rule["mean_image"]
        # Abstract, as the model is: the checkpoint has the values.
        mean_image = None if shape is None else jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
        arguments: dict[str, Any] = {**rule, "mean_image": mean_image}
        model.set_input_rule(**arguments)
    with Checkpoints(checkpoints_of(directory), read_only=True) as checkpoints:
        model = checkpoints.restore_model(model)
    return model


@contextlib.contextmanager
def _of_file(path: Path) -> Iterator[None]:
    """Puts a file's name before what is wrong with its content."""
    try:
        with reading(path, "a run of camjax", "Restore the file from a copy."):
            yield
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
