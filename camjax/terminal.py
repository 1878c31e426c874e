"""What commands print on the terminal: text as it is.

Rich takes square brackets in a text for its markup, and `:cat:` for an emoji. Names of files and classes have both.
These are rich's classes without either; a style of ours is a `rich.text.Text`.
"""

from typing import Any

import rich.console
import rich.progress
import rich.status
from rich.text import Text


class Console(rich.console.Console):
    """A console that prints text, cells and titles of tables, and the line of `status` as they are.

    Args:
      settings: of rich's console.
    """

    def __init__(self, **settings: Any):
        super().__init__(**{"highlight": False, **settings, "markup": False, "emoji": False})

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


def _plain(text: rich.console.RenderableType) -> rich.console.RenderableType:
    return Text(text) if isinstance(text, str) else text
