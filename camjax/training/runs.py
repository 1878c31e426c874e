"""How a run starts: `run.json` says what it is, and keeps another run out of its directory."""

import dataclasses
import json
import re
import textwrap
import warnings
from pathlib import Path
from typing import Any

import jax

from camjax.data.batches import Batches
from camjax.data.rows import RandomAccessSource
from camjax.data.transforms import Transform
from camjax.errors import InputError
from camjax.files import write_whole
from camjax.models import CamModel
from camjax.runs import RUN_FORMAT, read_run
from camjax.training.losses import Loss, SoftmaxCrossEntropy, is_multi_label
from camjax.training.recipes import Recipe
from camjax.weights.fingerprint import weights_sha256, weights_sum_and_norm

_OF_LENGTH = ("steps", "warmup_steps", "decay_every", "decay_first")
"""The fields of a recipe that may change with the length of a run."""

_ROUNDING = 1e-5
"""How far sums and norms of the same weights may be apart, as a share of the norm."""


def describe_run(model: CamModel, recipe: Recipe, loss: Loss | None = None) -> dict:
    """What a run starts from, its recipe and its loss, which have to be the same for the run to be resumed.

    Args:
      model: where training starts, as given to `fit`.
      recipe: of the run.
      loss: as in `fit`, noted by its `repr` as an augmentation is.

    Returns:
      A part of `run.json`, in JSON's types. It identifies the starting weights by a hash, and by
      `weights_sum_and_norm`, which are the same on any machine.
    """
    total, norm = weights_sum_and_norm(model)
    return {
        "format": RUN_FORMAT,
        "model": model.created_as,
        "input_size": list(model.input_size),
        "dtype": model.dtype.name,
        "input": _input_rule(model),
        "class_names": None if model.class_names is None else list(model.class_names),
        "starting_weights": {"sha256": weights_sha256(model), "sum": total, "norm": norm},
        "recipe": dataclasses.asdict(recipe),
        "loss": _printed(SoftmaxCrossEntropy(recipe.label_smoothing) if loss is None else loss),
        "multi_label": is_multi_label(loss),
    }


def describe_data(
    source: RandomAccessSource | Batches,
    *,
    augment: Transform | None = None,
    eval_source: RandomAccessSource | Batches | None = None,
) -> dict:
    """What a run is trained and evaluated on, which has to be the same for the run to be resumed.

    Args:
      source: the training examples. Name and split are None if it has no `info` that says them. Of batches only what
        they are iterated from is known.
      augment: their random change, noted by its `repr` without memory addresses: for those of `camjax.data.transforms`
        that is the call that made it. Of a function whose `repr` is its name, the arguments are not known.
      eval_source: the examples for evaluation.

    Returns:
      The other part of `run.json`, in JSON's types.
    """
    return {
        "data": _describe_source(source),
        "augmentation": None if augment is None else _printed(augment),
        "evaluation": None if eval_source is None else _describe_source(eval_source),
    }


def start_run(directory: Path, description: dict) -> None:
    """Writes `run.json` (in the first process), or checks that an existing one describes the same run.

    Fields that the `run.json` of an older camjax lacks count as the same. A run may become longer: `run.json` then has
    its new recipe, which may differ in the fields that follow from the length, such as a warm-up of a tenth of the
    steps; and it notes the old and the new number of steps in "lengthened".

    Args:
      directory: an existing one that can be written to.
      description: from `describe_run` and `describe_data`.

    Raises:
      ValueError: the directory holds another run; the message names what differs.
    """
    path = directory / "run.json"
    if path.exists():
        old: dict[str, Any] = {**read_run(directory)}
        old["recipe"] = _with_defaults(old["recipe"])
        # An older camjax had no other loss.
        old.setdefault("loss", repr(SoftmaxCrossEntropy(old["recipe"]["label_smoothing"])))
        steps, new_steps = old["recipe"].get("steps"), description["recipe"]["steps"]
        longer = isinstance(steps, int) and steps < new_steps
        if longer:
            old["recipe"] |= {name: description["recipe"][name] for name in _OF_LENGTH}
        known = [key for key in description if key in old]
        if lines := [line for key in known for line in _differences(key, old[key], description[key])]:
            raise InputError(
                f"{directory} holds a run that differs from this one. Take another directory, or delete it.\n"
                + "\n".join(lines)
            )
        if not longer:
            return
        warnings.warn(
            f"{directory} is lengthened from {steps} to {new_steps} steps. From the checkpoint on, its learning rate "
            f"follows the schedule of {new_steps} steps.",
            stacklevel=4,
        )
        description = {**old, "lengthened": [*old.get("lengthened", []), [steps, new_steps]]}
    if jax.process_index() != 0:
        return
    write_whole(path, json.dumps(description, indent=2) + "\n")


def _differences(key: str, old: Any, new: Any) -> list[str]:
    """A line for each difference between two values of `run.json`."""
    if old == new or (key == "class_names" and old is None):  # an older camjax did not take them from the data
        return []
    if key == "starting_weights":
        # Another kind of processor draws the same random weights with other last bits, and may resume the run.
        close = all(abs(old[name] - new[name]) <= _ROUNDING * new["norm"] for name in ("sum", "norm"))
        return [] if close else [f"  {key}.sha256: {old['sha256']} there, {new['sha256']} now"]
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return [f"  {key}.{name}: {_short(old.get(name))} there, {_short(new.get(name))} now" for name in names]
    return [f"  {key}: {_short(old)} there, {_short(new)} now"]


def _short(value) -> str:
    return textwrap.shorten(str(value), 120, placeholder=" ...")


def _with_defaults(recipe: dict) -> dict:
    """A recipe as it was written, with defaults for missing fields."""
    fields = (field for field in dataclasses.fields(Recipe) if field.name not in recipe)
    missing = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return recipe | {name: list(value) if isinstance(value, tuple) else value for name, value in missing.items()}


def _input_rule(model: CamModel) -> dict:
    """The arguments of `CamModel.set_input_rule`, with the shape of a mean image in its place."""
    shape = None if model.mean_image is None else list(model.mean_image.shape)
    rule = {**model.input_rule, "mean_image": shape}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in rule.items()}  # as JSON has them


def _describe_source(source: RandomAccessSource | Batches) -> dict:
    if isinstance(source, Batches):
        return {"name": repr(source), "split": None, "examples": None}
    info = getattr(source, "info", None)
    return {"name": getattr(info, "name", None), "split": getattr(info, "split", None), "examples": len(source)}


def _printed(function: Transform | Loss) -> str:
    """The part of `repr` that is the same in every process."""
    return re.sub(r" at 0x\w+", "", re.sub(r"<function (\S+) at 0x\w+>", r"\1", repr(function)))
