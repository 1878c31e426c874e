"""A download by HTTP that goes on where it broke off."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import requests
import rich.progress
from rich.console import Console

_TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of data
_CHUNK = 1 << 16  # what a break may cost, at most


class FetchError(OSError):
    """An address cannot be fetched: no network, no such file there, no permission, a server's error."""


def download(url: str, part: Path) -> None:
    """Fetches a file, with a progress bar on stderr where that is a terminal.

    `PART.json` beside the file holds what identifies the version that is being fetched: the server's ETag or
    Last-Modified, and the whole length. Only bytes of that version are added to those that are there. Where the server
    tells neither of the first two, a download that broke off starts over. A connection that breaks is taken up again
    for as long as that gets the download ahead.

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
                why = f"the transfer failed ({error})"
            file.flush()
            if file.tell() <= before or not transfer.record.exists():
                kept = f" {file.tell()} bytes of it are here, and the next call goes on there." if before else ""
                raise FetchError(f"{url}: {why}.{kept}") from None
    transfer.record.unlink(missing_ok=True)


class _Transfer:
    """The state of a download between connections: the part, and what it is a part of."""

    def __init__(self, url: str, part: Path):
        self.url = url
        self.name = part.stem
        self.record = part.with_name(f"{part.name}.json")

    def run(self, session: requests.Session, file: BinaryIO) -> bool:
        """Adds what one connection brings; whether the file is whole then."""
        known = self._known(file)
        # Compressed on the way, lengths and ranges would be those of something else.
        headers = {"Accept-Encoding": "identity"}
        if known:
            headers |= {"Range": f"bytes={file.tell()}-", "If-Range": known["validator"]}
        with session.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            status, version = response.status_code, _version(response)
            # 416: the part is no shorter than the file, which is another one by now.
            if status not in (200, 206, 416) or (status != 200 and not known):
                raise FetchError(f"{self.url}: the server answers {status} {response.reason or ''}".rstrip() + ".")
            if known and not (status == 206 and version == known and _first_byte(response) == file.tell()):
                self._start_over(file)
                if status != 200:
                    return self.run(session, file)
            if version["validator"]:
                self.record.write_text(json.dumps(version))
            for chunk in self._with_progress(response, file.tell(), version["length"]):
                file.write(chunk)
        return version["length"] in (None, file.tell())

    def _known(self, file: BinaryIO) -> dict | None:
        """The version that the part is of; None where that is not known, and the part is empty then."""
        if file.tell():
            with contextlib.suppress(OSError, ValueError):
                known = json.loads(self.record.read_text())
                if isinstance(known, dict) and known.keys() == {"validator", "length"}:
                    return known
        self._start_over(file)
        return None

    def _start_over(self, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        self.record.unlink(missing_ok=True)

    def _with_progress(self, response: requests.Response, done: int, length: int | None) -> Iterator[bytes]:
        """The pieces of the response, and a bar that shows how far they are."""
        console = Console(stderr=True)
        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
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


def _version(response: requests.Response) -> dict:
    """What tells this version of the file from others, {"validator", "length"}: "" and None where it is not said."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity") != "identity":
        return {"validator": "", "length": None}
    etag = headers.get("ETag", "W/")
    length = headers.get("Content-Length", "")
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    return {
        # Weak ETags say that two versions mean the same, not that their bytes are.
        "validator": headers.get("Last-Modified", "") if etag.startswith("W/") else etag,
        "length": int(length) if length.isdecimal() else None,
    }


def _first_byte(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _reason(error: requests.ConnectionError) -> str:
    """What lies at the bottom of a connection error, without the objects that are wrapped around it."""
    cause = error.args[0] if error.args else error
    text = str(getattr(cause, "reason", cause)).splitlines()[0]
    return text.partition("): ")[2] or text
