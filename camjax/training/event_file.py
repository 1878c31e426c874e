"""The TensorBoard event file of a run: one file, however often the run is started."""

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from camjax.errors import require_extra
from camjax.files import GrowingFile

require_extra("train", "The directory of a run", "tensorboardX")

from tensorboardX import summary  # noqa: E402
from tensorboardX.crc32c import crc32c  # noqa: E402
from tensorboardX.proto.event_pb2 import Event  # noqa: E402

_NAMES = "events.out.tfevents.*"  # what TensorBoard looks for


class EventFile:
    """Writes scalars as TensorBoard events to a `camjax.files.GrowingFile`.

    The events of earlier starts up to the step that the run resumes at are kept, in one new file, and the others are
    dropped. What a killed process left half-written is dropped too: TensorBoard would read nothing after it.

    Args:
      directory: of the run.
      step: the step at which the run starts or resumes.
    """

    def __init__(self, directory: Path, step: int = 0):
        old = sorted(directory.glob(_NAMES))
        kept = [record for path in old for record in _records(path.read_bytes()) if 0 < _step(record) <= step]
        # Written by this class and not by SummaryWriter, which has no way to go on in a file, and fails in its thread.
        path = directory / f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}"
        first = _record(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._file = GrowingFile(path, first + b"".join(kept))
        for replaced in old:
            replaced.unlink()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes a scalar for each value, by its name."""
        now = time.time()
        events = [
            Event(wall_time=now, step=step, summary=summary.scalar(name, value)) for name, value in values.items()
        ]
        self._file.write(b"".join(map(_record, events)))

    def flush(self) -> None:
        """Returns once all is in the file."""
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _record(event: Event) -> bytes:
    """Length, its checksum, content, its checksum: the format TFRecord."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return length + _checksum(length) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    """The CRC-32C, rotated and shifted as TFRecord has it."""
    crc = crc32c(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _records(content: bytes) -> Iterator[bytes]:
    """The whole records of a file, up to the first that is cut."""
    start = 0
    while start + 16 <= len(content):
        end = start + 16 + int.from_bytes(content[start : start + 8], "little")
        if end > len(content):
            return
        yield content[start:end]
        start = end


def _step(record: bytes) -> int:
    """The step of an event; 0 for one that is damaged, or has no step."""
    try:
        return Event.FromString(record[12:-4]).step
    except DecodeError:
        return 0
