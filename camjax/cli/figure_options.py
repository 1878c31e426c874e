"""The options of every command that draws figures: one name, one sentence and one check for each."""

import difflib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from camjax.cli.options import Count, Flag, OptionalCount, Share
from camjax.errors import InputError

LOWEST_DPI, HIGHEST_DPI = 20, 1200
SCALES = ("picture", "all", "each")


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """How figures are drawn.

    A command takes it as `figures: Annotated[FigureOptions, tyro.conf.arg(name="")]`, and hands `figures.drawing()` on
    to functions of `camjax.viz`.

    Attributes:
      dpi: Pixels an inch of figures, and of the pictures in a PDF or SVG.
      columns: Pictures (compare: methods) side by side; by default what suits their number.
      colormap: Colors of the maps, by matplotlib's name: jet, turbo, viridis, magma, ...
      alpha: Share of the map's color in the picture, 0..1.
      no_box: Draw no boxes.
      colorbar: Draw the colors with the values of their ends.
      scale: Colors run from 0 to the greatest value of a "picture"'s maps by one method, of "all" maps in a figure, or
        to a number; with "each", from every map's least value to its greatest, however small.
      format: Format of figures whose names --out does not give.

    Raises:
      InputError: a value out of range, an unknown colormap or scale.
    """

    dpi: Count = 150
    columns: OptionalCount = None
    colormap: Annotated[str, tyro.conf.arg(metavar="NAME")] = "jet"
    alpha: Share = 0.5
    no_box: Flag = False
    colorbar: Flag = False
    scale: Annotated[str, tyro.conf.arg(metavar="picture|all|each|MAX")] = "picture"
    format: Literal["png", "pdf", "svg"] = "png"

    def __post_init__(self):
        if not LOWEST_DPI <= self.dpi <= HIGHEST_DPI:
            raise InputError(f"--dpi {self.dpi}: expected {LOWEST_DPI}..{HIGHEST_DPI} pixels an inch.")
        if self.columns is not None and self.columns < 1:
            raise InputError(f"--columns {self.columns}: expected at least 1.")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"--alpha {self.alpha}: expected the share of the map's color in the picture, in 0..1.")
        if self.colormap != "jet":
            from matplotlib import colormaps  # takes as long to import as `camjax --help` takes

            if self.colormap not in colormaps:
                near = difflib.get_close_matches(self.colormap, list(colormaps), 3)
                hint = f"Did you mean {', '.join(near)}?" if near else "Give jet, turbo, viridis, magma or gray."
                raise InputError(f"--colormap {self.colormap!r}: expected a colormap of matplotlib. {hint}")
        if self.scale not in SCALES and not 0 < self._greatest() < float("inf"):
            raise InputError(f"--scale {self.scale!r}: expected {', '.join(SCALES)}, or a number above 0.")

    def drawing(self) -> dict[str, Any]:
        """The arguments by name that functions of `camjax.viz` have in common."""
        return {
            "dpi": self.dpi,
            "columns": self.columns,
            "colormap": self.colormap,
            "alpha": self.alpha,
            "draw_boxes": not self.no_box,
            "colorbar": self.colorbar,
            "scale": self.scale if self.scale in SCALES else self._greatest(),
        }

    def _greatest(self) -> float:
        try:
            return float(self.scale)
        except ValueError:
            return float("nan")
