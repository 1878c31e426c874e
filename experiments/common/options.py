"""The options of experiments with one pretrained network: one name, one meaning and one sentence for each."""

from dataclasses import dataclass
from typing import Annotated

import camjax
from camjax.cli.options import ALONE, Count, Folder, Processes, Weights, arg
from camjax.models import CamModel
from camjax.weights.fingerprint import weights_sha256


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The options of an experiment with one pretrained network.

    Attributes:
      model: A network of `camjax models`, or the directory of a training run.
      weights: A file of its weights, or an address (hf://, https://). EfficientNet-Lite needs none.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      out: Where all results go. The same command continues where it stopped.
      processes: Which processes share the work.
    """

    model: Annotated[str, arg("NAME|RUN")] = "efficientnet_lite0"
    weights: Weights = None
    trust: bool = False
    out: Folder
    processes: Processes = ALONE

    def load_model(self) -> CamModel:
        """The network, in inference mode."""
        return camjax.load_model(self.model, self.weights, trust=self.trust)

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
