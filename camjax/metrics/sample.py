"""What a metric may ask about a batch of images, in arrays: what a method found in them, and what is true."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from camjax.outputs import CamOutput, Localization


@dataclass(frozen=True)
class Truth:
    """What is known about B images.

    Attributes:
      labels: (B,) int, the true classes.
      boxes: for each image (n, 4) true boxes, `[ymin, xmin, ymax, xmax]` in 0..1 of the stored image; n may be 0.
      wsol_boxes: the same boxes as wsolevaluation's metrics take them; see `camjax.data.Annotation`.
      image_sizes: (B, 2) int, height and width of the stored images in pixels; (0, 0) where unknown.
      counted: (B,) bool; False on padding and on images that are left out.
      filenames: (B,) names for messages; "" on padding.
      masks: for each image (H, W) uint8, 1 object, 0 background, 255 ignore, and None where `counted` is False. None
        for all where no metric needs masks.
    """

    labels: np.ndarray
    boxes: Sequence[np.ndarray]
    wsol_boxes: Sequence[np.ndarray]
    image_sizes: np.ndarray
    counted: np.ndarray
    filenames: Sequence[str]
    masks: Sequence[np.ndarray | None] | None = None

    def rows(self, rows: slice) -> "Truth":
        """What is known about some of the images, the `rows`."""
        return Truth(**{name: value[rows] for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class Sample:
    """A batch of B images with what one method found in them: what `StreamingMetric.update_from` takes.

    Arrays are NumPy's; see `camjax.CamOutput` and `camjax.Localization`.

    Attributes:
      images: (B, H, W, 3) uint8, as the network saw them.
      top: what the method found for the most probable classes, by falling logit; without boxes, which most metrics
        would not look at. `camjax.boxes.boxes_from_maps` draws them.
      asked: what it found for the true class: N = 1.
      truth: what is known about the images.
      probabilities_fn: images (b, H, W, 3), float32 in 0..255 -> (b, C) probabilities of the network. None where no
        metric needs scores.
      maps_fn: (images (b, H, W, 3) float32, class_ids (b,)) -> maps (b, h, w) by the method. None where no metric needs
        maps of changed images or other classes.
    """

    images: np.ndarray | jax.Array
    top: CamOutput
    asked: Localization
    truth: Truth
    probabilities_fn: Callable | None = None
    maps_fn: Callable | None = None

    def split(self, parts: int) -> list["Sample"]:
        """The batch in consecutive `parts` of equal size; B has to be a multiple of their number."""
        size = len(self.images) // parts
        samples = []
        for start in range(0, len(self.images), size):
            rows = slice(start, start + size)
            top = CamOutput(*(array[rows] for array in self.top))
            asked = Localization(*(array[rows] for array in self.asked))
            functions = self.probabilities_fn, self.maps_fn
            samples.append(Sample(self.images[rows], top, asked, self.truth.rows(rows), *functions))
        return samples
