"""Reading JSON whose form is known: a file of another form is an error that names the field."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

from camjax.addresses import as_path
from camjax.errors import InputError, printable

T = TypeVar("T")


def read_json(path: str | os.PathLike[str], form: type[T], *, advice: str) -> T:
    """Reads a JSON file of a known form.

        run = read_json(directory / "run.json", Run, advice="Restore the file from a copy.")

    Args:
      path: of the file, in UTF-8, or its address in a bucket.
      form: the expected form, as a type: a dataclass, a `typing_extensions.TypedDict`, or built-in types such as
        `dict[str, list[float]]`. No value is converted, but for whole numbers where floats are expected; NaN and
        Infinity are read as Python writes them. Fields that the form does not name are left out.
      advice: what to do about a damaged file, one sentence.

    Returns:
      The content, as a value of that type.

    Raises:
      OSError: the file cannot be read.
      InputError: the file is not JSON, or has another form. The message names the file, the first fields that are
        wrong, and what was expected.
    """
    return parse_json(as_path(path).read_bytes(), form, name=str(path), advice=advice)


def parse_json(text: str | bytes, form: type[T], *, name: str, advice: str) -> T:
    """Reads JSON from memory as `read_json` does; `name` says in messages where the text comes from."""
    # Imported here, since importing camjax does not need it.
    from pydantic import ValidationError

    try:
        return _reader(form)(text, strict=True)  # type: ignore[arg-type]  # mypy has no hash of a type
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        lines = [_describe(item) for item in wrong[:_SHOWN]]
        if more := len(wrong) - len(lines):
            lines.append(f"and {more} more")
        raise InputError(f"{name} is damaged, or of another form: {'; '.join(lines)}. {advice}") from None


_SHOWN = 3


@functools.cache
def _reader(form: type[T]) -> Callable[..., T]:
    from pydantic import TypeAdapter

    return TypeAdapter(form).validate_json


def _describe(wrong: Any) -> str:
    """One wrong field: its place, what was given, and what was expected."""
    message = wrong["msg"][0].lower() + wrong["msg"][1:]
    place = ".".join(map(str, wrong["loc"]))
    if wrong["type"] == "missing":
        return f"{printable(place)} is missing"
    if wrong["type"] == "json_invalid":
        return printable(message)
    return f"{printable(place) or 'the content'} is {printable(repr(wrong['input']))}: {printable(message)}"
