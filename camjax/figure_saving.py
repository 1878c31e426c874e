"""Writing figures: the same bytes each time, with text that can be searched and edited."""

import os
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from camjax.addresses import as_path
from camjax.errors import InputError
from camjax.files import whole_file

LARGEST_SIDE, MOST_PIXELS = 2**16 - 1, 400_000_000  # matplotlib's limit, and 1.6 GB

# Fonts are embedded as TrueType in PDF, which publishers ask for, and text stays text in SVG.
_SETTINGS: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "camjax"}
_OPTIONS: dict[str, dict] = {
    # The default compression takes longer than drawing the figure, and makes the file only a tenth smaller.
    "png": {"pil_kwargs": {"compress_level": 1}},
    "pdf": {"metadata": {"CreationDate": None}},
    "svg": {"metadata": {"Date": None}},
}


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure in the format of the file's suffix; the file is there whole or not at all.

    Raises:
      InputError: the figure has more pixels than fit in memory.
      OSError: the file cannot be written.
    """
    path = as_path(path)
    suffix = path.suffix[1:].lower()
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    if suffix not in ("pdf", "svg") and (max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS):
        raise InputError(
            f"{path}: the figure would have {width} x {height} pixels; expected at most {LARGEST_SIDE} a side and "
            f"{MOST_PIXELS // 10**6} million in all. Lower the dpi, show fewer pictures, or write a PDF."
        )
    with matplotlib.rc_context(_SETTINGS), whole_file(path) as draft:
        figure.savefig(draft, format=suffix, **_OPTIONS.get(suffix, {}))
