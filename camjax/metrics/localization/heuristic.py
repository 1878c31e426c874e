"""The five boxes of the paper's entry to the ILSVRC test server: for the first two classes a tight and a loose one."""

from functools import partial
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from camjax.boxes import boxes_from_maps
from camjax.checks import check_threshold
from camjax.errors import InputError
from camjax.metrics.localization.ilsvrc import LocalizationError
from camjax.metrics.sample import Sample
from camjax.metrics.streaming import THRESHOLD_STEP

RANKS = (0, 0, 1, 1, 2)
"""Whose class each of the five boxes is, by rank of the logit."""


class HeuristicError(LocalizationError):
    """`LocalizationError` of the five boxes that `heuristic_boxes` draws from three classes' maps."""

    title = "ILSVRC, five boxes of three classes"
    whole_images = True

    @classmethod
    def for_evaluation(cls, num_classes: int, threshold_step: float = THRESHOLD_STEP) -> Self:
        """Top-1 and top-5 errors.

        Raises:
          ValueError: fewer than five classes.
        """
        if num_classes < 5:
            raise InputError(f"the five boxes of three classes need a network of 5 classes or more, not {num_classes}.")
        return cls()

    def update_from(self, sample: Sample) -> None:
        """Adds a batch of an evaluation: five boxes, and the ranking of the classes for the classification error."""
        top, truth = sample.top, sample.truth
        height, width = sample.images.shape[1:3]
        found = jax.tree.map(np.asarray, heuristic_boxes(top.class_ids, top.maps, (height, width)))
        self.update(
            found.class_ids,
            found.boxes,
            truth.labels,
            truth.boxes,
            valid=found.valid,
            ranking=top.class_ids,
            mask=truth.counted,
        )


class RankedBoxes(NamedTuple):
    """Five guesses for each of B images.

    Attributes:
      class_ids: (B, 5) int32.
      boxes: (B, 5, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1; zeros where not valid.
      valid: (B, 5) bool: whether the class's map has a region above the threshold.
    """

    class_ids: jax.Array
    boxes: jax.Array
    valid: jax.Array


def heuristic_boxes(class_ids, maps, size: tuple[int, int], *, tight: float = 0.4, loose: float = 0.2) -> RankedBoxes:
    """Five boxes from three classes' maps (Zhou et al. 2016, section 3.2): the paper's entry with 37.1 % top-5 error.

    In this order: the first class's tight and loose box, the second's tight and loose one, the third's loose one. An
    evaluation of the top five takes them as five guesses. Each box is that of the largest component above its share of
    the map's maximum; see `camjax.make_localize_fn`.

    The paper does not state the two shares. The default of the loose box is the share that the paper uses elsewhere.
    The default of the tight box is close to 100 / 255, the threshold of the smaller boxes in the paper's released code.

    Args:
      class_ids: (B, N) integers by falling logit, N >= 3; only the first three count.
      maps: (B, N, h, w) their raw maps.
      size: (H, W) of the images in pixels.
      tight: share of the maximum for tight boxes, above `loose` and below 1.
      loose: share of the maximum for loose boxes, 0 or above.

    Returns:
      `RankedBoxes`.

    Raises:
      ValueError: fewer than three classes, shapes that do not fit each other, or shares out of range.
    """
    class_ids, maps = jnp.asarray(class_ids), jnp.asarray(maps)
    if class_ids.ndim != 2 or class_ids.shape[1] < 3 or maps.ndim != 4 or maps.shape[:2] != class_ids.shape:
        raise InputError(
            f"class_ids of shape {class_ids.shape} and maps of shape {maps.shape}: expected (B, N) and (B, N, h, w) of "
            "N >= 3 classes by falling logit; ask the method for the maps of three classes."
        )
    if check_threshold(tight) <= check_threshold(loose):
        raise InputError(f"tight={tight}, loose={loose}: expected tight above loose.")
    return _boxes(class_ids, maps, tuple(size), (tight, loose, tight, loose, loose))


@partial(jax.jit, static_argnums=(2, 3))
def _boxes(class_ids, maps, size, thresholds) -> RankedBoxes:
    boxes, valid = boxes_from_maps(maps[:, RANKS, :, :], size, jnp.array(thresholds, jnp.float32))
    return RankedBoxes(class_ids[:, RANKS].astype(jnp.int32), boxes, valid)
