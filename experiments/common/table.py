"""Tables of results on the terminal."""

from rich import box
from rich.table import Table


def result_table(title: str, *columns: str, caption: str | None = None) -> Table:
    """An empty table with a column of names on the left and columns of numbers, aligned on the right."""
    table = Table("", title=title, caption=caption, box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right")
    return table
