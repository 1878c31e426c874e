"""A figure of maps next to their photographs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from camjax.data.images import resize_image
from camjax.figure_text import with_names
from camjax.viz import overlay

_SIDE = 256


def squashed(images: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Images (h, w, 3) uint8 of any sizes, resized to one size (H, W): (n, H, W, 3) uint8."""
    return np.stack([resize_image(image, size) for image in images])


def map_figure(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    titles: Sequence[str],
    heading: str,
    *,
    columns: int = 3,
) -> Figure:
    """A grid of photographs, each with the same photograph under its map on its right.

    Args:
      images: B images (H, W, 3) uint8 RGB, of any sizes.
      maps: B raw maps (h, w).
      titles: B titles, one line each.
      heading: above the grid.
      columns: pairs in a row.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(4.6 * columns, 2.4 * rows + 0.5), dpi=100, layout="constrained")
    figure.suptitle(heading, fontsize=12)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, map, title in zip(axes.flat, images, maps, titles, strict=False):
        height, width = image.shape[:2]
        image = resize_image(image, (_SIDE, max(1, round(_SIDE * width / height))))
        between = np.full((_SIDE, 6, 3), 255, np.uint8)
        axis.imshow(np.concatenate([image, between, overlay(image, map)], axis=1))
        axis.set_title(title, fontsize=10)
    return with_names(figure)
