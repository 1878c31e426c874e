"""Figures: class activation maps over their images, and grids of them with boxes."""

import math
from collections.abc import Sequence, Sized
from typing import Any, Literal

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from camjax.errors import InputError
from camjax.figure_grid import LARGE, SMALL, Cell, grid_figure

PREDICTED = {"edgecolor": "white", "linestyle": (0, (4, 2))}
"""Predicted boxes: white, dashed."""
TRUE = {"edgecolor": "#ff2fd6", "linestyle": "solid"}
"""True boxes: magenta, solid; a color that neither jet nor turbo has."""

DPI = 150  # pixels an inch

Scale = Literal["each", "picture", "all"] | float
"""What the colors of maps range over.

- "picture": from 0 to the greatest value of the maps of a picture by one method; what is below 0 has the lowest color.
- "all": from 0 to the greatest value of all maps of a figure.
- a number: from 0 to this value, to compare figures.
- "each": from the least value of each map to its greatest. A map of little evidence looks like one of much.

Where no value is above 0, the whole map has the lowest color, as it has no box. A figure says its scale, and the
greatest value of each map.
"""


def overlay(
    image,
    map,
    *,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
    limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Lays a class activation map over its image, as a heat map.

    The map is resized to the image as `camjax.resize_map` does, scaled from its minimum..maximum to 0..1, colored, and
    blended: `(1 - alpha) * image + alpha * color`, rounded to the nearest integer. A map without a scale (constant, or
    with NaN or infinity in it) is zeros, hence the colormap's lowest color everywhere.

    The default, jet from blue to red, is that of Zhou et al. 2016, figure 1, and of most of the literature. Its
    lightness is uneven, which is a drawback in a plot of numbers; over a photograph the lightness is the
    photograph's, and the hue shows the map. "turbo" has the same hues and smoother steps.

    Args:
      image: (..., H, W, 3) uint8 RGB.
      map: (..., h, w) real numbers of any scale, or a mask; h, w need not be those of the image. Its leading
        dimensions are those of the image, or the image has none: one image under several maps.
      alpha: share of the color in the blend, in 0..1.
      colormap: a matplotlib colormap, or its name.
      limits: the values of the lowest and of the highest color, for maps that share a scale; values beyond have these
        colors. None: the minimum and maximum of each map, once it is resized.

    Returns:
      (..., H, W, 3) uint8 RGB, with the leading dimensions of `map`.

    Raises:
      ValueError: shapes or dtypes other than these, alpha out of range, or an unknown colormap.
    """
    if isinstance(map, tuple) and hasattr(map, "maps"):
        raise InputError(f"map: a {type(map).__name__}; expected its maps, or one of them, such as out.maps[0, 0].")
    image, map = np.asarray(image), np.asarray(map)
    if image.ndim < 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"image of shape {image.shape} and dtype {image.dtype}: expected (..., H, W, 3) uint8 RGB. "
            "For floats in 0..255 write image.round().astype('uint8')."
        )
    # JAX's issubdtype knows bfloat16, NumPy's does not.
    real = any(jnp.issubdtype(map.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
    if map.ndim < 2 or 0 in map.shape or not real:
        raise InputError(f"map of shape {map.shape} and dtype {map.dtype}: expected (..., h, w) real numbers.")
    if image.ndim > 3 and image.shape[:-3] != map.shape[:-2]:
        raise InputError(
            f"image of shape {image.shape} and map of shape {map.shape}: expected the same leading dimensions, or "
            "one image (H, W, 3). For several maps of each image of a batch, loop over the batch."
        )
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha={alpha}: expected the share of the color in the blend, in 0..1.")
    heat = _scaled(map.astype(np.float32), image.shape[-3:-1], limits)
    blended = (1 - alpha) * image + alpha * 255 * _colors(colormap)(heat)[..., :3]
    return np.rint(blended).astype(np.uint8)


def explanation_figure(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray | Sequence[np.ndarray]],
    names: Sequence[Sequence[str]],
    probabilities: Sequence[Sequence[float] | np.ndarray],
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
    scale: Scale = "picture",
    colorbar: bool = False,
    draw_boxes: bool = True,
    dpi: float = DPI,
) -> Figure:
    """A grid of photographs: each with the maps and boxes of N classes over it, at its right or, of a panorama, below.

    Args:
      images: B images (H, W, 3) uint8 RGB; their sizes may differ.
      maps: for each image (N, h, w) raw maps; the same N for all.
      boxes: for each image (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1, or for each of the N maps any number of boxes
        (k, 4). A box without area is not drawn: that of a map without a region.
      names: for each image N names of classes.
      probabilities: for each image N numbers in 0..1.
      titles: B titles of the photographs, such as file names.
      columns: photographs in a row of the grid; None for a figure about as wide as high.
      alpha: as in `overlay`.
      colormap: as in `overlay`.
      scale: what the colors range over, see `Scale`.
      colorbar: whether to draw the colors with the values of their ends.
      draw_boxes: whether to draw the boxes.
      dpi: pixels an inch.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.

    Raises:
      ValueError: numbers of images, maps, boxes, names, probabilities or titles that differ, or none at all, columns
        below 1, an unknown scale, and what `overlay` raises.
    """
    rows = len(images)
    titles = [""] * rows if titles is None else titles
    _check_lengths(images=images, maps=maps, boxes=boxes, names=names, probabilities=probabilities, titles=titles)
    classes = len(maps[0])
    for row in range(rows):
        counts = [len(of_row[row]) for of_row in (maps, boxes, names, probabilities)]
        if counts != [classes] * 4:
            raise InputError(
                f"image {row} has {counts} maps, boxes, names and probabilities: expected {classes} each, as the "
                "first image has maps."
            )
    limits = _limits(maps, scale)
    colors = _colors(colormap)
    groups = []
    for row, image in enumerate(images):
        of_classes = zip(maps[row], limits[row], boxes[row], names[row], probabilities[row], strict=True)
        drawn = [
            _map_cell(
                *(image, map, ends, colors, alpha, name, f"{probability:.1%}"),
                [(box, PREDICTED) for box in np.reshape(of_map, (-1, 4)) if draw_boxes],
            )
            for map, ends, of_map, name, probability in of_classes
        ]
        groups.append([Cell(np.asarray(image), titles[row]), *drawn])
    return grid_figure(
        groups,
        columns=columns,
        cell_width=LARGE,
        caption=_caption(scale, limits, "each picture's maps" if classes > 1 else "each map"),
        bars=colors if colorbar else None,
        dpi=dpi,
    )


def comparison_figure(
    image: np.ndarray,
    maps: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    methods: Sequence[str],
    names: Sequence[str],
    probabilities: Sequence[float] | np.ndarray,
    **options: Any,
) -> Figure:
    """A grid of M methods by N classes: a row for each class, with the photograph and each method's map and box.

    Args:
      image: (H, W, 3) uint8 RGB.
      maps: for each method (N, h, w) raw maps; their sizes may differ.
      boxes: for each method (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1. One without area is not drawn.
      methods: M names.
      names: N names of classes.
      probabilities: N numbers in 0..1.
      **options: as in `comparisons_figure`: columns, alpha, colormap, scale, colorbar, draw_boxes, dpi.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.

    Raises:
      ValueError: numbers of maps, boxes, methods, names or probabilities that differ, or none at all, columns below 1,
        an unknown scale, and what `overlay` raises.
    """
    return comparisons_figure([image], [maps], [boxes], methods, [names], [probabilities], **options)


def comparisons_figure(
    images: Sequence[np.ndarray],
    maps: Sequence[Sequence[np.ndarray]],
    boxes: Sequence[Sequence[np.ndarray]],
    methods: Sequence[str],
    names: Sequence[Sequence[str]],
    probabilities: Sequence[Sequence[float] | np.ndarray],
    *,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
    scale: Scale = "picture",
    colorbar: bool = False,
    draw_boxes: bool = True,
    dpi: float = DPI,
) -> Figure:
    """`comparison_figure` of B photographs, one below the other.

    Args:
      images: B images (H, W, 3) uint8 RGB; their sizes may differ.
      maps: for each image and method (N, h, w) raw maps.
      boxes: for each image and method (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1.
      methods: M names.
      names: for each image N names of classes.
      probabilities: for each image N numbers in 0..1.
      titles: B titles of the photographs, such as file names.
      columns: pictures side by side, the photograph among them; None for all methods in one row.
      alpha: as in `overlay`.
      colormap: as in `overlay`.
      scale: what the colors range over, see `Scale`. The values of one method are not those of another.
      colorbar: whether to draw the colors with the values of their ends.
      draw_boxes: whether to draw the boxes.
      dpi: pixels an inch.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.

    Raises:
      ValueError: as in `comparison_figure`.
    """
    titles = [""] * len(images) if titles is None else titles
    _check_lengths(images=images, maps=maps, boxes=boxes, names=names, probabilities=probabilities, titles=titles)
    for of_image in zip(maps, boxes, names, probabilities, strict=True):
        _check_lengths(maps=of_image[0], boxes=of_image[1], methods=methods)
        _check_lengths(names=of_image[2], probabilities=of_image[3])
        for method, *of_method in zip(methods, *of_image[:2], strict=True):
            if [len(values) for values in of_method] != [len(of_image[2])] * 2:
                counts = ", ".join(str(len(values)) for values in of_method)
                raise InputError(
                    f"{method} has {counts} maps and boxes: expected {len(of_image[2])} each, one a class."
                )
    limits = _limits([of_method for of_image in maps for of_method in of_image], scale)
    colors = _colors(colormap)
    groups = []
    for i, image in enumerate(images):
        of_methods = list(zip(methods, maps[i], boxes[i], limits[i * len(methods) :][: len(methods)], strict=True))
        for row, (name, probability) in enumerate(zip(names[i], probabilities[i], strict=True)):
            drawn = [
                _map_cell(image, map[row], ends[row], colors, alpha, method, "", [(box[row], PREDICTED)] * draw_boxes)
                for method, map, box, ends in of_methods
            ]
            title = f"{titles[i]}\n{name}" if titles[i] and not row else name
            groups.append([Cell(np.asarray(image), title, f"{probability:.1%}"), *drawn])
    return grid_figure(
        groups,
        columns=1,
        across=columns,
        cell_width=SMALL,
        caption=_caption(scale, limits, "each method's maps" + " of a picture" * (len(images) > 1)),
        bars=colors if colorbar else None,
        dpi=dpi,
    )


def localization_figure(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    predicted_boxes: Sequence[np.ndarray],
    true_boxes: Sequence[np.ndarray],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
    scale: Scale = "picture",
    colorbar: bool = False,
    draw_boxes: bool = True,
    dpi: float = DPI,
) -> Figure:
    """A grid of images under their maps, with the predicted box (dashed) and the true one (solid), and a legend.

    Args:
      images: B images (H, W, 3) uint8 RGB.
      maps: B raw maps (h, w).
      predicted_boxes: B boxes (4,) `[ymin, xmin, ymax, xmax]` in 0..1. One without area is not drawn.
      true_boxes: B boxes (4,) in the same format; (n, 4) for an image with several, or with none.
      titles: B titles.
      columns: images in a row of the grid.
      alpha: as in `overlay`.
      colormap: as in `overlay`.
      scale: what the colors range over, see `Scale`.
      colorbar: whether to draw the colors with the values of their ends.
      draw_boxes: whether to draw the boxes and their legend.
      dpi: pixels an inch.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.

    Raises:
      ValueError: numbers of images, maps, boxes or titles that differ, or none at all, columns below 1, an unknown
        scale, and what `overlay` raises.
    """
    titles = [""] * len(images) if titles is None else titles
    _check_lengths(images=images, maps=maps, predicted_boxes=predicted_boxes, true_boxes=true_boxes, titles=titles)
    limits = _limits([[map] for map in maps], scale)
    colors = _colors(colormap)
    groups = []
    for image, map, predicted, true, title, (ends,) in zip(
        images, maps, predicted_boxes, true_boxes, titles, limits, strict=True
    ):
        shown = [*((box, TRUE) for box in np.reshape(true, (-1, 4))), (predicted, PREDICTED)] * draw_boxes
        groups.append([_map_cell(image, map, ends, colors, alpha, title, "", shown)])
    drawn = {"predicted box": PREDICTED} | ({"true box": TRUE} if any(np.size(true) for true in true_boxes) else {})
    return grid_figure(
        groups,
        columns=columns,
        cell_width=SMALL,
        caption=_caption(scale, limits, "each map"),
        legend=drawn if draw_boxes else None,
        bars=colors if colorbar else None,
        dpi=dpi,
    )


def _check_lengths(**sequences: Sized) -> None:
    """Raises ValueError unless all have the same length, which is at least 1."""
    lengths = {name: len(sequence) for name, sequence in sequences.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(f"{given}: expected the same number of each, at least 1.")


def _colors(colormap: str | Colormap) -> Colormap:
    if isinstance(colormap, Colormap):
        return colormap
    if colormap not in matplotlib.colormaps:
        raise InputError(f'colormap={colormap!r}: expected one of matplotlib\'s, such as "jet" or "viridis".')
    return matplotlib.colormaps[colormap]


def _scaled(map: np.ndarray, size: tuple[int, int], limits: tuple[float, float] | None) -> np.ndarray:
    """(..., h, w) -> (..., H, W) in 0..1.

    The same as `camjax.resize_map` and `camjax.normalize_map`. Those compile a program for each size, and photographs
    have many sizes: half a second each.
    """
    finite = np.isfinite(map).all((-2, -1), keepdims=True)
    rows, columns = (_interpolation(*sides) for sides in zip(map.shape[-2:], size, strict=True))
    resized = rows @ np.where(finite, map, 0).astype(np.float32) @ columns.T
    low, high = (
        (resized.min((-2, -1), keepdims=True), resized.max((-2, -1), keepdims=True)) if limits is None else limits
    )
    span = np.asarray(high - low, np.float32)
    valid = finite & (span > 0) & np.isfinite(span)
    return np.where(valid, np.clip((resized - low) / np.where(valid, span, 1), 0, 1), 0)


def _interpolation(cells: int, pixels: int) -> np.ndarray:
    """(pixels, cells): the share of each cell in a pixel; linear between half-pixel centers, constant beyond."""
    centers = (np.arange(pixels) + 0.5) * cells / pixels - 0.5
    return np.stack([np.interp(centers, np.arange(cells), cell) for cell in np.eye(cells)], 1).astype(np.float32)


def _limits(maps: Sequence[Any], scale: Scale) -> list[list[tuple[float, float]]]:
    """The values of the lowest and the highest color of every map; of maps in groups: of a picture, by one method."""
    ranges = [[_range(map) for map in group] for group in maps]
    if scale == "each":
        return ranges
    greatest = [max([0.0, *(high for _, high in group)]) for group in ranges]
    if scale == "all":
        greatest = [max(greatest)] * len(greatest)
    elif scale != "picture":
        if isinstance(scale, str) or not 0 < scale < math.inf:
            raise InputError(f'scale={scale!r}: expected "picture", "all", "each", or a number above 0.')
        greatest = [float(scale)] * len(greatest)
    return [[(0.0, high)] * len(group) for high, group in zip(greatest, ranges, strict=True)]


def _range(map) -> tuple[float, float]:
    """The least and the greatest value of a map; zeros, which no color stands for, where some are not finite."""
    map = np.asarray(map, np.float32)
    return (float(map.min()), float(map.max())) if map.size and np.isfinite(map).all() else (0.0, 0.0)


def _caption(scale: Scale, limits: Sequence[Sequence[tuple[float, float]]], of: str) -> str:
    """What a figure says about its colors."""
    if scale == "each":
        return "Colors: each map from its least value to its greatest; they compare places, not maps."
    if scale == "picture":
        return f"Colors: from 0 to the greatest value of {of}."
    return f"Colors: from 0 to {limits[0][0][1]:.3g} in all maps."


def _map_cell(
    image: np.ndarray,
    map: np.ndarray,
    limits: tuple[float, float],
    colors: Colormap,
    alpha: float,
    title: str,
    number: str,
    boxes: Sequence[tuple[Any, Any]],
) -> Cell:
    picture = overlay(image, map, alpha=alpha, colormap=colors, limits=limits)
    return Cell(picture, title, number, limits, float(np.asarray(map, np.float32).max()), boxes)
