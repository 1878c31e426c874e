"""From an image-gradient saliency map to a box, by cutting the image along its colors (Simonyan et al. 2014)."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.typing import ArrayLike

from camjax.boxes import largest_component_box
from camjax.errors import InputError

FOREGROUND_QUANTILE = 0.95
"""Pixels whose saliency is above this quantile of their map are certainly object."""
BACKGROUND_QUANTILE = 0.30
"""Pixels whose saliency is at or below this quantile of their map are certainly background."""

# Gaussians in OpenCV's color models, which need at least as many pixels.
_COMPONENTS = 5
_MODEL_SIZE = _COMPONENTS * (1 + 3 + 9)

_largest_component_box = jax.jit(largest_component_box)


def saliency_boxes(images: ArrayLike, saliency: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The box of each saliency map: that of the largest 8-connected component of its `object_mask`.

    The masks are made on the host, by one thread for each core.

    Args:
      images: (B, H, W, 3) RGB in 0..255, uint8 or float.
      saliency: (B, N, H, W), not negative; see `camjax.attribution.image_gradient`.

    Returns:
      boxes (B, N, 4) float32 `[ymin, xmin, ymax, xmax]` in 0..1, zeros where not valid, and valid (B, N) bool; on the
      device of the saliency.

    Raises:
      ValueError: shapes that do not fit each other.
    """
    device = saliency.device if isinstance(saliency, jax.Array) else None
    images, saliency = np.asarray(images), np.asarray(saliency)
    if images.ndim != 4 or saliency.ndim != 4 or images.shape[:3] != (len(saliency), *saliency.shape[2:]):
        raise InputError(
            f"images of shape {images.shape} and saliency of shape {saliency.shape}: expected (B, H, W, 3) and "
            "(B, N, H, W)."
        )
    if images.dtype != np.uint8:
        images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    pairs = [(image, map) for image, maps in zip(images, saliency, strict=True) for map in maps]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        masks = np.stack(list(pool.map(object_mask, *zip(*pairs, strict=True))))
    return _largest_component_box(jax.device_put(masks.reshape(saliency.shape), device))


def object_mask(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """The pixels that belong to the object by saliency and color (Simonyan et al. 2014, section 3.2).

    Saliency marks only the most discriminative parts of an object; colors extend the mark to the rest. Pixels above the
    95 % quantile of the saliency are object, those at or below its 30 % quantile background. A Gaussian mixture of each
    set's colors says how well any color fits object and background, and one graph cut (Boykov and Jolly 2001) divides
    the pixels between the two so that the colors fit and the border runs along edges. The mixtures are fitted once, to
    those certain pixels; they are not fitted again to the cut as in GrabCut, whose implementation in OpenCV (five
    Gaussians a model) is used.

    The paper does not say whether the certain pixels keep their label in the cut; here they do, as in Boykov and Jolly.

    Args:
      image: (H, W, 3) uint8.
      saliency: (H, W).

    Returns:
      (H, W) bool. All False where no pixel is above the quantile, as in a constant map, or where the map has a NaN or
      an infinity.
    """
    import cv2  # here, so that importing camjax stays light

    nothing = np.zeros(saliency.shape, bool)
    if not np.isfinite(saliency).all():
        return nothing
    low, high = np.quantile(saliency, (BACKGROUND_QUANTILE, FOREGROUND_QUANTILE))
    foreground, background = saliency > high, saliency <= low
    if not foreground.any():
        return nothing

    # OpenCV initializes its mixtures by k-means from random centers. With a fixed seed each mask depends on its
    # arguments alone, not on earlier masks or the thread.
    cv2.setRNGSeed(0)
    colors = [_at_least(image[pixels], _COMPONENTS) for pixels in (background, foreground)]
    labels = np.repeat(np.array([cv2.GC_BGD, cv2.GC_FGD], np.uint8), [len(colors[0]), len(colors[1])])
    models = np.zeros((1, _MODEL_SIZE)), np.zeros((1, _MODEL_SIZE))
    no_rectangle = (0, 0, 1, 1)  # OpenCV does not look at it where a mask is given
    cv2.grabCut(np.concatenate(colors)[:, None], labels[:, None], no_rectangle, *models, 0, cv2.GC_INIT_WITH_MASK)

    mask = np.full(saliency.shape, cv2.GC_PR_BGD, np.uint8)
    mask[background], mask[foreground] = cv2.GC_BGD, cv2.GC_FGD
    cv2.grabCut(image, mask, no_rectangle, *models, 1, cv2.GC_EVAL_FREEZE_MODEL)
    return (mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)


def _at_least(colors: np.ndarray, count: int) -> np.ndarray:
    """(n, 3) colors, n >= 1, repeated from the first on where there are fewer than `count`."""
    return np.resize(colors, (max(len(colors), count), 3))
