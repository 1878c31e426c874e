"""Text in figures: names as they are, in fonts that have their characters."""

import functools
import textwrap
import warnings
from collections.abc import Iterator

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path


def with_names(figure: Figure) -> Figure:
    r"""Makes every text of a figure show what it says, and returns the figure.

    A text between dollar signs is no formula. Characters that Matplotlib's own font lacks, such as those of Chinese,
    are drawn in an installed font that has them. Where there is none, a warning names them, and their codes are drawn:
    `\u72d7`.
    """
    texts = list(_texts(figure))
    used = "".join(text.get_text() for text in texts)
    missing = undrawable(used)
    if missing:
        warnings.warn(
            f"no installed font has the characters {' '.join(missing)}: the figure shows their codes. Install a font "
            "that has them, such as Noto Sans CJK for Chinese, Japanese and Korean.",
            stacklevel=4,
        )
    codes = {ord(char): char.encode("unicode_escape").decode() for char in missing}
    for text in texts:
        text.set_parse_math(False)
        if families := _families(_special(text.get_text())):
            text.set_fontfamily([*text.get_fontfamily(), *families])
        if codes:
            text.set_text(text.get_text().translate(codes))
    return figure


@functools.lru_cache(maxsize=4096)
def wrapped(text: str, width: float, size: float, *, lines: int) -> str:
    """A text in lines that are no wider than `width` inches in a font of `size` points.

    What does not fit into so many lines is left out, and an ellipsis says so.
    """
    characters = max(len(text), 3)
    while characters > 2:
        found = textwrap.fill(text, characters, max_lines=lines, placeholder=" …")
        widest = max(_width(line) * size / 72 for line in found.split("\n"))
        if widest <= width:
            return found
        longest = max(map(len, found.split("\n")))
        characters = min(longest - 1, max(2, round(1.1 * longest * width / widest)))
    return "…"


def _width(text: str) -> float:
    """The width of a line of text, in font sizes."""
    lacking = undrawable(text)
    drawn = text.translate({ord(char): "MMMM" for char in lacking})  # their codes, about
    families = [*matplotlib.rcParams["font.family"], *_families(_special(drawn))]
    font = FontProperties(family=families, size=100)
    return text_to_path.get_text_width_height_descent(drawn, font, False)[0] / 100


def _texts(artist: Artist) -> Iterator[Text]:
    """Every text in an artist but the numbers at ticks, which take long to make."""
    if isinstance(artist, Text):
        yield artist
    for child in [artist.label] if isinstance(artist, Axis) else artist.get_children():
        yield from _texts(child)


def undrawable(text: str) -> list[str]:
    """The characters of a text, each once, that no installed font has."""
    special = _special(text)
    fonts = [_font(family) for family in (*matplotlib.rcParams["font.family"], *_families(special))]
    return sorted(char for char in special if not any(_has(font, char) for font in fonts))


def _special(text: str) -> frozenset[str]:
    """The characters that a font may lack: neither ASCII, nor unseen."""
    return frozenset(char for char in text if not char.isascii() and not char.isspace())


@functools.cache
def _families(characters: frozenset[str]) -> tuple[str, ...]:
    """The fewest fonts found, besides Matplotlib's own, that together have as many of the characters as any."""
    own = [_font(family) for family in matplotlib.rcParams["font.family"]]
    left = {char for char in characters if not any(_has(font, char) for font in own)}
    # Matplotlib's last resort has a box for every character.
    names = sorted({entry.name for entry in fontManager.ttflist if not entry.name.startswith("Last Resort")})
    found = []
    while left:
        covered = {name: {char for char in left if _has(_font(name), char)} for name in names}
        best = max(names, key=lambda name: len(covered[name]))
        if not covered[best]:
            break
        found.append(best)
        left -= covered[best]
    return tuple(found)


@functools.cache
def _font(family: str) -> str:
    """The file of a family's regular font."""
    return str(findfont(FontProperties(family=[family])))


@functools.lru_cache(maxsize=1 << 16)
def _has(path: str, char: str) -> bool:
    try:
        return get_font(path).get_char_index(ord(char)) != 0
    except (OSError, RuntimeError):  # a file that is no longer there, or damaged
        return False
