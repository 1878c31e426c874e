"""Where the objects of images are, pixel by pixel, from true boxes or from masks."""

from collections.abc import Sequence

import numpy as np

from camjax.errors import InputError
from camjax.metrics.localization.box_overlap import pad_true_boxes

IGNORE = 255
"""Pixels of a mask that count neither as object nor as background."""


def object_masks(
    true_boxes: Sequence | None, masks: Sequence | None, image_sizes, batch: int, rows: np.ndarray
) -> list[np.ndarray]:
    """The pixels of each row's objects.

    Args:
      true_boxes: B arrays (n_i, 4) of true boxes in 0..1, n_i >= 0; or an array (B, n, 4) or (B, 4).
      masks: in place of true_boxes, B arrays (H_i, W_i): 1 (True) object, 0 background, 255 pixels to ignore.
      image_sizes: (B, 2) or (2,) integers, height and width in pixels; with true_boxes only.
      batch: B.
      rows: indices of the images that are wanted.

    Returns:
      (H, W) uint8 for each row: 1, 0, or `IGNORE`. A pixel is in a box if its center is.

    Raises:
      ValueError: both or none of true_boxes and masks; no image_sizes for boxes; an array of another shape, or a box or
        mask with other values.
    """
    if (true_boxes is None) == (masks is None):
        raise InputError("expected the objects either as true_boxes or as masks.")
    if masks is not None:
        return _masks(masks, image_sizes, batch, rows)
    return _masks_of_boxes(true_boxes, image_sizes, batch, rows)


def _masks(masks, image_sizes, batch: int, rows: np.ndarray) -> list[np.ndarray]:
    """The masks of the rows wanted, checked."""
    if image_sizes is not None:
        raise InputError("image_sizes with masks: expected none, as masks have the images' sizes.")
    if len(masks) != batch:
        raise InputError(f"masks of {len(masks)} images: expected those of {batch}, padding counted.")
    checked = []
    for row in rows:
        regions = np.asarray(masks[row])
        if regions.ndim != 2 or regions.size == 0 or not np.isin(regions, (0, 1, IGNORE)).all():
            raise InputError(
                f"masks of row {row}: shape {regions.shape}, values {np.unique(regions)[:5].tolist()}; expected (H, W) "
                f"with 1 for the object, 0 for background and {IGNORE} for pixels to ignore."
            )
        checked.append(regions.astype(np.uint8))
    return checked


def _masks_of_boxes(true_boxes, image_sizes, batch: int, rows: np.ndarray) -> list[np.ndarray]:
    """(H, W) uint8 for each row wanted: 1 where the center of a pixel lies in a true box."""
    sizes = np.asarray((0, 0) if image_sizes is None else image_sizes)
    if sizes.shape not in ((2,), (batch, 2)) or not np.issubdtype(sizes.dtype, np.integer) or (sizes < 1).any():
        raise InputError(
            f"image_sizes={image_sizes!r}: expected heights and widths in pixels, ({batch}, 2) or (2,) integers. Boxes "
            "are shares of the image; its size says where the pixels are."
        )
    sizes = np.broadcast_to(sizes, (batch, 2))
    boxes, counts = pad_true_boxes(true_boxes, batch, rows)
    masks = []
    for row, own, count in zip(rows, boxes, counts, strict=True):
        size = sizes[row]
        regions = np.zeros(size, np.uint8)
        for low, high in own[:count].reshape(-1, 2, 2):
            first = np.ceil(low * size - 0.5).astype(int).clip(0)
            stop = np.ceil(high * size - 0.5).astype(int)
            # A box between two pixels' centers is the pixel that its own center lies in.
            thin = stop <= first
            middle = np.minimum(((low + high) / 2 * size).astype(int), size - 1)
            first, stop = np.where(thin, middle, first), np.where(thin, middle + 1, stop)
            regions[first[0] : stop[0], first[1] : stop[1]] = 1
        masks.append(regions)
    return masks
