"""The file of a command's figure: its path, checked before any work is done."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from camjax.addresses import as_path, is_address, make_folder
from camjax.errors import InputError, printable
from camjax.figure_saving import save_figure


def figure_path(images: Sequence[Path], out: Path | None, what: str, format: str = "png") -> Path:
    """The path of the figure, checked before any work is done.

    Args:
      images: the photographs that are shown, which it must not overwrite.
      out: as given by the user; None for a name in the current directory.
      what: what the figure shows, for that name.
      format: the suffix of that name.

    Raises:
      ValueError: `out` is one of the images, a directory, or has a suffix of a format that matplotlib cannot write
        here: some need another program or library.
      OSError: its directory does not exist, or it cannot be written.
    """
    if out is None:
        out = Path(f"{images[0].stem}_{what}.{format}" if len(images) == 1 else f"{what}.{format}")
    in_bucket = is_address(out)
    out = as_path(out)
    formats = FigureCanvasBase.get_supported_filetypes()
    if out.is_dir():
        raise InputError(
            f"--out {out} is a directory: expected a file, such as {out / 'cam.png'}, or --separate for several in it."
        )
    if out.suffix[1:].lower() not in formats:
        raise InputError(
            f"--out {out}: expected a file that ends in .png, or in one of .{', .'.join(sorted(formats))}."
        )
    if in_bucket:
        make_folder(out.parent)
    elif any(out.resolve() == image.resolve() for image in images):
        raise InputError(f"--out {out} is one of the images: expected another file, the figure would overwrite it.")
    elif not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the directory {out.parent} does not exist; create it first.")
    elif not os.access(out if out.exists() else out.parent, os.W_OK):
        raise PermissionError(f"--out {out}: no permission to write there; give another --out FILE.")
    if out.suffix.lower() != ".png":
        _try_format(out)
    return out


def _try_format(out: Path) -> None:
    """Writes a small figure in the same format."""
    figure = Figure(figsize=(1, 1))
    figure.text(0, 0, "a")
    figure.figimage([[0.0, 1.0]])
    with tempfile.TemporaryDirectory() as directory:
        try:
            save_figure(figure, Path(directory, "figure" + out.suffix))
        except Exception as error:
            raise InputError(
                f"--out {out}: {out.suffix} cannot be written here ({printable(error)}). Give another format, such as "
                ".png or .pdf."
            ) from error
