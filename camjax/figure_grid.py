"""Figures of pictures in a grid, with titles, boxes, notes and colorbars: where everything is, and drawing it."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from camjax.errors import InputError, printable
from camjax.figure_text import with_names, wrapped

LARGE, SMALL = 3.4, 2.1  # widths of a picture's cell, in inches
TALLEST = 1.25  # height / width of a cell; a taller picture gets narrower in it
USUAL = 0.75  # height / width of a photograph
MARGIN = 0.06  # between pictures, in inches
TITLE, NOTE = 10, 8  # sizes of text, in points
TITLE_LINE, NOTE_LINE = 0.17, 0.14  # heights of its lines, in inches
BAR = 0.07  # height of a colorbar, in inches
LINE_WIDTH = 1.8  # of a box, in points
MOST_COLUMNS = 12  # that are tried


class Cell(NamedTuple):
    """One picture of a figure.

    Attributes:
      picture: (H, W, 3) uint8 RGB.
      title: above it; each of its lines takes as many as it needs, up to three.
      number: a line below the title; "" for none.
      limits: the map's values at the ends of the colors; None for a picture without a map.
      greatest: the map's greatest value, which is written below the picture.
      boxes: `[ymin, xmin, ymax, xmax]` in 0..1 each, with the style of its line. One without area is not drawn.
    """

    picture: np.ndarray
    title: str
    number: str = ""
    limits: tuple[float, float] | None = None
    greatest: float = 0.0
    boxes: Sequence[tuple[np.ndarray, Mapping]] = ()


class Place(NamedTuple):
    """Where a picture is, in inches from the figure's left top corner, and its title in lines."""

    left: float
    top: float
    width: float
    height: float
    title: str


def grid_figure(
    groups: Sequence[Sequence[Cell]],
    *,
    columns: int | None,
    across: int | None = None,
    cell_width: float,
    caption: str,
    legend: Mapping[str, Mapping] | None = None,
    bars: Colormap | None,
    dpi: float,
) -> Figure:
    """Draws groups of pictures: the groups in a grid, the pictures of a group beside one another.

    Args:
      groups: each of the same number of cells.
      columns: groups side by side; None for a figure about as wide as high.
      across: cells of a group side by side; None for all, or for fewer where pictures are wide.
      cell_width: in inches, where one group is below the other; at most `SMALL` where they are side by side.
      caption: the text at the bottom.
      legend: words, and the style of the box that they explain.
      bars: the colors of colorbars; None for no colorbar. Maps that all have the same limits share one.
      dpi: pixels an inch.

    Returns:
      A figure that needs no display.

    Raises:
      InputError: columns or across below 1.
    """
    for count in (columns, across):
        if count is not None and count < 1:
            raise InputError(f"columns={count}: expected at least 1.")
    shared = {cell.limits for cell in itertools.chain(*groups) if cell.limits}
    bar_each, one_bar = (bars is not None and n for n in (len(shared) > 1, len(shared) == 1))
    below = (BAR + MARGIN) * bar_each + MARGIN / 2 + NOTE_LINE
    tried = range(1, min(len(groups), MOST_COLUMNS) + 1) if columns is None else [min(columns, len(groups))]
    layouts = (_layout(groups, n, across, cell_width if n == 1 else min(cell_width, SMALL), below) for n in tried)
    places, width, height = min(layouts, key=lambda layout: abs(math.log(layout[1] / layout[2])))

    legend_lines = 0 if not legend else 1 if width > 2 * SMALL else len(legend)
    words = wrapped(caption, width - 2 * MARGIN, NOTE, lines=3)
    top = 1.5 * TITLE_LINE * legend_lines
    bottom = top + height
    height = bottom + (BAR + MARGIN + NOTE_LINE) * one_bar + MARGIN
    height += NOTE_LINE * (words.count("\n") + 1)
    # Without pyplot: no display, no global state, nothing to close.
    figure = Figure(figsize=(width, height), dpi=dpi)

    def write(x: float, y: float, text: str, align: str) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=NOTE, color="0.3", ha=align, va="top")

    def show(left: float, y: float, wide: float, high: float, picture: np.ndarray, **options) -> Axes:
        axes = figure.add_axes((left / width, 1 - (y + high) / height, wide / width, high / height))
        # The axes count pixels, with integers at their edges.
        axes.imshow(picture, extent=(0, picture.shape[1], picture.shape[0], 0), aspect="auto", **options)
        axes.set_axis_off()
        return axes

    def draw_bar(left: float, y: float, wide: float, limits: tuple[float, float]) -> None:
        show(left, y, wide, BAR, np.linspace(0, 1, 256)[None], cmap=bars)
        for x, value, align in ((left, limits[0], "left"), (left + wide, limits[1], "right")):
            write(x, y + BAR + MARGIN / 2, f"{value:.3g}", align)

    for cell, place in zip(itertools.chain(*groups), itertools.chain(*places), strict=True):
        axes = show(place.left, top + place.top, place.width, place.height, cell.picture)
        axes.set_title(place.title, fontsize=TITLE, pad=4)
        for box, style in cell.boxes:
            _draw_box(axes, box, cell.picture.shape, style)
        if cell.limits is None:
            continue
        y, center = top + place.top + place.height + MARGIN, place.left + place.width / 2
        if bar_each:
            wide = max(place.width, 0.95 * SMALL)  # room for three numbers
            draw_bar(center - wide / 2, y, wide, cell.limits)
            y += BAR + MARGIN / 2
        low, high = cell.limits
        if not bar_each or cell.greatest != high:
            write(center, y, f"{low:.3g} to {high:.3g}" if low else f"max {cell.greatest:.3g}", "center")
    if one_bar:
        draw_bar(MARGIN, bottom + MARGIN / 2, min(SMALL, width - 2 * MARGIN), *shared)
    write(MARGIN, height - MARGIN - NOTE_LINE * (words.count("\n") + 1), words, "left")
    if legend:
        figure.legend(  # type: ignore[call-overload]  # the stub does not know that a tuple of artists is one handle
            [tuple(_rectangles((0, 0), 1, 1, style)) for style in legend.values()],
            list(legend),
            loc="upper center",
            borderaxespad=0.2,
            ncols=len(legend) // legend_lines,
            frameon=False,
        )
    return with_names(figure)


def _layout(
    groups: Sequence[Sequence[Cell]], columns: int, across: int | None, cell_width: float, below: float
) -> tuple[list[list[Place]], float, float]:
    """Places the pictures of groups, `columns` groups in a row: the places, and the width and height of all.

    A picture much wider than photographs usually are gets more width where it has company: its group then has fewer
    cells side by side.

    Args:
      groups: see `grid_figure`.
      columns: see `grid_figure`.
      across: see `grid_figure`.
      cell_width: in inches.
      below: the height of what is written below a map, in inches.
    """
    count = len(groups[0])
    ratios = [group[0].picture.shape[0] / group[0].picture.shape[1] for group in groups]
    if count == 1:
        cell_width *= min(max(math.sqrt(USUAL / statistics.median(ratios)), 1), 2)
    group_width = min(across or count, count) * (cell_width + MARGIN) - MARGIN
    gap = MARGIN if count == 1 else 4 * MARGIN
    places, y = [], 0.0
    for start in range(0, len(groups), columns):
        row, bottoms = groups[start : start + columns], []
        inner = [across or _cells_across(count, group_width, ratio, cell_width) for ratio in ratios[start:][:columns]]
        cells = [(group_width + MARGIN) / min(n, count) - MARGIN for n in inner]
        titles = [
            ["\n".join(filter(None, (_title(cell.title, wide), cell.number))) for cell in group]
            for group, wide in zip(row, cells, strict=True)
        ]
        rows_of_titles = [[of[k : k + n] for k in range(0, count, n)] for of, n in zip(titles, inner, strict=True)]
        lines = [
            max(title.count("\n") + 1 if title else 0 for title in itertools.chain(*side_by_side))
            for side_by_side in itertools.zip_longest(*rows_of_titles, fillvalue=())
        ]
        for i, (n, wide) in enumerate(zip(inner, cells, strict=True)):
            ratio, left = ratios[start + i], MARGIN + i * (group_width + gap)
            width, height = min(wide, wide * TALLEST / ratio), wide * min(ratio, TALLEST)
            bottom, of_group = y, []
            for k in range(count):
                if k % n == 0:
                    top = bottom + TITLE_LINE * lines[k // n] + 2 * MARGIN
                    bottom = top + height + below
                of_group.append(
                    Place(left + k % n * (wide + MARGIN) + (wide - width) / 2, top, width, height, titles[i][k])
                )
            places.append(of_group)
            bottoms.append(bottom)
        y = max(bottoms)
    return places, MARGIN + columns * (group_width + gap) - gap + MARGIN, y + MARGIN


def _cells_across(count: int, width: float, ratio: float, cell_width: float) -> int:
    """Cells side by side, in rows as full as can be, whose pictures come nearest to a photograph's area in a cell."""

    def excess(n: int) -> float:
        return abs(math.log(((width + MARGIN) / n - MARGIN) ** 2 * ratio / (cell_width**2 * USUAL)))

    even = [-(-count // rows) for rows in range(1, count + 1)]
    return count if ratio >= USUAL else min(even, key=excess)


def _title(text: str, width: float) -> str:
    lines = 2 if width > (SMALL + LARGE) / 2 else 3
    # A name may hold characters that are no text: matplotlib refuses some, and an SVG file with others is none.
    parts = (printable(part, 1000) for part in text.split("\n"))
    return "\n".join(wrapped(part, width, TITLE, lines=lines) for part in parts)


def _draw_box(axes: Axes, box, shape: tuple[int, ...], style: Mapping) -> None:
    """Draws a half-open box in 0..1 along the outer edges of its first and last pixels, unless it has no area."""
    height, width = shape[:2]
    ymin, xmin, ymax, xmax = np.asarray(box, float) * (height, width, height, width)
    if not (ymax > ymin and xmax > xmin):
        return
    for patch in _rectangles((xmin, ymin), xmax - xmin, ymax - ymin, style):
        axes.add_patch(patch)


def _rectangles(corner: tuple[float, float], width: float, height: float, style: Mapping) -> list[Rectangle]:
    """A dark line and the styled one on top of it, so that the box is visible on any color."""
    # Not clipped, because the outer half of the line would be missing at the image's border.
    lines = ({"edgecolor": "#202020", "linewidth": LINE_WIDTH + 1.5}, {"linewidth": LINE_WIDTH, **style})
    return [Rectangle(corner, width, height, fill=False, clip_on=False, **line) for line in lines]
