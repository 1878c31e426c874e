"""The unfinished state of an annotation: parts of a fixed number of pictures, each there whole or not at all.

`OUT/parts` holds what the parts depend on, a file for each finished part, and the locks of the processes that work.
It goes once the manifest is there.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from camjax.addresses import is_address, make_folder, reaching
from camjax.annotating.options import Options
from camjax.annotating.pictures import Pictures
from camjax.annotating.records import Picture, read_part
from camjax.errors import InputError, printable
from camjax.files import write_whole
from camjax.json_files import read_json
from camjax.locks import directory_lock, lock_names

PICTURES = 256
"""The number of pictures in a part, rounded up to whole batches."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which parts a process computes: those of `index` of `count` processes, counted from 0."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise InputError(
                f"shard {self.index}/{self.count}: expected I/N with 0 <= I < N; the first of N shards is 0/N."
            )

    @property
    def name(self) -> str:
        """Of its lock and its marker."""
        return f"shard-{self.index}-of-{self.count}" if self.count > 1 else "all"

    def has(self, part: int) -> bool:
        """Whether a part belongs to the shard."""
        return part % self.count == self.index


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of an annotation.

    Attributes:
      out: the folder of results.
      settings: what the results depend on, in JSON's types.
      number: of pictures.
      size: pictures in a part.
    """

    out: Path
    settings: dict[str, Any]
    number: int
    size: int

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self.out / "parts"

    @property
    def count(self) -> int:
        """The number of parts."""
        return -(-self.number // self.size)

    def path(self, part: int) -> Path:
        """The file of a part."""
        return self.directory / f"part-{part:06}.json"

    def pictures_of(self, part: int) -> range:
        """The places of a part's pictures among all."""
        return range(part * self.size, min((part + 1) * self.size, self.number))

    def missing(self, shard: Shard | None = None) -> list[int]:
        """The parts, of a shard or of all, that are not finished."""
        finished = {path.name for path in self.directory.iterdir()} if self.directory.is_dir() else set()
        mine = range(self.count) if shard is None else filter(shard.has, range(self.count))
        return [part for part in mine if self.path(part).name not in finished]

    def open(self) -> None:
        """Creates the directory; ValueError if it holds parts of an annotation with other settings."""
        make_folder(self.directory)
        path = self.directory / "settings.json"
        if not path.exists():
            write_whole(path, json.dumps(self.settings, indent=1))
        check_settings(self.out, read_json(path, dict[str, Any], advice=self._advice), self.settings)

    @contextlib.contextmanager
    def lock(self, shard: Shard, *, finishing: bool = False) -> Iterator[None]:
        """Keeps other processes from the same parts, and from all parts where this one finishes the annotation.

        Raises:
          ValueError: another process works on some of the same parts.
        """
        sentence = "annotates there. Wait until it has ended, or give another folder."
        own = "finish" if finishing else shard.name
        with directory_lock(self.directory, own, sentence):
            beside = re.compile(rf"shard-\d+-of-{shard.count}" if shard.count > 1 and not finishing else own)
            for name in lock_names(self.directory):
                if not beside.fullmatch(name):
                    # Another process of this run may be about to end.
                    with directory_lock(self.directory, name, sentence, timeout=10 if finishing else 0):
                        pass
            write_whole(self.directory / f"{shard.name}.started", b"")
            yield

    def check_all_there(self) -> None:
        """Raises ValueError that names the shards whose parts are missing."""
        missing = self.missing()
        if not missing:
            return
        names = [path.stem for path in self.directory.glob("*.started")] if self.directory.is_dir() else []
        counts = sorted({int(found[1]) for name in names if (found := re.fullmatch(r"shard-\d+-of-(\d+)", name))})
        shards = [", ".join(f"{i}/{n}" for i in sorted({part % n for part in missing})) for n in counts]
        whose = f"those of --shard {', or '.join(shards)}" if shards else "no shard has begun"
        raise InputError(
            f"{self.out}: {len(missing)} of {self.count} parts are missing: {whose}. Run them, then merge."
        )

    def write(self, part: int, pictures: Sequence[Picture]) -> None:
        """Writes a finished part."""
        write_whole(self.path(part), json.dumps(pictures))

    def pictures(self) -> Iterator[Picture]:
        """All pictures, part by part."""
        for part in range(self.count):
            pictures = read_part(self.path(part), self._advice)
            if len(pictures) != len(self.pictures_of(part)):
                raise InputError(f"{self.path(part)} is damaged: it has {len(pictures)} pictures. {self._advice}")
            yield from pictures

    def remove(self) -> None:
        """Removes what only an unfinished annotation needs."""
        if is_address(self.directory):
            with reaching(self.directory), contextlib.suppress(FileNotFoundError):
                self.directory.rmtree()  # type: ignore[attr-defined]  # epath has it
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _advice(self) -> str:
        return f"Delete {self.directory}, and start again."


def settings_of(pictures: Pictures, options: Options, model: str, weights_sha256: str, version: str) -> dict[str, Any]:
    """What the results depend on, in JSON's types."""
    digest = hashlib.sha256()
    for name in pictures.names:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    return json_types(
        {
            "format": 1,
            "camjax": version,
            "folder": str(pictures.folder),
            "pictures": len(pictures),
            "list_sha256": digest.hexdigest(),
            "model": model,
            "weights_sha256": weights_sha256,
            **dataclasses.asdict(options),
        }
    )


def json_types(settings: dict[str, Any]) -> dict[str, Any]:
    """With lists for tuples."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def check_settings(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises ValueError that names what differs. The name of the network may: its weights are what counts."""
    keys = [key for key in {**new, **old} if key != "model" and old.get(key) != new.get(key)]
    if keys:
        listed = "; ".join(
            f"{printable(key)} was {printable(repr(old.get(key)))}, is {printable(repr(new.get(key)))}" for key in keys
        )
        raise InputError(f"{out} holds another annotation: {listed}. Give the same, or another folder of results.")
