"""Places the tensors of a file in a model, by a table of names."""

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from camjax.errors import few, printable
from camjax.models import CamModel
from camjax.models.tensor_names import DENSE, Rule
from camjax.weights.errors import WeightsError

# The most dots in a prefix; "state_dict.module._orig_mod.model." has four.
_MAX_DOTS = 8

# Prefixes of weights that are averages over training: "state_dict_ema.", "ema.module.", "teacher.backbone.".
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|avg|averaged?|swa|teacher|momentum)[._]")

_SHOWN = 5


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
        self._found: dict[str, tuple[Rule | None, str | None]] = {}

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

    def unwrap(self, model: CamModel, tensors: Mapping[str, np.ndarray]) -> tuple[Mapping[str, np.ndarray], str | None]:
        """Takes off what wrappers and checkpoints put before a network's names.

        Such are "module." (DataParallel, AveragedModel), "_orig_mod." (torch.compile), "model." (Lightning), and
        "state_dict." (a file with more than weights). No list of them is needed: a prefix is what ends in a dot and
        leaves names for at least half of the model's places. Of several sets of weights in a file, the ones that were
        trained are taken, and not their average over training, whose prefix says "ema", "avg", "swa", "teacher" or
        "momentum". Entries without the prefix are left out.

        Args:
          model: may be abstract.
          tensors: name in the file -> array.

        Returns:
          The tensors by the network's names, and one sentence on what was taken off and left out; None if the names
          stay as they are.

        Raises:
          WeightsError: several sets of weights fit, and no prefix says which is the average.
        """
        places = self._places(model)
        if all(rule is not None and (place is None or place in places) for rule, place in map(self._find, tensors)):
            return tensors, None  # at once: all names have their places
        filled: dict[str, set[str]] = {}
        for name in tensors:
            parts = name.split(".")
            for dots in range(min(len(parts), _MAX_DOTS + 1)):
                place = self._find(".".join(parts[dots:]))[1]
                if place in places:
                    filled.setdefault("".join(f"{part}." for part in parts[:dots]), set()).add(place)
        sets = [prefix for prefix, of_prefix in filled.items() if 2 * len(of_prefix) >= len(places)]
        if sets in ([], [""]):
            return tensors, None
        trained = [prefix for prefix in sets if not _AVERAGED.search(prefix)] or sets
        if len(trained) > 1:
            raise WeightsError(
                f"the file has {len(trained)} sets of weights that fit, under {few([*map(repr, trained)])}. Save one "
                "of them alone: torch.save(torch.load(FILE)[NAME], NEW_FILE)."
            )
        prefix = trained[0]
        others = [other for other in sets if other != prefix]
        nested = tuple(other for other in others if other.startswith(prefix))
        kept = {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix) and not name.startswith(nested)
        }
        left_out = [name for name in tensors if not name.startswith(prefix) or name.startswith(nested)]
        said = [f"the names of {len(kept)} tensors were read without {prefix!r}"] if prefix else []
        said += [f"the weights under {few([*map(repr, others)])} fit as well and were not taken"] if others else []
        said += [f"{len(left_out)} entries were left out: {few(left_out)}"] if left_out else []
        return kept, "; ".join(said)

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
            differ, values that are not finite in float32; all in one message, with the first few names of each kind.
        """
        places = self._places(model)
        kept = {place for place in places if any(f"{place}.".startswith(f"{layer}.") for layer in new_layers)}
        unexpected, wrong, twice, spoiled = [], [], [], []
        filled: dict[str, np.ndarray] = {}
        zeros: list[str] = []
        for name, tensor in tensors.items():
            rule, place = self._find(name)
            if rule is not None and place is None:
                continue
            if rule is None or place not in places or place in kept:
                unexpected.append(name)
                continue
            value, shape = _in_model_order(tensor, rule), places[place].shape
            if value.shape != shape and rule.fit is not None:
                value = rule.fit(value, shape)
            if value.shape != shape:
                wrong.append(f"{name}: {value.shape} in the file, {shape} in the model at {place}")
            if place in filled:
                twice.append(f"{name}: for {place}")
            filled[place] = value
            if rule.zeros is not None and rule.zeros in places:
                zeros.append(rule.zeros)
            if not jnp.issubdtype(value.dtype, jnp.floating):
                wrong.append(f"{name}: {value.dtype} in the file, floating-point numbers in the model at {place}")
                continue
            with np.errstate(over="ignore"):
                why = not_finite(np.asarray(value, dtype=np.float32), value)
            if why is not None:
                spoiled.append(f"{name}: {why}")
            elif place.endswith(".var") and isinstance(places[place], nnx.BatchStat) and (value < 0).any():
                spoiled.append(f"{name}: variances below 0, whose roots are NaN")
        filled = {place: np.zeros(places[place].shape, np.float32) for place in zeros if place not in kept} | filled
        missing = [place for place in places if place not in filled and place not in kept]
        left_out, unexpected = (unexpected, []) if new_layers else ([], unexpected)
        if missing or unexpected or wrong or twice or spoiled:
            lines = [f"{source} does not fit the model."]
            for title, entries in (
                ("Places of the model that no entry fills", missing),
                ("Entries that the model has no place for", unexpected),
                ("Shapes or types that differ (axes in the model's order)", wrong),
                ("Entries for a place that another one fills", twice),
                ("Entries that are no weights: training diverged, or the file is damaged", spoiled),
            ):
                if entries:
                    lines.append(f"{title} ({len(entries)}):")
                    lines += [f"  {printable(entry)}" for entry in entries[:_SHOWN]]
                    lines += [f"  and {len(entries) - _SHOWN} more"] if len(entries) > _SHOWN else []
            in_file, in_model = self.count_classes(tensors), model.head.num_classes
            if in_file not in (None, in_model):
                lines.append(
                    f"The file has {in_file} classes and the model {in_model}: num_classes={in_file} loads its head, "
                    "any other number keeps the backbone and starts a new head. On the command line, "
                    f"`camjax convert FILE OUT.safetensors --model NAME --num-classes {in_file}` writes a file that "
                    "every command takes as --weights."
                )
            if missing or unexpected or twice:
                lines.append("Is the file for another model or variant?")
            raise WeightsError("\n".join(lines))
        for place, value in filled.items():
            # A copy: the arrays may be views of the file's bytes. jnp.array would compile a program for each shape.
            places[place].set_value(jax.device_put(np.array(value, dtype=np.float32)))
        return left_out

    @staticmethod
    def _places(model: CamModel) -> dict[str, nnx.Variable]:
        """Parameters and BatchNorm statistics by their places in the model."""
        return {
            ".".join(map(str, path)): variable
            for path, variable in nnx.iter_graph(model)
            if isinstance(variable, nnx.Param | nnx.BatchStat)
        }

    def _find(self, name: str) -> tuple[Rule | None, str | None]:
        """The first rule that matches, and its place in the model; (None, None) if none matches."""
        if name not in self._found:
            matches = (
                (rule, None if rule.place is None else match.expand(rule.place))
                for pattern, rule in self._rules
                if (match := pattern.fullmatch(name))
            )
            self._found[name] = next(matches, (None, None))
        return self._found[name]


def not_finite(array: np.ndarray, given: np.ndarray | None = None) -> str | None:
    """What is wrong with numbers that are NaN or infinite, in words; None if none are.

    Args:
      array: of floating-point numbers.
      given: the numbers before they were converted to the type of `array`.
    """
    bad = array.size - np.count_nonzero(np.isfinite(array))
    if not bad:
        return None
    given = array if given is None else given
    too_large = bad - (given.size - np.count_nonzero(np.isfinite(given)))
    if too_large == bad:
        return f"{bad:,} of {array.size:,} numbers are too large for {array.dtype}"
    also = f", {too_large:,} of them since they are too large for {array.dtype}" if too_large else ""
    return f"{bad:,} of {array.size:,} numbers are NaN or infinite{also}"


def _in_model_order(tensor: np.ndarray, rule: Rule) -> np.ndarray:
    """The tensor with its axes permuted by the rule; one of another rank as it is, for the error to show.

    A dense layer that was written as a 1x1 convolution counts as the dense layer that it is.
    """
    if rule.squeeze:
        tensor = np.squeeze(tensor)
    if rule.axes == DENSE and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    return tensor if rule.axes is None or tensor.ndim != len(rule.axes) else tensor.transpose(rule.axes)
