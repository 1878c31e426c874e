"""Locks that a process holds on a directory while it writes there."""

import contextlib
import datetime
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from typing_extensions import TypedDict

from camjax.addresses import is_address, reaching
from camjax.errors import InputError
from camjax.files import has_ended, write_whole
from camjax.json_files import read_json

BEAT_SECONDS, STALE_SECONDS, _RACE_SECONDS = 10.0, 40.0, 0.5
"""Of the lock in a bucket: how often its holder says that it lives, after which silence it counts as dead, and how long
a process waits to see whether another one took the lock in the same moment."""

_held: set[str] = set()
"""The tokens of the locks in buckets that this process holds."""


class _Holder(TypedDict):
    process: int
    host: str
    since: str


@contextlib.contextmanager
def directory_lock(directory: Path, name: str, sentence: str, *, timeout: float = 0) -> Iterator[None]:
    """Holds a lock of a directory.

    The operating system frees the lock when the process ends, however it ends. It also holds between machines, if they
    share the directory by a file system that has such locks, as NFS has.

    A bucket has no locks. There `NAME.lock.json` is the lock, and its holder renews it every `BEAT_SECONDS`. Who finds
    one of a process that has ended on this machine takes it at once, and another one after `STALE_SECONDS` of silence.

    Args:
      directory: where the lock is; `NAME.lock.json` beside it says who holds it.
      name: of the lock.
      sentence: of the error, what the holder does and what to do, such as "trains in it. Wait until it has ended."
      timeout: seconds to wait for the holder.

    Raises:
      ValueError: another process holds it; the message names its process and host.
    """
    if is_address(directory):
        with _lease(directory, name, sentence, timeout):
            yield
        return
    lock, note = FileLock(directory / f"{name}.lock"), directory / f"{name}.lock.json"
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        try:
            holder: Any = read_json(note, _Holder, advice="")
        except (OSError, InputError):
            holder = None
        raise _in_use(directory, holder, sentence) from None
    except NotImplementedError:  # the file system has no locks
        yield
        return
    try:
        write_whole(note, json.dumps(_this_process()))
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def lock_names(directory: Path) -> list[str]:
    """The names of the locks of a directory, those that nobody holds too."""
    names = [path.name.removesuffix(".json") for path in directory.glob("*.lock*")]
    return sorted({name.removesuffix(".lock") for name in names if name.endswith(".lock")})


def _this_process() -> dict[str, Any]:
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "since": now}


def _in_use(directory: Path, holder: dict[str, Any] | None, sentence: str) -> InputError:
    who = "process {process} on {host}, since {since}".format(**holder) if holder else "another process"
    return InputError(f"{directory} is in use: {who}, {sentence}")


class _Lease(_Holder):
    token: str
    beat: int


@contextlib.contextmanager
def _lease(directory: Path, name: str, sentence: str, timeout: float) -> Iterator[None]:
    """Holds a lock in a bucket, see `directory_lock`."""
    note = directory / f"{name}.lock.json"
    _wait_for_silence(directory, note, sentence, timeout)
    lease = {**_this_process(), "token": uuid.uuid4().hex}
    write_whole(note, json.dumps({**lease, "beat": 0}))
    time.sleep(_RACE_SECONDS)
    if (holder := _read_lease(note)) is None or holder["token"] != lease["token"]:
        raise _in_use(directory, holder, sentence)
    ended = threading.Event()

    def renew() -> None:
        beat = 0
        while not ended.wait(BEAT_SECONDS):
            beat += 1
            with contextlib.suppress(OSError):  # the next one may get through
                write_whole(note, json.dumps({**lease, "beat": beat}))

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    _held.add(lease["token"])
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _held.discard(lease["token"])
        with reaching(note):
            note.unlink(missing_ok=True)


def _wait_for_silence(directory: Path, note: Path, sentence: str, timeout: float) -> None:
    """Returns once nobody holds the lock; InputError if its holder lives on for more than `timeout` seconds."""
    began = heard = time.monotonic()
    renewed, first = False, True
    seen = holder = _read_lease(note)
    while holder is not None and not _has_ended_here(holder):
        if holder != seen:
            seen, heard, renewed = holder, time.monotonic(), True
        if renewed and time.monotonic() - began >= timeout:
            raise _in_use(directory, holder, sentence)
        if time.monotonic() - heard > STALE_SECONDS:
            return
        if first:
            first = False
            who = "process {process} on {host}".format(**holder)
            print(f"{directory}: waiting to see whether {who} still works in it.", file=sys.stderr, flush=True)
        time.sleep(min(1.0, BEAT_SECONDS / 4))
        holder = _read_lease(note)


def _read_lease(note: Path) -> Any:
    """The holder of a lock in a bucket; None for nobody."""
    with reaching(note):
        if not note.exists():
            return None
    try:
        return read_json(note, _Lease, advice="Delete it.")
    except FileNotFoundError:
        return None


def _has_ended_here(holder: _Lease) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    if holder["host"] != socket.gethostname():
        return False
    if holder["process"] == os.getpid():
        return holder["token"] not in _held
    return has_ended(holder["process"])
