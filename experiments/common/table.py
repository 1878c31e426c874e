"""Tables of results on the terminal."""

from collections.abc import Mapping

from rich import box
from rich.table import Table

from camjax.data.archives import published


def result_table(title: str, *columns: str, caption: str | None = None) -> Table:
    """An empty table with a column of names on the left and columns of numbers, aligned on the right."""
    table = Table("", title=title, caption=caption, box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def is_whole(dataset: str, images: Mapping[str, int]) -> bool:
    """Whether splits have as many images as were published, so that their numbers compare with a paper's.

    Args:
      dataset: a name of tfds.
      images: split -> number of images. A slice, such as "test[:10%]", is no whole split.
    """
    known = published(dataset)
    return known is not None and all(known.counts.get(split) == count for split, count in images.items())
