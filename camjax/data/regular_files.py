"""Files that users name: what is no file, and could keep a reader waiting forever, is refused."""

import contextlib
import os
import stat
import tarfile
from pathlib import Path
from typing import Literal

from camjax.errors import InputError


def check_regular(path: str | os.PathLike[str], *, error: type[InputError] = InputError) -> None:
    """Raises an `InputError` for what is neither a file nor a folder, such as a named pipe: reading it may never end.

    What the shell hands over as `/dev/stdin` or `/dev/fd/N` passes, as do files that are not there.
    """
    if os.fspath(path).startswith(("/dev/stdin", "/dev/fd/")):
        return
    with contextlib.suppress(OSError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
            raise error(f"{path} is {kind}: expected a file. Copy its content to a file.")


def read_regular(path: str | os.PathLike[str], *, error: type[InputError] = InputError) -> bytes:
    """Reads a file that a user names, see `check_regular`. Raises OSError if it cannot be read."""
    check_regular(path, error=error)
    return Path(path).read_bytes()


_LONG_HEADERS = (*tarfile.GNU_TYPES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_MOST_IN_A_HEADER = 2**20


class _TarInfo(tarfile.TarInfo):
    """A member whose long name or attributes are refused where they are absurdly long: tarfile reads them at once."""

    def _proc_member(self, archive):
        if self.type in _LONG_HEADERS and self.type != tarfile.GNUTYPE_SPARSE and self.size > _MOST_IN_A_HEADER:
            raise tarfile.ReadError(f"the header of a member takes {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]  # Python's stubs leave it out


def open_tar(path: str | os.PathLike[str], mode: Literal["r:*", "r:"] = "r:*") -> tarfile.TarFile:
    """Opens a tar archive that strangers may have written; raises as `tarfile.open` and `check_regular` do."""
    check_regular(path)
    return tarfile.open(path, mode, tarinfo=_TarInfo)
