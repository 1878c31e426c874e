"""The one table of training methods for weakly supervised localization: those of Choe et al. 2020, and TS-CAM.

A new method is one file and one row of `WSOL`: `camjax.create_model(..., wsol=)`, `camjax train --wsol` and
`python -m experiments.wsol` then have it.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from camjax.errors import InputError
from camjax.models.base import CamModel
from camjax.models.wsol.acol import AdversarialComplementary
from camjax.models.wsol.adl import AttentionDropout
from camjax.models.wsol.cutmix import CutMix
from camjax.models.wsol.has import HideAndSeek
from camjax.models.wsol.method import WsolMethod
from camjax.models.wsol.spg import SelfProducedGuidance
from camjax.models.wsol.tscam import TokenSemanticCoupledMap


@dataclass(frozen=True)
class Option:
    """A number that a method takes.

    Attributes:
      default: of the benchmark's code; an int for an option that takes whole numbers.
      low, high: the smallest and the largest value.
    """

    default: float
    low: float = 0
    high: float = 1

    def checked(self, name: str, value: Any) -> float:
        """The value; raises ValueError, with the option's name, for one that it does not take."""
        whole = isinstance(self.default, int)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high or (whole and value != int(value)):
            kind = "a whole number" if whole else "a number"
            most = "" if self.high == math.inf else f" and at most {self.high}"
            raise InputError(f"{name}={value!r}: expected {kind} of at least {self.low}{most}.")
        return int(value) if whole else float(value)


@dataclass(frozen=True)
class Wsol:
    """A row of the table.

    Attributes:
      name: in `create_model(wsol=)` and on command lines.
      changes: what it changes, in words.
      build: the type of `WsolMethod` that it makes a part of a model; None for CAM, which needs none.
      options: by name.
      draw: options drawn from the ranges that the benchmark searched (Choe et al. 2020, table 5).
    """

    name: str
    changes: str
    build: type[WsolMethod] | None
    options: Mapping[str, Option]
    draw: Callable[[np.random.Generator], dict[str, float]]

    @property
    def defaults(self) -> dict[str, float]:
        """The options' defaults."""
        return {name: option.default for name, option in self.options.items()}

    def checked(self, given: Mapping[str, Any]) -> dict[str, float]:
        """All options, with defaults for those not given.

        Raises:
          ValueError: an option that the method does not have, or a value that it does not take.
        """
        if unknown := [name for name in given if name not in self.options]:
            known = ", ".join(f"{name} ({value})" for name, value in self.defaults.items()) or "none"
            raise InputError(f"wsol {self.name} has no option {', '.join(unknown)}: it has {known}.")
        values = {**self.defaults, **given}
        return {name: self.options[name].checked(f"wsol {self.name}, {name}", value) for name, value in values.items()}


def _draw_has(random: np.random.Generator) -> dict[str, float]:
    # The benchmark's table has the area of a square, taken here as a share of the image's; its code has the side.
    drop_rate, area = random.uniform(size=2)
    return {"drop_rate": drop_rate, "grid_size": max(1, round(224 * area**0.5))}


def _draw_cutmix(random: np.random.Generator) -> dict[str, float]:
    # 1 / u - 1 / 2 of u in (0, 2].
    return {"beta": max(1 / (2 * (1 - random.uniform())) - 0.5, _LEAST_BETA), "probability": random.uniform()}


def _draw_adl(random: np.random.Generator) -> dict[str, float]:
    return {"drop_rate": random.uniform(), "threshold": random.uniform()}


def _draw_acol(random: np.random.Generator) -> dict[str, float]:
    return {"threshold": random.uniform()}


def _draw_spg(random: np.random.Generator) -> dict[str, float]:
    drawn = {}
    for i in (1, 2, 3):
        drawn[f"low_{i}"] = random.uniform()
        drawn[f"high_{i}"] = random.uniform(drawn[f"low_{i}"], 1)
    return drawn


_LEAST_BETA = 1e-3
_SPG = {"high_1": 0.7, "low_1": 0.01, "high_2": 0.5, "low_2": 0.05, "high_3": 0.7, "low_3": 0.1}

_ROWS = (
    Wsol("cam", "nothing", None, {}, lambda random: {}),
    Wsol(
        "has",
        "training images",
        HideAndSeek,
        {"grid_size": Option(4, 1, math.inf), "drop_rate": Option(0.5)},
        _draw_has,
    ),
    Wsol(
        "cutmix",
        "training images and labels",
        CutMix,
        {"beta": Option(1.0, _LEAST_BETA, math.inf), "probability": Option(1.0)},
        _draw_cutmix,
    ),
    Wsol(
        "adl",
        "layers, in training",
        AttentionDropout,
        {"threshold": Option(0.9), "drop_rate": Option(0.75)},
        _draw_adl,
    ),
    Wsol("acol", "head, loss and map", AdversarialComplementary, {"threshold": Option(0.7)}, _draw_acol),
    Wsol(
        "spg",
        "loss, by branches in training",
        SelfProducedGuidance,
        {name: Option(value) for name, value in _SPG.items()},
        _draw_spg,
    ),
    Wsol("tscam", "head and map", TokenSemanticCoupledMap, {}, lambda random: {}),
)

WSOL: Mapping[str, Wsol] = {row.name: row for row in _ROWS}
"""Name -> training method."""


def wsol_config(wsol: str | Mapping[str, Any]) -> dict[str, Any]:
    """A method and all of its options: {"method": name, option: value, ...}.

    Args:
      wsol: its name, for the default options, or such a mapping, of which options may be left out.

    Raises:
      ValueError: an unknown method or option, or a value that it does not take.
    """
    options: dict[str, Any] = {"method": wsol} if isinstance(wsol, str) else dict(wsol)
    name = str(options.pop("method", None))
    if name not in WSOL:
        near = difflib.get_close_matches(name, WSOL, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise InputError(f"wsol method {name!r}: expected one of {', '.join(WSOL)}.{hint}")
    return {"method": name, **WSOL[name].checked(options)}


def wsol_words(words: Sequence[str]) -> dict[str, Any]:
    """`wsol_config` of words as on a command line: a method, then OPTION=NUMBER."""
    name, *options = words or ["cam"]
    values: dict[str, Any] = {"method": name}
    for word in options:
        option, _, number = word.partition("=")
        try:
            values[option] = float(number)
        except ValueError:
            raise InputError(f"--wsol {name} {word}: expected OPTION=NUMBER after the method.") from None
    return wsol_config(values)


def with_wsol(model: CamModel, wsol: str | Mapping[str, Any], *, rngs: nnx.Rngs | None = None) -> CamModel:
    """The model, made to be trained by a method for weakly supervised localization.

    What the method adds is new and untrained, as is the head with ACoL and TS-CAM, and in some networks layers before
    it; the other weights are copied.

    Args:
      model: with a pooled head, or for TS-CAM a vision transformer with a class token, and trained by none of the
        methods yet.
      wsol: as in `wsol_config`; "cam" for the model as it is.
      rngs: random keys of new layers and of the method's draws; `nnx.Rngs(0)` if None.

    Returns:
      A new model. Its `created_as` says the method. ADL's layers are in training mode, which `model.eval()` ends;
      camjax's own functions set the mode themselves.

    Raises:
      ValueError: an unknown method or option; a model with another head or method, or without what the method needs.
    """
    config = wsol_config(wsol)
    build = WSOL[config["method"]].build
    if build is None:
        return model
    name, rngs = config["method"], nnx.Rngs(0) if rngs is None else rngs
    if not build.fits(model) or model.wsol is not None:
        raise InputError(
            f"wsol {name} with {type(model).__name__}, which has a head of type {type(model.head).__name__}"
            f"{'' if model.wsol is None else ' and a training method already'}: expected {build.takes}, and no method "
            "yet."
        )
    model = nnx.clone(model, arrays=True)
    names = model.class_names
    model.for_wsol(name, rngs=rngs)
    model.wsol = build(model, **{key: value for key, value in config.items() if key != "method"}, rngs=rngs)
    model.class_names = names
    if model.created_as is not None:
        model.created_as = {**model.created_as, "wsol": config}
    return model


def new_layers(model: CamModel, of_network: Sequence[str]) -> tuple[str, ...]:
    """The places of a model that start from random weights: those of its network that it has, and the method's.

    Args:
      model: with or without a method.
      of_network: places of the network without one, as in `camjax.models.ModelSpec.new_layers`.
    """
    kept = [place for place in of_network if getattr(model, place.partition(".")[0], None) is not None]
    has_weights = model.wsol is not None and bool(nnx.state(model.wsol, nnx.Param))
    return (*kept, *(("wsol",) if has_weights else ()))
