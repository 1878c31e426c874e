"""ILSVRC's validation boxes and its list of images that do not count, which tensorflow-datasets lacks."""

import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from camjax.data.annotation import stem_of
from camjax.data.voc_xml import MAX_BYTES, VocAnnotation, parse_voc_xml

NUM_VALIDATION_IMAGES = 50_000

_VALIDATION_NAME = re.compile(r"ILSVRC2012_val_\d{8}")


def read_box_files(path: str | os.PathLike) -> dict[str, VocAnnotation]:
    """Reads the boxes of many images, as `ILSVRC2012_bbox_val_v3.tgz` has them: one VOC-style XML file an image.

    50,000 files of an archive take about eight seconds; nothing is written to disk. `parse_voc_xml` says what a box is.

    Args:
      path: the archive (.tgz, .tar.gz, .tar), or a folder with the XML files in it or below.

    Returns:
      For each image, by its file name without suffix ("ILSVRC2012_val_00000001"), what its file says.

    Raises:
      FileNotFoundError: there is no such file or folder.
      ValueError: the archive is damaged, has no XML, two files for one image, or a file that `parse_voc_xml` refuses;
        the message names archive and file.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected ILSVRC2012_bbox_val_v3.tgz, or a folder of its XML.")
    found: dict[str, VocAnnotation] = {}
    for name, data in _folder_files(path) if path.is_dir() else _archive_files(path):
        stem = stem_of(name)
        if stem in found:
            raise ValueError(f"{name} and {found[stem].name} are both about the image {stem!r}: keep one of them.")
        found[stem] = parse_voc_xml(data, name)
    if not found:
        raise ValueError(f"{path} has no XML files: expected ILSVRC2012_bbox_val_v3.tgz, or a folder of its XML.")
    return found


def read_blacklist(path: str | os.PathLike) -> frozenset[str]:
    """Reads `ILSVRC2014_clsloc_validation_blacklist.txt` of ILSVRC's development kit.

    It numbers, from 1 and one a line, the 1,762 of 50,000 validation images whose boxes are too poor to count; ILSVRC's
    evaluation leaves them out. The files of other years hold the same.

    Returns:
      File names without suffix, such as "ILSVRC2012_val_00000036".

    Raises:
      OSError: the file can't be read.
      ValueError: a line that is no number in 1..50000, or one that repeats another; the message names file and line.
    """
    lines: dict[int, int] = {}
    for line, text in enumerate(Path(path).expanduser().read_text(errors="replace").splitlines(), 1):
        text = text.strip()
        if not text:
            continue
        number = int(text) if text.isascii() and text.isdecimal() else 0
        if not 1 <= number <= NUM_VALIDATION_IMAGES:
            raise ValueError(
                f"{path}, line {line}: {text[:40]!r}: expected the number of a validation image, "
                f"1..{NUM_VALIDATION_IMAGES}."
            )
        if number in lines:
            raise ValueError(f"{path}, line {line}: {number} stands in line {lines[number]} already: remove one.")
        lines[number] = line
    return frozenset(f"ILSVRC2012_val_{number:08d}" for number in lines)


def check_validation_name(filename: str, list_name: str) -> None:
    """Raises ValueError where a file name is not one of ILSVRC's validation images, which a blacklist is about."""
    if not _VALIDATION_NAME.fullmatch(stem_of(filename)):
        raise ValueError(
            f"{list_name} lists ILSVRC validation images, and this data set has files such as {filename!r}: expected "
            "names such as 'ILSVRC2012_val_00000001.JPEG'. Leave the blacklist out."
        )


def _folder_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".xml" and not path.name.startswith("."):
            with path.open("rb") as file:
                yield str(path), file.read(MAX_BYTES + 1)


def _archive_files(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                last = member.name.rpartition("/")[2]
                # macOS adds files "._name.xml" that are no XML.
                if member.isfile() and last.lower().endswith(".xml") and not last.startswith("."):
                    yield f"{path}: {member.name}", archive.extractfile(member).read(MAX_BYTES + 1)
            while archive.fileobj.read(MAX_BYTES):
                pass  # gzip's check sum, which alone tells a damaged digit, stands at the very end
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as an archive: {error}. Get a complete copy of ILSVRC2012_bbox_val_v3.tgz."
        ) from error
