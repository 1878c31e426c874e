"""Collages of sample photographs, with text and without: a part of one is pasted on another.

These are composites, not photographs: boxes around text follow from where it was pasted.
"""

import numpy as np

from camjax.data.annotation import no_boxes
from experiments.common.sample import PHOTOGRAPHS, SampleImages, part_of_image, photograph, random_part

_UPPER_SIDE = 70, 110
_COUNT = 24

TEXT: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "printed page": (
        (4, 10, 293, 35),
        (3, 50, 379, 139),
        (18, 165, 244, 190),
    ),
    "handwriting": (
        (0, 34, 14, 50),
        (4, 56, 76, 80),
        (70, 82, 104, 98),
        (6, 92, 158, 140),
        (100, 24, 160, 46),
        (152, 0, 238, 14),
        (120, 124, 194, 144),
        (62, 144, 126, 168),
        (172, 56, 306, 92),
        (172, 146, 278, 168),
        (242, 22, 274, 36),
        (246, 68, 310, 112),
        (310, 52, 428, 76),
        (386, 78, 444, 96),
    ),
}
"""Photograph -> boxes around its text, (xmin, ymin, xmax, ymax) in pixels, half-open."""


class TextCollages(SampleImages):
    """Images with text, and as many without.

    The photographs below differ between training and testing, so that only text tells the two kinds apart. On them is
    pasted a part of a photograph with text, or of another one.

    Args:
      split: "train" or "test".

    Attributes:
      boxes: for each image the boxes around its text, (m, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1.
    """

    def __init__(self, split: str):
        others = [name for name in PHOTOGRAPHS if name not in TEXT][split == "test" :: 2]
        rng, labels = np.random.default_rng([*split.encode()]), np.repeat([1, 0], _COUNT)
        collages = []
        for number, label in enumerate(labels):
            upper = list(TEXT)[number % len(TEXT)] if label else others[(number + 1) % len(others)]
            collages.append(_collage(others[number % len(others)], upper, rng))
        super().__init__([image for image, _ in collages], labels, ("without text", "with text"), split)
        self.boxes = [boxes for _, boxes in collages]


def _collage(lower: str, upper: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The image, and the boxes around the text in it."""
    image = part_of_image(photograph(lower), random_part(rng))
    part = random_part(rng)
    above = part_of_image(photograph(upper), part, int(rng.integers(*_UPPER_SIDE)))
    size = np.array(above.shape[:2])
    seen = np.minimum(size, image.shape[:2])
    corner = rng.integers(0, np.subtract(image.shape[:2], seen), endpoint=True)
    (y, x), (height, width) = corner, seen
    image[y : y + height, x : x + width] = above[:height, :width]
    if upper not in TEXT:
        return image, no_boxes()
    # As shares of the photograph, of its part, and of the image.
    boxes = np.array(TEXT[upper])[:, [1, 0, 3, 2]] / np.tile(photograph(upper).shape[:2], 2)
    boxes = (boxes - np.tile(part[:2], 2)) / np.tile(np.subtract(part[2:], part[:2]), 2)
    boxes = (boxes * np.tile(size, 2)).clip(0, np.tile(seen, 2))
    boxes = (boxes + np.tile(corner, 2)) / np.tile(image.shape[:2], 2)
    shown = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    return image, boxes[shown].astype(np.float32)
