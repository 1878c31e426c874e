"""Options that several experiments have: one name, one meaning and one sentence for each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

import camjax
from camjax.errors import InputError
from camjax.models import CamModel
from camjax.weights.fingerprint import weights_sha256


def arg(metavar: str, default: bool = True):
    """An option with a placeholder for its value; `default=False` hides its default, which its sentence tells."""
    return tyro.conf.arg(metavar=metavar) if default else tyro.conf.arg(metavar=metavar, help_behavior_hint="")


Count = Annotated[int, arg("N")]
Share = Annotated[float, arg("SHARE")]
Folder = Annotated[Path, arg("DIR")]
OptionalCount = Annotated[int | None, arg("N", default=False)]
OptionalRate = Annotated[float | None, arg("RATE", default=False)]
OptionalFolder = Annotated[Path | None, arg("DIR", default=False)]
OptionalPath = Annotated[Path | None, arg("PATH", default=False)]
OptionalName = Annotated[str | None, arg("NAME", default=False)]
Weights = Annotated[str | None, arg("FILE", default=False)]


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The options of an experiment with one pretrained network.

    Attributes:
      model: A network of `camjax models`, or the directory of a training run.
      weights: A file of its weights, or an address (hf://, https://). EfficientNet-Lite needs none.
      out: Where all results go. The same command continues where it stopped.
    """

    model: Annotated[str, arg("NAME|RUN")] = "efficientnet_lite0"
    weights: Weights = None
    out: Folder

    def load_model(self) -> CamModel:
        """The network, in inference mode."""
        return camjax.load_model(self.model, self.weights)

    def network(self, model: CamModel) -> dict[str, str]:
        """What results.json says about the network."""
        return {"model": self.model, "weights_sha256": weights_sha256(model)}


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(NetworkOptions):
    """The options of an experiment that passes images through the network.

    Attributes:
      batch_size: Images at a time.
    """

    batch_size: Count = 32


def at_least_one(options: object, *names: str) -> None:
    """Raises ValueError for the first of the named options that is below 1; None passes."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: expected at least 1.")
