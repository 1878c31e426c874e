"""The exception for what a user can correct, and how the errors of libraries become one."""

import contextlib
import importlib.util
import textwrap
from collections.abc import Collection, Iterator
from itertools import islice


class InputError(ValueError):
    """An argument, an option or a file that the caller can correct.

    The message says what was given, what was expected, and what to do. A command prints it as one line, without a
    traceback; any other `ValueError` counts as a bug.
    """


def printable(text: object, limit: int = 200) -> str:
    """One line of a text that comes from elsewhere: without control characters, and cut to `limit` characters.

    A file or a server could otherwise send escape codes to the terminal.
    """
    line = "".join(char if char.isprintable() else " " for char in str(text)[: 4 * limit])
    return textwrap.shorten(line, limit, placeholder=" ...") if len(line) > limit else line


def few(entries: Collection[object], most: int = 10) -> str:
    """The first few of many names, and how many more there are."""
    shown = ", ".join(printable(entry, 80) for entry in islice(entries, most))
    return f"{shown} and {len(entries) - most} more" if len(entries) > most else shown


def require_extra(extra: str, what: str, *packages: str, advice: str = "") -> None:
    """Raises the error that names an extra of camjax, unless its packages are installed; imports none of them.

    Args:
      extra: as in pyproject.toml.
      what: needs the packages: the beginning of a sentence.
      packages: as they are imported.
      advice: further sentences.

    Raises:
      ImportError: a package is not installed.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"{what} needs the package {package}, which is not installed. To install it:\n"
                f'  pip install "camjax[{extra}]"' + (f"\n{advice}" if advice else "")
            )


@contextlib.contextmanager
def reading(name: object, what: str, advice: str, *, error: type[InputError] = InputError) -> Iterator[None]:
    """Turns what a library raises about a damaged file into one error of camjax.

        with reading(path, "features of camjax", "Delete the file, and extract them again."):
            shard = np.load(path)

    An `InputError`, an error of the operating system (no such file, no permission) and `MemoryError` pass unchanged.

    Args:
      name: of the file.
      what: the expected content: "an image", "weights of PyTorch".
      advice: what to do, one sentence.
      error: the class to raise.

    Raises:
      InputError: any other exception in the block, as `error`; the message has its class and its first line.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as cause:
        # A library's own OSError about the content, such as that of Pillow, has no error number.
        if isinstance(cause, OSError) and cause.errno is not None:
            raise
        reason = f"{type(cause).__name__}: {printable(cause)}" if str(cause) else type(cause).__name__
        raise error(f"{name} is not {what}, or damaged ({reason}). {advice}") from cause
