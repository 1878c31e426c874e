"""ILSVRC's validation boxes, which tensorflow-datasets' imagenet2012 lacks: an archive or a folder of XML files."""

import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from camjax.data.annotation import stem_of
from camjax.data.annotations._format import Format
from camjax.data.annotations.tfds_boxes import open_tfds
from camjax.data.annotations.voc_xml import MAX_BYTES, find_xml, parse_voc_xml, read_voc_xml
from camjax.data.pixel_boxes import ListedImage
from camjax.data.regular_files import open_tar
from camjax.errors import InputError


def read_box_files(path: str | os.PathLike[str]) -> dict[str, ListedImage]:
    """Reads the boxes of many images, as `ILSVRC2012_bbox_val_v3.tgz` has them: one file for `parse_voc_xml` an image.

    50,000 files of an archive take about eight seconds; nothing is written to disk.

    Args:
      path: the archive (.tgz, .tar.gz, .tar), or a folder with the XML files in it or below.

    Returns:
      What the files say, by the images' file names without suffix ("ILSVRC2012_val_00000001").

    Raises:
      ValueError: the archive is damaged, has no XML, two files for one image, or a file that `parse_voc_xml` refuses;
        the message names archive and file.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: expected ILSVRC2012_bbox_val_v3.tgz, or a folder of its XML.")
    found: dict[str, ListedImage] = {}
    for listed in map(read_voc_xml, find_xml(path)) if path.is_dir() else _in_archive(path):
        stem = stem_of(listed.where)
        if stem in found:
            raise InputError(
                f"{listed.where} and {found[stem].where} are both about the image {stem!r}: keep one of them."
            )
        found[stem] = listed
    if not found:
        raise InputError(f"{path} has no XML files: expected ILSVRC2012_bbox_val_v3.tgz, or a folder of its XML.")
    return found


def _in_archive(path: Path) -> Iterator[ListedImage]:
    try:
        with open_tar(path) as archive:
            for member in archive:
                last = member.name.rpartition("/")[2]
                if last.lower().endswith(".xml") and not last.startswith(".") and member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None, "a file's content, for a member that is a file"
                    yield parse_voc_xml(content.read(MAX_BYTES + 1), f"{path}: {member.name}")
            while archive.fileobj.read(MAX_BYTES):
                pass  # gzip's check sum, the only sign of a damaged digit, is at the very end
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise InputError(
            f"{path} cannot be read as an archive: {error}. Get a complete copy of ILSVRC2012_bbox_val_v3.tgz."
        ) from error


FORMAT = Format(
    title="a data set of tfds with boxes in XML files",
    options=("data_dir", "boxes", "blacklist"),
    recognizes=lambda request: not request.is_folder and request.boxes is not None,
    open=lambda request: open_tfds(request, read_box_files),
)
