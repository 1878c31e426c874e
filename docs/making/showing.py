"""How executed pages show figures."""

import io
from collections.abc import Sequence

from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure


def show(figures: Sequence[Figure], notes: Sequence[str] = ()) -> None:
    """Shows figures as JPEG files, and a list of notes below them."""
    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="jpeg", pil_kwargs={"quality": 88})
        display(Image(file.getvalue(), format="jpeg"))
    if notes:
        display(Markdown("\n".join(f"- {note}" for note in notes)))
