"""Tar archives from elsewhere: what their headers claim is bounded before it is read.

Python reads the name of a member, and what else its headers say, into memory at whatever length they claim: a file of a
few megabytes took gigabytes.
"""

import os
import tarfile
from typing import Literal, NoReturn

from camjax.data.regular_files import check_regular

# In bytes: of one header, and of all headers of an archive. Paths have at most 4,096.
_MAX_HEADER = 1 << 16
_MAX_HEADERS = 100_000_000

_COMPRESSED = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}

_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_PAX_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


class _Member(tarfile.TarInfo):
    # The methods of Python's own reader that read more than a block of the archive.

    def _proc_member(self, archive: "_Archive"):
        if self.type in (*_LONG_NAMES, *_PAX_HEADERS):
            archive.header_bytes += self.size
            if self.size > _MAX_HEADER or archive.header_bytes > _MAX_HEADERS:
                raise tarfile.ReadError(f"a header of {self.size:,} bytes, where names have at most 4,096")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _refuse(self, *arguments) -> NoReturn:
        raise tarfile.ReadError("a file with holes (a sparse one), which is not read here")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse


class _Archive(tarfile.TarFile):
    tarinfo = _Member
    header_bytes = 0


def open_tar(path: str | os.PathLike[str], mode: Literal["r:", "r:*"]) -> tarfile.TarFile:
    """`tarfile.open`, with a `tarfile.ReadError` for headers of more than 64 KiB, or 100 MB all together.

    Args:
      path: of the archive.
      mode: "r:" for one that is not compressed, "r:*" for gzip, bzip2, xz or none.
    """
    check_regular(path)
    if mode == "r:":
        return _Archive.open(path, mode)
    with open(path, "rb") as file:
        start = file.read(6)
    # Not tarfile's own search, whose error is that of all formats but the right one.
    kind = next((kind for mark, kind in _COMPRESSED.items() if start.startswith(mark)), "")
    return _Archive.open(path, f"r:{kind}")  # type: ignore[call-overload]  # one of its modes
