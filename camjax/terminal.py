"""What commands print on the terminal: text as it is.

Rich takes square brackets in a text for its markup, and `:cat:` for an emoji; names of files and classes have both. A
terminal obeys escape codes, which a name in a downloaded file may have. These are rich's classes without all three; a
style of ours is a `rich.text.Text`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import rich.console
import rich.progress
import rich.status
from rich.text import Text

SECONDS = 10
"""Between two lines of `progress` where there is no terminal."""


class Console(rich.console.Console):
    """A console that prints text, cells and titles of tables, and the line of `status` as they are.

    Args:
      settings: of rich's console.
    """

    def __init__(self, **settings: Any):
        super().__init__(**{"highlight": False, **settings, "markup": False, "emoji": False})

    def render_str(self, text: str, **settings: Any) -> Text:
        """The text of what is printed, and of a table's cells."""
        return super().render_str(_harmless(text), **settings)

    def status(self, status: rich.console.RenderableType, **settings: Any) -> "Status":
        """A line with a spinner, while a block runs; its `update` changes the line."""
        return Status(status, console=self, **settings)


class Status(rich.status.Status):
    """The line of `Console.status`."""

    def __init__(self, status: rich.console.RenderableType, **settings: Any):
        super().__init__(_plain(status), **settings)

    def update(self, status: rich.console.RenderableType | None = None, **settings: Any) -> None:
        """Changes the line."""
        super().update(status if status is None else _plain(status), **settings)


class TextColumn(rich.progress.TextColumn):
    """A column of text in a progress bar."""

    def __init__(self, text: str):
        super().__init__(text, markup=False)

    def render(self, task: rich.progress.Task) -> Text:
        """The text for a task."""
        return Text(_harmless(super().render(task).plain))


@contextlib.contextmanager
def progress(title: str, console: Console, unit: str = "") -> Iterator[Callable[[int, int], None]]:
    """Shows how far a long computation is: a bar in a terminal, elsewhere a line every `SECONDS`, and one at the end.

    Args:
      title: what is done.
      console: where it is shown.
      unit: of the things done, such as "images", to show how many of them a second; "" does not show it.

    Yields:
      The function (done, total) that moves it.
    """
    columns = TextColumn("{task.description}"), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn()
    rest = TextColumn("{task.fields[rate]}"), rich.progress.TimeRemainingColumn()
    lines = not console.is_terminal
    with rich.progress.Progress(*columns, *rest, console=console, disable=lines) as bar:
        task = bar.add_task(title, total=None, rate="")
        began = shown = time.monotonic()

        def move(done: int, total: int) -> None:
            nonlocal shown
            now, speed = time.monotonic(), bar.tasks[0].speed
            if lines and (done == total or now - shown >= SECONDS):
                shown, speed = now, done / max(now - began, 1e-3)
                console.print(f"{title} {done}/{total}" + (f"  {speed:.1f} {unit}/s" if unit else ""))
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f} {unit}/s" if unit and speed else "")

        yield move


def _plain(text: rich.console.RenderableType) -> rich.console.RenderableType:
    return Text(_harmless(text)) if isinstance(text, str) else text


def _harmless(text: str) -> str:
    return "".join(char if char.isprintable() or char in "\n\t" else " " for char in text)
