"""Random changes of a training image: functions (image, rng) -> image for the loader's `augment`."""

import cv2
import numpy as np


def random_translation(image: np.ndarray, rng: np.random.Generator, *, max_shift: int) -> np.ndarray:
    """Shift an image by up to `max_shift` pixels in each direction; what comes in is a mirror image of the border.

    image: (H, W, 3) uint8, H and W above `max_shift`. Returns the same shape and type. As in pad-and-crop training
    (He et al. 2016, section 4.2), but padded by reflection (the border pixel is not repeated) in place of zeros.
    """
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, max_shift, max_shift, max_shift, max_shift, cv2.BORDER_REFLECT_101)
    y, x = rng.integers(0, 2 * max_shift, size=2, endpoint=True)
    return padded[y : y + height, x : x + width]


def random_horizontal_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror an image left to right, with probability one half; not for digits or text.

    image: (H, W, 3) uint8. Returns the same shape and type.
    """
    return image[:, ::-1] if rng.random() < 0.5 else image
