"""What `explain` and `compare` print and write: picture by picture, so that any number of them fits in memory."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import tyro

from camjax.addresses import local_path
from camjax.cli.figure_options import FigureOptions
from camjax.cli.options import Flag
from camjax.cli.picture_files import Picture
from camjax.errors import InputError, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from camjax.cli.photographs import ClassMaps

MOST_ROWS = 50  # of one figure
USUAL_PIXELS, USUAL_DPI = 800 * 600, 150  # of a picture in a figure: more than it gets there
MOST_PIXELS = 400_000_000  # of all pictures in a figure


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written, and where; a command takes it as it takes `FigureOptions`.

    Attributes:
      out: The figure; its suffix is its format: .png, .pdf, .svg, ... With --separate, a folder. By default it is named
        after the picture and the method, in the current folder.
      separate: One figure a picture, named as the picture is, in the folder --out; for any number of pictures.
      save_maps: Write raw maps too: NAME.npz for each picture, in the folder of --separate or in one beside the figure.
      json: Print JSON instead of tables; then a figure is drawn only with --out or --separate.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE|DIR", help_behavior_hint="")] = None
    separate: Flag = False
    save_maps: Flag = False
    json: Flag = False


class Found(NamedTuple):
    """What a command finds in a picture.

    Attributes:
      size: (H, W) in pixels.
      classes: by method, what the JSON lists.
      shown: by method, what the figure shows.
      names: of the network's classes; None if they are not known.
      table: makes the table that is printed.
      drawn: the picture's part of each argument of the figure.
    """

    size: tuple[int, int]
    classes: "Mapping[str, ClassMaps]"
    shown: "Mapping[str, ClassMaps]"
    names: Sequence[str] | None
    table: "Callable[[], Table]"
    drawn: Mapping[str, Any]


class PictureReport:
    """Prints and writes what a command finds in pictures, as `OutputOptions` say.

    Attributes:
      display_pixels: how many pixels a picture needs in its figure, at most.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        what: str,
        output: OutputOptions,
        figures: FigureOptions,
        *,
        cells: tuple[int, int],
        about: Mapping[str, Any],
    ):
        """Checks where everything is written, before any work is done.

        Args:
          pictures: files that may or may not be readable.
          what: the figure shows, for its name.
          output: what is written, and where.
          figures: how figures are drawn.
          cells: rows and columns of one picture in a figure.
          about: what the JSON says of the whole run.

        Raises:
          InputError: a path that cannot be that of a figure, or too many pictures for one figure.
          OSError: a folder is missing, or cannot be written.
        """
        from camjax.cli.figure_file import figure_path

        self._pictures, self._output, self._format, self._about = pictures, output, figures.format, about
        self._figure: Path | None = None
        self._folder: Path | None = None
        self._status: Any = None
        self._opened = False
        rows, columns = cells
        if output.separate:
            if figures.scale == "all":
                raise InputError("--scale all is for one figure: with --separate give picture, each or a number.")
            self._folder = self._maps = _folder(output.out or Path(what), pictures)
        elif output.out or not output.json:
            if len(pictures) * rows > MOST_ROWS:
                raise InputError(
                    f"{len(pictures)} images{f' of {rows} rows' * (rows > 1)}: one figure holds at most {MOST_ROWS} "
                    "rows. With --separate there is a figure for each image."
                )
            self._figure = figure_path([picture.path for picture in pictures], output.out, what, figures.format)
            self._maps = self._figure.with_name(f"{self._figure.stem}_maps")
        else:
            self._maps = Path(f"{what}_maps")
        together = 1 if output.separate else len(pictures)
        self.display_pixels = min(
            USUAL_PIXELS * (figures.dpi / USUAL_DPI) ** 2, MOST_PIXELS / (together * rows * columns)
        )

    def run(
        self,
        start: "Callable[[PictureReport], Callable[[Picture, np.ndarray], Found]]",
        draw: "Callable[..., Figure]",
    ) -> None:
        """Finds, prints and writes, one picture after the other.

        Args:
          start: loads the network once there is a picture to run it on, and makes the function that finds.
          draw: makes a figure; each of its arguments is a list of what was found in several pictures, or in one.

        Raises:
          InputError: some pictures are not readable; the others are done.
          OSError: something cannot be written.
        """
        from camjax.data.images import load_image
        from camjax.terminal import Console

        find, drawn, failed = None, list[Mapping[str, Any]](), list[Exception]()
        figure = None
        try:
            for number, picture in enumerate(self._pictures, 1):
                try:
                    photo = load_image(picture.path)
                except (InputError, OSError) as error:
                    failed.append(error)
                    self._say_unreadable(picture, error)
                    continue
                first = f"{self._about['model']}: loading, and compiling at the first start"
                line = f"{number} of {len(self._pictures)}: {picture.name}" if find else first
                with Console(stderr=True).status(line) as self._status:
                    find = find or start(self)
                    found = find(picture, photo)
                    written = self._write(picture, found, draw)
                self._say(picture, found, written)
                if self._figure:
                    drawn.append(found.drawn)
            if self._figure and drawn:
                self._save(drawn, self._figure, draw)
                figure = str(self._figure)
        finally:
            if self._opened:
                print(f'\n], "figure": {json.dumps(figure)}}}', flush=True)
        if figure and not self._output.json:
            Console().print(f"Saved {figure}", soft_wrap=True)
        if failed and len(self._pictures) == 1:
            raise failed[0]
        if failed:
            raise InputError(
                f"{len(failed)} of {len(self._pictures)} images could not be read, see above. "
                + ("The others are done." if find else "Give image files.")
            )

    def say(self, line: str) -> None:
        """Shows how far the work on a picture is."""
        self._status.update(line)

    def announce(self, sentence: str) -> None:
        """Prints a sentence about the whole run, beside its results."""
        from camjax.terminal import Console

        Console(stderr=True).print(sentence, soft_wrap=True)

    def first_photographs(self, count: int, size: tuple[int, int]) -> np.ndarray:
        """The first pictures that can be read, at most `count`: (B, H, W, 3) uint8."""
        from camjax.data.images import load_image, resize_image

        found = list[np.ndarray]()
        for picture in self._pictures:
            if len(found) < count:
                with contextlib.suppress(InputError, OSError):  # which `run` reports
                    found.append(resize_image(load_image(picture.path), size))
        return np.stack(found)

    def _write(self, picture: Picture, found: Found, draw: "Callable[..., Figure]") -> dict[str, Any]:
        """Writes the files of one picture, and returns their names as the JSON has them."""
        written: dict[str, Any] = {}
        if self._folder:
            written["figure"] = str(self._folder / f"{picture.name}.{self._format}")
            self._save([found.drawn], Path(written["figure"]), draw)
        if self._output.save_maps:
            several = len(found.shown) > 1
            written["maps"] = {
                method: str((self._maps / method if several else self._maps) / f"{picture.name}.npz")
                for method in found.shown
            }
            for method, path in written["maps"].items():
                _save_maps(Path(path), method, found)
        return written

    def _save(self, drawn: Sequence[Mapping[str, Any]], path: Path, draw: "Callable[..., Figure]") -> None:
        from camjax.figure_saving import save_figure

        path.parent.mkdir(parents=True, exist_ok=True)
        save_figure(draw(**{name: [of_picture[name] for of_picture in drawn] for name in drawn[0]}), path)

    def _say(self, picture: Picture, found: Found, written: Mapping[str, Any]) -> None:
        if self._output.json:
            rows = [row for method, of_method in found.classes.items() for row in _rows(method, of_method, found)]
            self._print_json({"file": str(picture.path), "size": found.size, "classes": rows, **written})
            return
        from camjax.terminal import Console

        console = Console()
        height, width = found.size
        console.print(f"{picture.path} ({width} x {height} pixels)", style="bold", soft_wrap=True)
        console.print(found.table(), "")
        for path in (*filter(None, [written.get("figure")]), *written.get("maps", {}).values()):
            console.print(f"Saved {path}", soft_wrap=True)

    def _say_unreadable(self, picture: Picture, error: Exception) -> None:
        reason = printable(error, 1000)
        if self._output.json:
            self._print_json({"file": str(picture.path), "error": reason})
        if len(self._pictures) > 1:  # of a single one, the end says so
            print(f"camjax: {reason}", file=sys.stderr)

    def _print_json(self, item: Mapping[str, Any]) -> None:
        """Prints a picture as a line of the one document."""
        print(",\n" if self._opened else f'{json.dumps(self._about)[:-1]}, "images": [\n', end="")
        self._opened = True
        print(json.dumps(item), end="", flush=True)


def _folder(out: Path, pictures: Sequence[Picture]) -> Path:
    """The folder of separate figures, checked; it may not exist yet."""
    local_path(out, "--out")
    above = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not above.is_dir():
        raise InputError(f"--out {out}: {above} is a file; expected a folder, since --separate writes several figures.")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"--out {out}: no permission to write in {above}; give another --out DIR.")
    folder = os.path.join(os.path.abspath(out), "")
    if within := [picture.path for picture in pictures if os.path.abspath(picture.path).startswith(folder)]:
        raise InputError(f"--out {out}: {within[0]} is in this folder; expected another one, apart from the pictures.")
    return out


def _rows(method: str, of_method: "ClassMaps", found: Found) -> list[dict[str, Any]]:
    """The classes of a picture in JSON."""
    from camjax.data.pixel_boxes import whole_pixels

    return [
        {
            "method": method,
            "id": int(class_id),
            "name": None if found.names is None else found.names[class_id],
            "rank": int(rank),
            "probability": float(probability) if math.isfinite(probability) else None,
            "box": whole_pixels(box, found.size).tolist(),
            "valid": bool(valid),
        }
        for class_id, rank, probability, _, box, valid in zip(*of_method, strict=True)
    ]


def _save_maps(path: Path, method: str, found: Found) -> None:
    """Writes the raw maps of a picture by one method; docs/conventions.md has the form."""
    from camjax.cli.class_choice import class_name
    from camjax.files import whole_file

    shown = found.shown[method]
    arrays: dict[str, Any] = {
        "maps": np.asarray(shown.maps, np.float32),
        "class_ids": shown.class_ids,
        "names": np.array([class_name(i, found.names) for i in shown.class_ids]),
        "probabilities": shown.probabilities,
        "boxes": shown.boxes,
        "valid": shown.valid,
        "size": np.array(found.size),
        "method": np.array(method),
    }
    with whole_file(path, make_parent=True) as draft, draft.open("wb") as file:
        np.savez(file, **arrays)
