"""A download by HTTP that resumes where it broke off."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import requests
import rich.progress

from camjax.errors import InputError, printable
from camjax.json_files import read_json
from camjax.terminal import Console, TextColumn

_TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of data
_CHUNK = 1 << 16  # what a break may cost, at most


@dataclass(frozen=True)
class _Version:
    """What identifies a version of a file.

    Attributes:
      validator: the server's ETag or Last-Modified; "" if it sends neither.
      length: of the whole file in bytes; None if the server does not say.
    """

    validator: str
    length: int | None


class FetchError(OSError):
    """An address cannot be fetched: no network, no such file, no permission, or a server's error."""


def download(url: str, part: Path) -> None:
    """Fetches a file, with a progress bar on stderr if that is a terminal.

    `PART.json` next to the file identifies the version that is being fetched: the server's ETag or Last-Modified, and
    the whole length. Only bytes of that version are appended. If the server sends neither ETag nor Last-Modified, a
    download that broke off starts over. A broken connection is opened again as long as each one brings new bytes.

    Args:
      url: of the scheme https or http.
      part: where the file goes, and where an earlier call may have left the beginning of it.

    Raises:
      FetchError: the file cannot be fetched; the message says why, and what is kept.
    """
    transfer = _Transfer(url, part)
    with requests.Session() as session, part.open("ab") as file:
        while True:
            before = file.tell()
            try:
                if transfer.run(session, file):
                    break
                why = "the connection broke off"
            except requests.Timeout:
                why = "the server does not answer in time"
            except requests.exceptions.ChunkedEncodingError:
                why = "the connection broke off"
            except requests.ConnectionError as error:
                why = f"cannot be reached; is there a network? ({_reason(error)})"
            except requests.RequestException as error:
                why = f"the transfer failed ({printable(error)})"
            file.flush()
            if file.tell() <= before or not transfer.record.exists():
                kept = f" {file.tell()} bytes of it are here, and the next call resumes there." if before else ""
                raise FetchError(f"{url}: {why}.{kept}") from None
    transfer.record.unlink(missing_ok=True)


class _Transfer:
    """A download that may take several connections."""

    def __init__(self, url: str, part: Path):
        self.url = url
        self.name = part.stem
        self.record = part.with_name(f"{part.name}.json")

    def run(self, session: requests.Session, file: BinaryIO) -> bool:
        """Appends what one connection brings, and returns whether the file is complete."""
        known = self._known(file)
        # Lengths and ranges of a compressed transfer would not be those of the file.
        headers = {"Accept-Encoding": "identity"}
        if known:
            headers |= {"Range": f"bytes={file.tell()}-", "If-Range": known.validator}
        with session.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            status, version = response.status_code, _version(response)
            # 416: the part is at least as long as the file, so the file has changed.
            if status not in (200, 206, 416) or (status != 200 and not known):
                answer = f"{status} {printable(response.reason or '')}".strip()
                raise FetchError(f"{self.url}: the server answers {answer}.")
            if known and not (status == 206 and version == known and _first_byte(response) == file.tell()):
                self._start_over(file)
                if status != 200:
                    return self.run(session, file)
            if version.validator:
                self.record.write_text(json.dumps(dataclasses.asdict(version)))
            for chunk in self._with_progress(response, file.tell(), version.length):
                file.write(chunk)
        return version.length in (None, file.tell())

    def _known(self, file: BinaryIO) -> _Version | None:
        """The version of the part; if that is not known, empties the part and returns None."""
        if file.tell():
            with contextlib.suppress(OSError, InputError):
                return read_json(self.record, _Version, advice="It is fetched again.")
        self._start_over(file)
        return None

    def _start_over(self, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        self.record.unlink(missing_ok=True)

    def _with_progress(self, response: requests.Response, done: int, length: int | None) -> Iterator[bytes]:
        """The pieces of the response, shown in a progress bar."""
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.DownloadColumn(),
            rich.progress.TransferSpeedColumn(),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task(self.name, completed=done, total=length)
            for chunk in response.iter_content(_CHUNK):
                yield chunk
                progress.advance(task, len(chunk))


def _version(response: requests.Response) -> _Version:
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        return _Version("", None)
    etag = headers.get("ETag", "W/")
    length = headers.get("Content-Length", "")
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    # Weak ETags say that two versions mean the same, not that their bytes are equal.
    validator = headers.get("Last-Modified", "") if etag.startswith("W/") else etag
    return _Version(validator, int(length) if length.isdecimal() else None)


def _first_byte(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _reason(error: requests.ConnectionError) -> str:
    """The innermost reason of a connection error."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", cause)).splitlines()[0]
    return printable(text.partition("): ")[2] or text)
