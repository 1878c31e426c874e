"""Placing the tensors of a file in a model: one declarative table of names per family of networks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.weights.errors import WeightsError

# PyTorch stores convolutions as (K_out, K_in, kh, kw) and dense layers as (C, K).
CONV = (2, 3, 1, 0)
DENSE = (1, 0)

# The layer that has one unit a class: the pooled head, the last of fully connected ones, and the last convolution of
# NIN and of SqueezeNet.
_CLASS_LAYERS = ("head", "head.fc8", "cccp8", "classifier")


@dataclass(frozen=True)
class Rule:
    """One line of a name table.

    Attributes:
      pattern: regular expression that the whole name in the file matches.
      place: path in the model, with the pattern's groups as in `re.Match.expand`; None to leave the entry out.
      axes: permutation from the file's axes to the model's, or None.
      squeeze: whether the file has axes of length 1 that the model has not.
    """

    pattern: str
    place: str | None
    axes: tuple[int, ...] | None = None
    squeeze: bool = False


def place_tensors(
    model: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    table: Sequence[Rule],
    *,
    source: str,
    new_layers: Sequence[str] = (),
) -> list[str]:
    """Writes a file's tensors into a model, in place.

    Args:
      model: its parameters and BatchNorm statistics may be abstract (`nnx.eval_shape`).
      tensors: name in the file -> array.
      table: the first rule whose pattern matches a name places it.
      source: what the tensors came from, for the error.
      new_layers: places in the model that stay as they are, each with all below it. Where there are any, the file may
        be of another network with the same backbone: what it has for these places, or for none, is left out.

    Returns:
      The names that were left out.

    Raises:
      WeightsError: names that no rule knows, places of the model left empty or filled twice, shapes or types that
        differ; all in one message.
    """
    places = {
        ".".join(map(str, path)): variable
        for path, variable in nnx.iter_graph(model)
        if isinstance(variable, nnx.Param | nnx.BatchStat)
    }
    kept = {place for place in places if any(f"{place}.".startswith(f"{layer}.") for layer in new_layers)}
    unexpected, wrong, twice, filled = [], [], [], {}
    for name, tensor in tensors.items():
        rule, place = _find(table, name)
        if rule is not None and place is None:
            continue
        if place not in places or place in kept:
            unexpected.append(name)
            continue
        value, shape = _in_model_order(tensor, rule), places[place].shape
        if value.shape != shape:
            wrong.append(f"{name}: {value.shape} in the file, {shape} in the model at {place}")
        if not jnp.issubdtype(value.dtype, jnp.floating):
            wrong.append(f"{name}: {value.dtype} in the file, floating-point numbers in the model at {place}")
        if place in filled:
            twice.append(f"{name}: for {place}")
        filled[place] = value
    missing = [place for place in places if place not in filled and place not in kept]
    left_out, unexpected = (unexpected, []) if new_layers else ([], unexpected)
    if missing or unexpected or wrong or twice:
        lines = [f"{source} does not fit the model."]
        for title, entries in (
            ("Places of the model that no entry fills", missing),
            ("Entries that the model has no place for", unexpected),
            ("Shapes or types that differ (axes in the model's order)", wrong),
            ("Entries for a place that another one fills", twice),
        ):
            if entries:
                lines.append(f"{title} ({len(entries)}):")
                lines += [f"  {entry}" for entry in entries]
        in_file, in_model = count_classes(tensors, table), model.head.num_classes
        if in_file not in (None, in_model):
            lines.append(
                f"The file has {in_file} classes and the model {in_model}: num_classes={in_file} loads its head, any "
                "other number keeps the backbone and starts a new head."
            )
        if missing or unexpected or twice:
            lines.append("Is the file for another model or variant?")
        raise WeightsError("\n".join(lines))
    for place, value in filled.items():
        # A copy: the arrays may be views of a mapped file. jnp.array would compile a program for each shape.
        places[place].set_value(jax.device_put(np.array(value, dtype=np.float32)))
    return left_out


def count_classes(tensors: Mapping[str, np.ndarray], table: Sequence[Rule]) -> int | None:
    """Number of classes of the head in a file: the length of its bias, or else of its kernel's last axis.

    Args:
      tensors: name in the file -> array.
      table: as in `place_tensors`.

    Returns:
      C; None where the file has no such entry, or an empty one.
    """
    heads = {}
    for name, tensor in tensors.items():
        rule, place = _find(table, name)
        layer, _, parameter = (place or "").rpartition(".")
        if layer in _CLASS_LAYERS and tensor.ndim:
            heads[parameter] = _in_model_order(tensor, rule).shape[-1]
    return heads.get("bias") or heads.get("kernel") or None


def _find(table: Sequence[Rule], name: str) -> tuple[Rule | None, str | None]:
    """The first rule whose pattern matches, and its place in the model; (None, None) if there is none."""
    for rule in table:
        if match := re.fullmatch(rule.pattern, name):
            return rule, None if rule.place is None else match.expand(rule.place)
    return None, None


def _in_model_order(tensor: np.ndarray, rule: Rule) -> np.ndarray:
    """The tensor with its axes permuted by the rule; one of another rank as it is, for the error to show.

    A dense layer that was written as a 1x1 convolution is taken for the dense layer that it is.
    """
    if rule.squeeze:
        tensor = np.squeeze(tensor)
    if rule.axes == DENSE and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    return tensor if rule.axes is None or tensor.ndim != len(rule.axes) else tensor.transpose(rule.axes)


def batchnorm(pattern: str, place: str) -> tuple[Rule, ...]:
    """The rules of one BatchNorm layer, named as PyTorch does."""
    return (
        Rule(rf"{pattern}\.weight", rf"{place}.scale"),
        Rule(rf"{pattern}\.bias", rf"{place}.bias"),
        Rule(rf"{pattern}\.running_mean", rf"{place}.mean"),
        Rule(rf"{pattern}\.running_var", rf"{place}.var"),
        Rule(rf"{pattern}\.num_batches_tracked", None),
    )
