"""--layer: the layer whose maps are shown, by its path or as measured."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

if TYPE_CHECKING:
    from camjax.models import CamModel

AUTO = "auto"
IMAGES = 4
"""Images that --layer auto measures with, at most."""

Layer = Annotated[str | None, tyro.conf.arg(metavar="LAYER|auto", help_behavior_hint="")]


def layer_to_explain(
    layer: str | None,
    network: "CamModel",
    method: str,
    images: Callable[[], np.ndarray],
    say: Callable[[str], None],
) -> str | None:
    """The path of the layer that --layer asks for; None for the network's last feature map.

    Args:
      layer: what --layer says.
      network: to explain.
      method: whose maps are measured.
      images: reads at most `IMAGES` images (B, H, W, 3) uint8, to measure with.
      say: takes a sentence about what was found.

    Raises:
      ValueError: for "auto", a method that is not of a layer.
    """
    if layer != AUTO:
        return layer
    from camjax.evaluation.layer_choice import choose_layer

    choice = choose_layer(network, images(), method)
    say(str(choice))
    return choice.layer
