"""The lock of a run's directory: one run at a time trains in it."""

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
def run_lock(directory: Path) -> Iterator[None]:
    """Holds the lock of a directory, for the first process of a run.

    The operating system frees the lock when the process ends, however it ends. It also holds between machines, if they
    share the directory by a file system that has such locks, as NFS has.

    Raises:
      ValueError: another run holds it; the message names its process and host.
    """
    lock, note = FileLock(directory / "run.lock"), directory / "run.lock.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            holder = "process {process} on {host}, since {since}".format(**read_json(note, _Holder, advice=""))
        except (OSError, InputError):
            holder = "another process"
        raise InputError(
            f"{directory} is in use: {holder}, trains in it. Wait until it has ended, or give another run_dir."
        ) from None
    except NotImplementedError:  # the file system has no locks
        yield
        return
    with lock:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_whole(note, json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": now}))
        try:
            yield
        finally:
            note.unlink(missing_ok=True)
