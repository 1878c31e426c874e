"""Placing the tensors of a file in a model: one declarative table of names per family of networks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.weights.errors import WeightsError

# PyTorch stores convolutions as (K_out, K_in, kh, kw) and dense layers as (C, K).
CONV = (2, 3, 1, 0)
DENSE = (1, 0)


@dataclass(frozen=True)
class Rule:
    """One line of a name table.

    Attributes:
      pattern: regular expression that the whole name in the file matches.
      place: path in the model, with the pattern's groups as in `re.Match.expand`; None to leave the entry out.
      axes: permutation from the file's axes to the model's, or None.
    """

    pattern: str
    place: str | None
    axes: tuple[int, ...] | None = None


def place_tensors(model: nnx.Module, tensors: Mapping[str, np.ndarray], table: Sequence[Rule], *, source: str):
    """Writes a file's tensors into a model, in place.

    Args:
      model: its parameters and BatchNorm statistics may be abstract (`nnx.eval_shape`).
      tensors: name in the file -> array.
      table: the first rule whose pattern matches a name places it.
      source: what the tensors came from, for the error.

    Raises:
      WeightsError: names that no rule knows, places of the model left empty, shapes that differ; all in one message.
    """
    places = {
        ".".join(map(str, path)): variable
        for path, variable in nnx.iter_graph(model)
        if isinstance(variable, nnx.Param | nnx.BatchStat)
    }
    unexpected, wrong, filled = [], [], {}
    for name, tensor in tensors.items():
        match, rule = _match(table, name)
        if match is None:
            unexpected.append(name)
            continue
        if rule.place is None:
            continue
        place = match.expand(rule.place)
        if place not in places:
            unexpected.append(name)
            continue
        value = tensor if rule.axes is None or tensor.ndim != len(rule.axes) else tensor.transpose(rule.axes)
        if value.shape != places[place].shape:
            wrong.append(f"{name}: {value.shape} in the file, {places[place].shape} in the model at {place}")
        filled[place] = value
    missing = [place for place in places if place not in filled]
    if missing or unexpected or wrong:
        lines = [f"{source} does not fit the model."]
        for title, entries in (
            ("Places of the model that no entry fills", missing),
            ("Entries that the model has no place for", unexpected),
            ("Shapes that differ", wrong),
        ):
            if entries:
                lines.append(f"{title} ({len(entries)}):")
                lines += [f"  {entry}" for entry in entries]
        lines.append("Is the file for another model, variant or number of classes?")
        raise WeightsError("\n".join(lines))
    for place, value in filled.items():
        # A copy: the arrays may be views of a mapped file.
        places[place].set_value(jnp.array(np.array(value, dtype=np.float32)))


def _match(table: Sequence[Rule], name: str):
    """The first rule whose pattern matches, and its match; (None, None) if there is none."""
    for rule in table:
        if match := re.fullmatch(rule.pattern, name):
            return match, rule
    return None, None


def batchnorm(pattern: str, place: str) -> tuple[Rule, ...]:
    """The rules of one BatchNorm layer, named as PyTorch does."""
    return (
        Rule(rf"{pattern}\.weight", rf"{place}.scale"),
        Rule(rf"{pattern}\.bias", rf"{place}.bias"),
        Rule(rf"{pattern}\.running_mean", rf"{place}.mean"),
        Rule(rf"{pattern}\.running_var", rf"{place}.var"),
        Rule(rf"{pattern}\.num_batches_tracked", None),
    )
