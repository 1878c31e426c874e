"""Places the tensors of a file in a model, by a table of names."""

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.models import CamModel
from camjax.models.tensor_names import DENSE, Rule
from camjax.weights.errors import WeightsError


class NameTable:
    """A table of names, ready to place the tensors of a file.

    Args:
      rules: the first one whose pattern matches a name counts.
      class_layer: place of the layer that has one unit a class, see `camjax.models.ModelSpec`.
    """

    def __init__(self, rules: Sequence[Rule], class_layer: str = "head"):
        # Compiled here: Python keeps 512 patterns, and some tables have more.
        self._rules = [(re.compile(rule.pattern), rule) for rule in rules]
        self._class_layer = class_layer

    def count_classes(self, tensors: Mapping[str, np.ndarray]) -> int | None:
        """Number of classes in a file: the length of the class layer's bias, or else of its kernel's last axis.

        Args:
          tensors: name in the file -> array.

        Returns:
          C; None if the file has no such entry, or an empty one.
        """
        lengths = {}
        for name, tensor in tensors.items():
            rule, place = self._find(name)
            layer, _, parameter = (place or "").rpartition(".")
            if rule is not None and layer == self._class_layer and tensor.ndim:
                lengths[parameter] = _in_model_order(tensor, rule).shape[-1]
        return lengths.get("bias") or lengths.get("kernel") or None

    def place(
        self, model: CamModel, tensors: Mapping[str, np.ndarray], *, source: str, new_layers: Sequence[str] = ()
    ) -> list[str]:
        """Writes a file's tensors into a model.

        Args:
          model: changed; its parameters and BatchNorm statistics may be abstract (`nnx.eval_shape`).
          tensors: name in the file -> array.
          source: the file, for the error.
          new_layers: places in the model that stay as they are, each with all below it. If there are any, the file may
            be of another network with the same backbone: its entries for these places, or for none, are left out.

        Returns:
          The names that were left out.

        Raises:
          WeightsError: names that no rule matches, places of the model left empty or filled twice, shapes or types that
            differ; all in one message.
        """
        places = {
            ".".join(map(str, path)): variable
            for path, variable in nnx.iter_graph(model)
            if isinstance(variable, nnx.Param | nnx.BatchStat)
        }
        kept = {place for place in places if any(f"{place}.".startswith(f"{layer}.") for layer in new_layers)}
        unexpected, wrong, twice = [], [], []
        filled: dict[str, np.ndarray] = {}
        for name, tensor in tensors.items():
            rule, place = self._find(name)
            if rule is not None and place is None:
                continue
            if rule is None or place not in places or place in kept:
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
            in_file, in_model = self.count_classes(tensors), model.head.num_classes
            if in_file not in (None, in_model):
                lines.append(
                    f"The file has {in_file} classes and the model {in_model}: num_classes={in_file} loads its head, "
                    "any other number keeps the backbone and starts a new head."
                )
            if missing or unexpected or twice:
                lines.append("Is the file for another model or variant?")
            raise WeightsError("\n".join(lines))
        for place, value in filled.items():
            # A copy: the arrays may be views of a mapped file. jnp.array would compile a program for each shape.
            places[place].set_value(jax.device_put(np.array(value, dtype=np.float32)))
        return left_out

    def _find(self, name: str) -> tuple[Rule | None, str | None]:
        """The first rule that matches, and its place in the model; (None, None) if none matches."""
        for pattern, rule in self._rules:
            if match := pattern.fullmatch(name):
                return rule, None if rule.place is None else match.expand(rule.place)
        return None, None


def _in_model_order(tensor: np.ndarray, rule: Rule) -> np.ndarray:
    """The tensor with its axes permuted by the rule; one of another rank as it is, for the error to show.

    A dense layer that was written as a 1x1 convolution counts as the dense layer that it is.
    """
    if rule.squeeze:
        tensor = np.squeeze(tensor)
    if rule.axes == DENSE and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    return tensor if rule.axes is None or tensor.ndim != len(rule.axes) else tensor.transpose(rule.axes)
