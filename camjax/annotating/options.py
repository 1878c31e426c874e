"""What an annotation depends on: which maps, which boxes, and what is written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
from jax.typing import ArrayLike

from camjax.boxes import ScoredBoxes, component_boxes_from_maps, scored_box_from_maps
from camjax.errors import InputError

BoxRule = Callable[..., ScoredBoxes]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How pictures are annotated.

    Attributes:
      method: of `camjax.attribution.METHODS`.
      top_k: boxes of each picture's K most probable classes.
      classes: ids of classes, in place of the most probable ones.
      boxes: a rule of `BOX_RULES`: "paper" draws one box a map, that of its largest component (Zhou et al. 2016);
        "components" one for each component.
      thresholds: shares of the map's maximum, each of which gives boxes.
      max_boxes: the most boxes of a map at a threshold, by "components".
      min_area: the least area of a component as a share of the picture, by "components".
      min_score: boxes with a lower score are left out.
      maps: whether raw maps are written.
      overlays: whether pictures under their maps are written.
      drawing: of overlays, arguments of `camjax.viz.explanation_figure` in JSON's types: colormap, alpha, dpi ...
      format: of overlays: "png", "pdf" or "svg".
      batch_size: pictures at a time, on each device.
    """

    method: str = "cam"
    top_k: int = 1
    classes: tuple[int, ...] = ()
    boxes: Literal["paper", "components"] = "paper"
    thresholds: tuple[float, ...] = (0.2,)
    max_boxes: int = 10
    min_area: float = 0.0
    min_score: float = 0.0
    maps: bool = False
    overlays: bool = False
    drawing: Mapping[str, Any] = field(default_factory=dict)
    format: str = "png"
    batch_size: int = 32

    def __post_init__(self):
        if self.boxes not in BOX_RULES:
            raise InputError(f"boxes={self.boxes!r}: expected one of {', '.join(BOX_RULES)}.")
        thresholds = self.thresholds
        if not thresholds or len(set(thresholds)) < len(thresholds) or not all(0 <= t < 1 for t in thresholds):
            raise InputError(
                f"thresholds={thresholds}: expected shares of the map's maximum, each once, 0 <= threshold < 1."
            )
        for name in ("batch_size", "max_boxes", "top_k"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: expected at least 1.")
        for name in ("min_area", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}={getattr(self, name)}: expected a share, 0 to 1.")


def _paper(maps: jax.Array, size: tuple[int, int], threshold: ArrayLike, options: Options) -> ScoredBoxes:
    return scored_box_from_maps(maps, size, threshold)


def _components(maps: jax.Array, size: tuple[int, int], threshold: ArrayLike, options: Options) -> ScoredBoxes:
    return component_boxes_from_maps(maps, size, threshold, max_boxes=options.max_boxes, min_area=options.min_area)


BOX_RULES: Mapping[str, BoxRule] = {"paper": _paper, "components": _components}
"""Name -> (maps, size of the image, threshold, options) -> boxes."""
