"""Reading the text files that people and other programs write: lists, tables, notes."""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from camjax.addresses import as_path
from camjax.data.regular_files import read_regular
from camjax.errors import InputError


def read_lines(
    path: str | os.PathLike[str], *, errors: Literal["strict", "surrogateescape"] = "strict"
) -> list[tuple[str, str]]:
    r"""Reads the lines of a text file in UTF-8, with or without a byte-order mark.

    Args:
      path: of the file. Lines end in "\n", "\r\n" or "\r"; blanks before that do not count.
      errors: "strict" refuses bytes that are not UTF-8; "surrogateescape" keeps them, as Python does in file names.

    Returns:
      For each line, empty ones too, where it is ("boxes.csv, line 3") and its text.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is not UTF-8 (the message names file and line), or no file but a named pipe, say.
    """
    data = read_regular(as_path(path))
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path} is UTF-16, as its first two bytes say. Save the file as UTF-8.")
    try:
        text = data.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        number = len(re.split(rb"\r\n|\r|\n", error.object[: error.start]))
        raise InputError(f"{path}, line {number}, is not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
    return [(f"{path}, line {number}", line.rstrip()) for number, line in enumerate(io.StringIO(text, newline=None), 1)]


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str], also: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """Reads the rows of a CSV file, in UTF-8 and with commas, whose first line names the columns, in any order.

    Args:
      path: of the file.
      columns: the names that have to be among them; each name may occur once.
      also: a sentence's end about further columns, for the message: ", and label where ...".

    Yields:
      For each row where it is ("boxes.csv, line 3"), and its fields by their column. Blank lines are left out.

    Raises:
      OSError: the file cannot be read.
      ValueError: a missing column, a row of another length, or a file that is not CSV; the message names the line.
    """
    lines = read_lines(path)
    rows = csv.reader(f"{text}\n" for _, text in lines)
    try:
        header = [name.strip() for name in next(rows, [])]
        if not set(columns) <= set(header) or len(set(header)) < len(header):
            raise InputError(
                f"{path}, line 1 names the columns {', '.join(header) or 'nothing'}: expected each of "
                f"{', '.join(columns)} once{also}."
            )
        for row in rows:
            where = lines[rows.line_num - 1][0]
            if len(row) not in (0, len(header)):
                raise InputError(f"{where} has {len(row)} fields: expected {len(header)}, as line 1 has.")
            if row:
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, near line {rows.line_num + 1}, is not CSV: {error}.") from error
