"""Writing files that are there whole or not at all, whenever the process is stopped."""

import contextlib
import functools
import os
import re
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from camjax.addresses import as_path, is_address, make_folder, upload, upload_folder

UPLOAD_SECONDS = 10
"""How often a `GrowingFile` in a bucket is replaced."""


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, make_parent: bool = False) -> Iterator[Path]:
    """Replaces a file once the block has written its new content in full.

        with whole_file("net.safetensors") as draft:
            save_file(tensors, draft)

    The block writes a draft next to the file. Afterwards the draft is flushed to disk, and renamed to the file in
    one step: a reader sees the old content or the new. The file's mode follows the umask, for any library that writes
    the draft. Where the block raises, the draft is removed and the file stays as it was. The draft of a killed process
    is removed when the next process of this machine writes to the folder.

    In a bucket, the draft is a file of this machine, and the object is replaced by it.

    Args:
      path: of the file, or the address of an object.
      make_parent: create its folder, and those above it, where they are missing.

    Yields:
      The path of the draft, an empty file; the block may replace it.

    Raises:
      OSError: the file cannot be written; the message names it.
    """
    path = as_path(path)
    if is_address(path):
        with tempfile.TemporaryDirectory(prefix="camjax-") as folder:
            draft = Path(folder, path.name)
            draft.touch()
            yield draft
            upload(path, draft)
        return
    if make_parent:
        make_folder(path.parent)
    _remove_left_drafts(path.parent)
    # Two processes that write the same file have two drafts, on machines that share a disk as well.
    draft = path.with_name(f"{path.name}.{_machine()}-{os.getpid()}.draft")
    try:
        draft.write_bytes(b"")
        mode = draft.stat().st_mode
        yield draft
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        draft.chmod(mode)
        draft.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        # Of a full disk, Python does not say which file it was.
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


_DRAFT = re.compile(r"\.([0-9a-f]{8})-(\d{1,7})\.draft$")


@functools.cache
def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


@functools.cache
def _remove_left_drafts(folder: Path) -> None:
    """Removes, once for each folder, the drafts of this machine's processes that have ended."""
    with contextlib.suppress(OSError):  # writing says what is wrong with the folder
        for name in os.listdir(folder):
            if (found := _DRAFT.search(name)) and found[1] == _machine() and has_ended(int(found[2])):
                (folder / name).unlink(missing_ok=True)


def has_ended(process: int) -> bool:
    """Whether no process with this number runs on this machine, for any user."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def write_whole(path: str | os.PathLike[str], content: str | bytes, *, make_parent: bool = False) -> None:
    """Writes a file by `whole_file`; text as UTF-8."""
    with whole_file(path, make_parent=make_parent) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def filled_folder(path: Path) -> Iterator[Path]:
    """A folder to write many small files to, one by one: the folder itself, or one that then goes to a bucket."""
    if not is_address(path):
        path.mkdir(exist_ok=True)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="camjax-") as folder:
        yield Path(folder)
        upload_folder(path, Path(folder))


class GrowingFile:
    """A file that grows while a program runs, such as a log, and is there from its start.

    What `write` got is in the file when it returns. An object of a bucket can't grow: it is replaced by a longer one,
    in the background, at most every `UPLOAD_SECONDS`, and whenever `flush` or `close` is called.

    Args:
      path: of the file, or the address of an object.
      content: of the file at first, in place of what it has.
    """

    def __init__(self, path: Path, content: bytes = b""):
        self.path = path
        write_whole(path, content)
        self._file: BinaryIO | None = None
        if not is_address(path):
            self._file = path.open("ab", buffering=0)
            return
        self._content, self._uploaded, self._last = bytearray(content), len(content), time.monotonic()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._upload: Future[None] | None = None

    def write(self, content: bytes) -> None:
        """Adds to the file.

        Raises:
          OSError: this or an earlier content cannot be written.
        """
        if self._file is not None:
            self._file.write(content)
            return
        self._content += content
        if time.monotonic() - self._last > UPLOAD_SECONDS and (self._upload is None or self._upload.done()):
            self._start_upload()

    def flush(self) -> None:
        """Returns once all is on the disk, or in the bucket; raises OSError."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        else:
            self._wait()
            if self._uploaded < len(self._content):
                self._start_upload()
                self._wait()

    def close(self) -> None:
        """Flushes and closes the file; raises OSError."""
        if self._file is not None:
            self._file.close()
            return
        try:
            self.flush()
        finally:
            self._pool.shutdown()

    def _start_upload(self) -> None:
        self._wait()
        self._uploaded, self._last = len(self._content), time.monotonic()
        self._upload = self._pool.submit(upload, self.path, bytes(self._content))

    def _wait(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.result()
