"""Locks that a process holds on a directory while it writes there."""

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import TypedDict

from camjax.errors import InputError
from camjax.files import write_whole
from camjax.json_files import read_json


class _Holder(TypedDict):
    process: int
    host: str
    since: str


@contextlib.contextmanager
def directory_lock(directory: Path, name: str, sentence: str, *, timeout: float = 0) -> Iterator[None]:
    """Holds a lock of a directory.

    The operating system frees the lock when the process ends, however it ends. It also holds between machines, if they
    share the directory by a file system that has such locks, as NFS has.

    Args:
      directory: where the lock is; `NAME.lock.json` beside it says who holds it.
      name: of the lock.
      sentence: of the error, what the holder does and what to do, such as "trains in it. Wait until it has ended."
      timeout: seconds to wait for the holder.

    Raises:
      ValueError: another process holds it; the message names its process and host.
    """
    lock, note = FileLock(directory / f"{name}.lock"), directory / f"{name}.lock.json"
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        try:
            holder = "process {process} on {host}, since {since}".format(**read_json(note, _Holder, advice=""))
        except (OSError, InputError):
            holder = "another process"
        raise InputError(f"{directory} is in use: {holder}, {sentence}") from None
    except NotImplementedError:  # the file system has no locks
        yield
        return
    try:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_whole(note, json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}))
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()
