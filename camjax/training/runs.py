"""How a run starts: `run.json` says what it is, and keeps another run out of its directory."""

import dataclasses
import json
import re
import textwrap
from pathlib import Path

import jax

from camjax.data.rows import Augment, RandomAccessSource
from camjax.files import write_whole
from camjax.models import CamModel
from camjax.runs import RUN_FORMAT, read_run
from camjax.training.recipes import Recipe
from camjax.weights.fingerprint import weights_sha256, weights_sum_and_norm

_ROUNDING = 1e-5
"""How far sums and norms of the same weights may be apart, as a share of the norm."""


def describe_run(model: CamModel, recipe: Recipe) -> dict:
    """What a run starts from and how it goes on: what has to be the same for it to be taken up again.

    Args:
      model: where training starts, as `fit` is given it.
      recipe: of the run.

    Returns:
      A part of `run.json`, in JSON's types. Of the starting weights it has a hash, and by `weights_sum_and_norm` what
      is the same on any machine.
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
    }


def describe_data(
    source: RandomAccessSource, *, augment: Augment | None = None, eval_source: RandomAccessSource | None = None
) -> dict:
    """What a run is trained and evaluated on, which has to be the same too.

    Args:
      source: the training examples. Name and split are None where it has no `info` that says them.
      augment: their random change, which stands in `run.json` as it prints, without addresses of memory: as the call
        that made it for those of `camjax.data.transforms`. Of one that prints as its name alone, nothing else is known.
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
    """Writes `run.json` (the first process does), or checks that the one that is there describes the same run.

    What an older `run.json` does not say yet is taken to be the same.

    Args:
      directory: exists, and can be written to.
      description: from `describe_run` and `describe_data`.

    Raises:
      ValueError: the directory holds another run; the message names what differs.
    """
    path = directory / "run.json"
    if path.exists():
        there = read_run(directory)
        there["recipe"] = _with_defaults(there["recipe"])
        known = [key for key in description if key in there]
        if lines := [line for key in known for line in _differences(key, there[key], description[key])]:
            raise ValueError(
                f"{directory} holds a run that differs from this one. Take another directory, or delete it.\n"
                + "\n".join(lines)
            )
        return
    if jax.process_index() != 0:
        return
    write_whole(path, json.dumps(description, indent=2) + "\n")


def _differences(key: str, there, now) -> list[str]:
    """A line for each difference between two values of `run.json`."""
    if there == now:
        return []
    if key == "starting_weights":
        # Another kind of processor draws the same random weights with other last bits, and may take the run up.
        close = all(abs(there[name] - now[name]) <= _ROUNDING * now["norm"] for name in ("sum", "norm"))
        return [] if close else [f"  {key}.sha256: {there['sha256']} there, {now['sha256']} now"]
    if isinstance(there, dict) and isinstance(now, dict):
        names = [name for name in {**there, **now} if there.get(name) != now.get(name)]
        return [f"  {key}.{name}: {_short(there.get(name))} there, {_short(now.get(name))} now" for name in names]
    return [f"  {key}: {_short(there)} there, {_short(now)} now"]


def _short(value) -> str:
    return textwrap.shorten(str(value), 120, placeholder=" ...")


def _with_defaults(recipe: dict) -> dict:
    """A recipe as it was written, and the values that what it does not say yet had then."""
    fields = (field for field in dataclasses.fields(Recipe) if field.name not in recipe)
    missing = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    return recipe | {name: list(value) if isinstance(value, tuple) else value for name, value in missing.items()}


def _input_rule(model: CamModel) -> dict:
    """The arguments of `CamModel.set_input_rule`, with the shape of a mean image in its place."""
    shape = None if model.mean_image is None else list(model.mean_image.shape)
    rule = {**model.input_rule, "mean_image": shape}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in rule.items()}  # as JSON has them


def _describe_source(source: RandomAccessSource) -> dict:
    info = getattr(source, "info", None)
    return {"name": getattr(info, "name", None), "split": getattr(info, "split", None), "examples": len(source)}


def _printed(augment: Augment) -> str:
    """What `repr` says that is the same in every process."""
    return re.sub(r" at 0x\w+", "", re.sub(r"<function (\S+) at 0x\w+>", r"\1", repr(augment)))
