"""Files that users name: what is no file, and could keep a reader waiting forever, is refused."""

import contextlib
import os
import stat

from camjax.addresses import as_path
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
    return as_path(path).read_bytes()
