"""What the directory of a training run holds, for those who read it: `run.json` and the checkpoints.

`camjax.training` writes both.
"""

import json
import os
from pathlib import Path

import jax.numpy as jnp
from jax.typing import DTypeLike

from camjax.errors import InputError
from camjax.models import CamModel
from camjax.models.shapes import model_shapes

RUN_FORMAT = 1
"""The version of `run.json` that is written and read."""


def checkpoints_of(directory: str | os.PathLike) -> Path:
    """The directory of a run's checkpoints."""
    return Path(directory) / "checkpoints"


def read_run(directory: str | os.PathLike) -> dict:
    """The contents of `run.json`.

    Raises:
      FileNotFoundError: the directory holds no run.
      ValueError: the file is damaged, or of a later version.
    """
    path = Path(directory) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} is no run directory: expected {path}, which camjax.training.fit(run_dir=...) writes."
        )
    try:
        run = json.loads(path.read_text())
        version = run["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}. Restore the file from a copy.") from error
    if version != RUN_FORMAT:
        raise InputError(f"{path} has format {version!r}; this camjax reads {RUN_FORMAT}. Install a newer camjax.")
    return run


def load_run(directory: str | os.PathLike, *, dtype: DTypeLike | None = None) -> CamModel:
    """The model of a run's newest checkpoint.

    Args:
      directory: the `run_dir` of `camjax.training.fit`.
      dtype: compute dtype, float32 or bfloat16; None for the run's own.

    Returns:
      The model, with the run's class names.

    Raises:
      FileNotFoundError: the run does not exist, or has no checkpoint yet.
      ValueError: a file of the run is damaged, or its model was not made by `create_model`.
    """
    # Imported here, since it brings Orbax along.
    from camjax.checkpoints import Checkpoints

    run = read_run(directory)
    if run["model"] is None:
        raise InputError(
            f"{directory} is a run of a model that camjax.create_model did not make, so it cannot be built from a "
            "name. Build it, and fill it with camjax.training.Checkpoints(directory).restore_model(model)."
        )
    model = model_shapes(**run["model"], dtype=jnp.dtype(run["dtype"] if dtype is None else dtype))
    rule = run["input"]
    if rule["mean_image"] is not None:
        rule["mean_image"] = jnp.zeros(rule["mean_image"])  # the checkpoint has its values
    model.set_input_rule(**rule)
    with Checkpoints(checkpoints_of(directory), read_only=True) as checkpoints:
        model = checkpoints.restore_model(model)
    model.class_names = run["class_names"]
    return model
