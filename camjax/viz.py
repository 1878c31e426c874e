"""Figures: class activation maps over their images, and grids of them with boxes."""

import functools
import itertools
import textwrap
import unicodedata
from collections.abc import Sequence, Sized

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from camjax.cam import normalize_map, resize_map
from camjax.errors import InputError
from camjax.figure_text import with_names

PREDICTED = {"edgecolor": "white", "linestyle": (0, (4, 2))}
"""Predicted boxes: white, dashed."""
TRUE = {"edgecolor": "#ff2fd6", "linestyle": "solid"}
"""True boxes: magenta, solid; a color that neither jet nor turbo has."""

LINE_WIDTH = 1.8
LINE_HEIGHT = 0.17  # of a title, in inches
MARGIN = 0.06  # between images, in inches
TALLEST = 1.25  # height / width of a cell; a taller image gets narrower in it
DPI = 150


def overlay(image, map, *, alpha: float = 0.5, colormap: str | Colormap = "jet") -> np.ndarray:
    """Lays a class activation map over its image, as a heat map.

    The map is resized to the image (`camjax.resize_map`), scaled from its minimum..maximum to 0..1
    (`camjax.normalize_map`), colored, and blended: `(1 - alpha) * image + alpha * color`, rounded to the nearest
    integer. A map without a scale (constant, or with NaN or infinity in it) is zeros, hence the colormap's lowest
    color everywhere.

    The default, jet from blue to red, is that of Zhou et al. 2016, figure 1, and of most of the literature. Its
    lightness is uneven, which is a drawback in a plot of numbers; over a photograph the lightness is the
    photograph's, and the hue shows the map. "turbo" has the same hues and smoother steps.

    Args:
      image: (..., H, W, 3) uint8 RGB.
      map: (..., h, w) real numbers of any scale, or a mask; h, w need not be those of the image. Its leading
        dimensions are those of the image, or the image has none: one image under several maps.
      alpha: share of the color in the blend, in 0..1.
      colormap: a matplotlib colormap, or its name.

    Returns:
      (..., H, W, 3) uint8 RGB, with the leading dimensions of `map`.

    Raises:
      ValueError: shapes or dtypes other than these, alpha out of range, or an unknown colormap.
    """
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
    if not isinstance(colormap, Colormap):
        if colormap not in matplotlib.colormaps:
            raise InputError(f'colormap={colormap!r}: expected one of matplotlib\'s, such as "jet" or "viridis".')
        colormap = matplotlib.colormaps[colormap]
    heat = np.asarray(_resized_and_normalized(map.astype(np.float32), image.shape[-3:-1]))
    blended = (1 - alpha) * image + alpha * 255 * colormap(heat)[..., :3]
    return np.rint(blended).astype(np.uint8)


def explanation_figure(
    images: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    names: Sequence[Sequence[str]],
    probabilities: Sequence[Sequence[float] | np.ndarray],
    *,
    titles: Sequence[str] | None = None,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
) -> Figure:
    """A row for each photograph: itself, then for each of N classes its map and box over the photograph.

    Args:
      images: B images (H, W, 3) uint8 RGB; their sizes may differ.
      maps: for each image (N, h, w) raw maps; the same N for all.
      boxes: for each image (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1. A box without area is not drawn: that of a map
        without a region.
      names: for each image N names of classes.
      probabilities: for each image N numbers in 0..1.
      titles: B titles of the photographs, such as file names.
      alpha: as in `overlay`.
      colormap: as in `overlay`.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.

    Raises:
      ValueError: numbers of images, maps, boxes, names, probabilities or titles that differ, or none at all, and
        what `overlay` raises.
    """
    rows = len(images)
    titles = [""] * rows if titles is None else titles
    _check_lengths(images=images, maps=maps, boxes=boxes, names=names, probabilities=probabilities, titles=titles)
    columns = 1 + len(maps[0])
    for row in range(rows):
        counts = [len(of_row[row]) for of_row in (maps, boxes, names, probabilities)]
        if counts != [columns - 1] * 4:
            raise InputError(
                f"image {row} has {counts} maps, boxes, names and probabilities: expected {columns - 1} each, as the "
                "first image has maps."
            )
    labels = [
        [_wrap(title, 38)]
        + [f"{_wrap(name, 38)}\n{probability:.1%}" for name, probability in zip(*of_row, strict=True)]
        for title, *of_row in zip(titles, names, probabilities, strict=True)
    ]
    figure, axes = _grid([np.shape(image)[:2] for image in images], labels, cell_width=3.4)
    for row, image in enumerate(images):
        _show(axes[row][0], image, labels[row][0])
        for axis, map, box, label in zip(axes[row][1:], maps[row], boxes[row], labels[row][1:], strict=True):
            _show(axis, overlay(image, map, alpha=alpha, colormap=colormap), label)
            _draw_box(axis, box, image.shape, PREDICTED)
    return with_names(figure)


def comparison_figure(
    image: np.ndarray,
    maps: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    methods: Sequence[str],
    names: Sequence[str],
    probabilities: Sequence[float] | np.ndarray,
    *,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
) -> Figure:
    """A grid of M methods by N classes: a row for each class, with the photograph and each method's map and box.

    Each map is scaled separately (see `overlay`): colors compare places, not methods.

    Args:
      image: (H, W, 3) uint8 RGB.
      maps: for each method (N, h, w) raw maps; their sizes may differ.
      boxes: for each method (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1. One without area is not drawn.
      methods: M names.
      names: N names of classes.
      probabilities: N numbers in 0..1.
      alpha: as in `overlay`.
      colormap: as in `overlay`.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.

    Raises:
      ValueError: numbers of maps, boxes, methods, names or probabilities that differ, or none at all, and what
        `overlay` raises.
    """
    _check_lengths(maps=maps, boxes=boxes, methods=methods)
    _check_lengths(names=names, probabilities=probabilities)
    for method, *of_method in zip(methods, maps, boxes, strict=True):
        if [len(values) for values in of_method] != [len(names)] * 2:
            counts = ", ".join(str(len(values)) for values in of_method)
            raise InputError(f"{method} has {counts} maps and boxes: expected {len(names)} each, one a class.")
    labels = [
        [f"{_wrap(name, 24)}\n{probability:.1%}", *(_wrap(method, 24) for method in methods)]
        for name, probability in zip(names, probabilities, strict=True)
    ]
    figure, axes = _grid([np.shape(image)[:2]] * len(names), labels, cell_width=2.1)
    for row, of_row in enumerate(axes):
        _show(of_row[0], image, labels[row][0])
        for axis, method_maps, method_boxes, label in zip(of_row[1:], maps, boxes, labels[row][1:], strict=True):
            _show(axis, overlay(image, method_maps[row], alpha=alpha, colormap=colormap), label)
            _draw_box(axis, method_boxes[row], image.shape, PREDICTED)
    return with_names(figure)


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
) -> Figure:
    """A grid of images under their maps, with the predicted box (dashed) and the true one (solid), and a legend.

    Args:
      images: B images (H, W, 3) uint8 RGB.
      maps: B raw maps (h, w).
      predicted_boxes: B boxes (4,) `[ymin, xmin, ymax, xmax]` in 0..1. One without area is not drawn.
      true_boxes: B boxes (4,) in the same format; (n, 4) for an image with several.
      titles: B titles.
      columns: images in a row of the grid.
      alpha: as in `overlay`.
      colormap: as in `overlay`.

    Returns:
      A matplotlib figure that needs no display; `figure.savefig(path)` writes it.

    Raises:
      ValueError: numbers of images, maps, boxes or titles that differ, or none at all, columns below 1, and what
        `overlay` raises.
    """
    titles = [""] * len(images) if titles is None else titles
    _check_lengths(images=images, maps=maps, predicted_boxes=predicted_boxes, true_boxes=true_boxes, titles=titles)
    if columns < 1:
        raise InputError(f"columns={columns}: expected at least 1.")
    columns = min(columns, len(images))
    sizes = [np.shape(image)[:2] for image in images]
    labels = [_wrap(title, 24) for title in titles]
    starts = range(0, len(images), columns)
    figure, axes = _grid(
        [max(sizes[i : i + columns], key=lambda size: size[0] / size[1]) for i in starts],
        [labels[i : i + columns] for i in starts],
        cell_width=2.1,
        legend_lines=1 if columns > 1 else 2,
    )
    drawn = zip(images, maps, predicted_boxes, true_boxes, labels, strict=True)
    for axis, (image, map, predicted, true, label) in zip(itertools.chain(*axes), drawn, strict=True):
        _show(axis, overlay(image, map, alpha=alpha, colormap=colormap), label)
        for box in np.reshape(true, (-1, 4)):
            _draw_box(axis, box, image.shape, TRUE)
        _draw_box(axis, predicted, image.shape, PREDICTED)
    figure.legend(  # type: ignore[call-overload]  # the stub does not know that a tuple of artists is one handle
        [tuple(_rectangles((0, 0), 1, 1, style)) for style in (PREDICTED, TRUE)],
        ["predicted box", "true box"],
        loc="upper center",
        borderaxespad=0.2,
        ncols=min(columns, 2),
        frameon=False,
    )
    return with_names(figure)


@functools.partial(jax.jit, static_argnums=1)
def _resized_and_normalized(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """(..., h, w) -> (..., H, W) in 0..1; one compiled program for each size, instead of one for each operation."""
    return normalize_map(resize_map(maps, size))


def _check_lengths(**sequences: Sized) -> None:
    """Raises ValueError unless all have the same length, which is at least 1."""
    lengths = {name: len(sequence) for name, sequence in sequences.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        given = ", ".join(f"{length} {name}" for name, length in lengths.items())
        raise InputError(f"{given}: expected the same number of each, at least 1.")


def _grid(
    row_sizes: Sequence[tuple[int, int]],
    labels: Sequence[Sequence[str]],
    *,
    cell_width: float,
    legend_lines: int = 0,
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a row of axes for each row of labels, and with room for these above.

    Placed by hand, because all sizes are known: matplotlib's layout engines draw the figure several times to measure
    it, and shrink every row to the narrowest image.

    Args:
      row_sizes: (H, W) of the images of each row, in any unit.
      labels: for each row those of its cells.
      cell_width: in inches.
      legend_lines: lines of a legend above the first row.
    """
    heights = [cell_width * min(height / width, TALLEST) for height, width in row_sizes]
    lines = [max(label.count("\n") + 1 if label else 0 for label in row) for row in labels]
    width = MARGIN + (cell_width + MARGIN) * max(map(len, labels))
    height = sum(heights) + LINE_HEIGHT * (sum(lines) + 1.5 * legend_lines) + 2 * MARGIN * (len(lines) + 1)
    # Without pyplot: no display, no global state, nothing to close.
    figure = Figure(figsize=(width, height), dpi=DPI)
    top = height - MARGIN - LINE_HEIGHT * 1.5 * legend_lines
    axes = []
    for row_labels, row_lines, row_height in zip(labels, lines, heights, strict=True):
        top -= LINE_HEIGHT * row_lines + 2 * MARGIN + row_height
        lefts = [MARGIN + (cell_width + MARGIN) * column for column in range(len(row_labels))]
        axes.append(
            [
                figure.add_axes((x / width, top / height, cell_width / width, row_height / height), anchor="N")
                for x in lefts
            ]
        )
    return figure, axes


def _show(axis: Axes, image: np.ndarray, title: str) -> None:
    """Draws an image without ticks; the axis counts pixels, with integers at their edges."""
    height, width = image.shape[:2]
    axis.imshow(image, extent=(0, width, height, 0))
    axis.set_axis_off()
    axis.set_title(title, fontsize=10, pad=4)


def _draw_box(axis: Axes, box, image_shape: tuple[int, ...], style: dict) -> None:
    """Draws a half-open box in 0..1 along the outer edges of its first and last pixels, unless it has no area."""
    height, width = image_shape[:2]
    ymin, xmin, ymax, xmax = np.asarray(box, float) * (height, width, height, width)
    if not (ymax > ymin and xmax > xmin):
        return
    for patch in _rectangles((xmin, ymin), xmax - xmin, ymax - ymin, style):
        axis.add_patch(patch)


def _rectangles(corner: tuple[float, float], width: float, height: float, style: dict) -> list[Rectangle]:
    """A dark line and the styled one on top of it, so that the box is visible on any color."""
    # Not clipped, because the outer half of the line would be missing at the image's border.
    lines = ({"edgecolor": "#202020", "linewidth": LINE_WIDTH + 1.5}, {"linewidth": LINE_WIDTH, **style})
    return [Rectangle(corner, width, height, fill=False, clip_on=False, **line) for line in lines]


def _wrap(text: str, characters: int) -> str:
    """`text` in at most two lines of `characters` each, with an ellipsis for what is left out."""
    # Characters of Chinese, Japanese and Korean are twice as wide.
    if any(unicodedata.east_asian_width(char) in "WF" for char in text):
        characters //= 2
    return textwrap.fill(text, characters, max_lines=2, placeholder=" …")
