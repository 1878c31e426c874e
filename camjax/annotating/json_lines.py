"""Writing long JSON files piece by piece, in memory that does not grow."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from camjax.files import whole_file


def write_object(path: Path, fields: Mapping[str, Any]) -> None:
    """Writes a JSON object, whole or not at all; a field that is an iterator becomes a list, an item a line."""
    with whole_file(path) as draft, draft.open("w") as file:
        file.write("{")
        for number, (name, value) in enumerate(fields.items()):
            file.write(f"{',' if number else ''}\n{json.dumps(name)}: ")
            if isinstance(value, Iterator):
                _write_list(file, value)
            else:
                file.write(json.dumps(value))
        file.write("\n}\n")


def _write_list(file: IO[str], items: Iterator[Any]) -> None:
    before = "["
    for item in items:
        file.write(f"{before}\n{json.dumps(item)}")
        before = ","
    file.write("]" if before == "," else "[]")
