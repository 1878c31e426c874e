"""ILSVRC's list of validation images that do not count."""

import re
from pathlib import Path

from camjax.data.annotation import AnnotatedSource, stem_of
from camjax.data.text_files import read_lines
from camjax.errors import InputError

NUM_VALIDATION_IMAGES = 50_000


def read_blacklist(path: Path | None) -> frozenset[str]:
    """Reads `ILSVRC2014_clsloc_validation_blacklist.txt` of ILSVRC's development kit; None is an empty list.

    It numbers, from 1 and one a line, the 1,762 of 50,000 validation images whose boxes are too poor to count; ILSVRC's
    evaluation leaves them out. The files of other years hold the same.

    Returns:
      File names without suffix, such as "ILSVRC2012_val_00000036".

    Raises:
      OSError: the file cannot be read.
      ValueError: a line that is not a number in 1..50000, or a number listed twice; the message names file and line.
    """
    lines: dict[int, str] = {}
    for where, line in [] if path is None else read_lines(path):
        if not (text := line.strip()):
            continue
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        if not 1 <= number <= NUM_VALIDATION_IMAGES:
            raise InputError(
                f"{where}: {text[:40]!r}: expected the number of a validation image, 1..{NUM_VALIDATION_IMAGES}."
            )
        if number in lines:
            raise InputError(f"{where}: {number} is listed already, in {lines[number]}. Remove one of the lines.")
        lines[number] = where
    return frozenset(f"ILSVRC2012_val_{number:08d}" for number in lines)


def check_blacklist(path: Path | None, source: AnnotatedSource) -> None:
    """Raises ValueError if a list was given, and the images are not ILSVRC's validation images."""
    if path is None or not len(source):
        return
    filename = source.annotation(0).filename
    if not re.fullmatch(r"ILSVRC2012_val_\d{8}", stem_of(filename)):
        raise InputError(
            f"{path} lists ILSVRC validation images, but this data set has files such as {filename!r}: expected "
            "names such as 'ILSVRC2012_val_00000001.JPEG'. Leave the blacklist out."
        )
