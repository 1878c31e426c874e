"""Pooled features of a whole data set on disk: computed once, in shards that are read as they are needed.

A shard is written under another name and renamed when it is complete, so every shard on disk is whole. An interrupted
extraction continues at the first missing shard, and ends with the same files.

A shard is a .npy file, followed by the CRC-32 of its bytes and of its notes, which name the images that could not be
read. Shards that were written without one are read unchecked.
"""

import functools
import io
import itertools
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from camjax.addresses import local_path
from camjax.data.rows import RandomAccessSource
from camjax.errors import InputError, reading
from camjax.features.pooled import Progress, batch_results, pooled_fn, unreadable_because
from camjax.files import write_whole
from camjax.json_files import read_json
from camjax.models import CamModel
from camjax.processes import in_first, is_first
from camjax.weights.fingerprint import weights_sha256

SHARD_SIZE = 4096
"""Most images in a shard: 21 MB of 1,280 features."""

_DESCRIPTION = "features.json"
_CRC_BYTES = 4
_Form = TypeVar("_Form")
_SHARD_ADVICE = "Delete it, and extract the features again: only this shard is computed."


class _Sizes(TypedDict):
    """What the description says about the shards; the rest is compared alone."""

    images: Annotated[int, Field(gt=0)]
    channels: Annotated[int, Field(gt=0)]
    shard_size: Annotated[int, Field(gt=0)]


class FeatureStore:
    """Features on disk, as `extract_features` writes them; read-only.

    Args:
      directory: of the store.

    Attributes:
      directory: as given.
      shape: (n, K).
      unreadable: index -> what was wrong, for the images that could not be read; their features are NaN.

    Raises:
      FileNotFoundError: there is no store, or it is not complete.
      ValueError: a file does not fit the store's description.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        sizes = _read_description(self.directory, _Sizes)
        if sizes is None:
            raise FileNotFoundError(f"{self.directory} has no {_DESCRIPTION}: expected what extract_features wrote.")
        self.shape, self._shard_size = (sizes["images"], sizes["channels"]), sizes["shard_size"]
        self.unreadable: dict[int, str] = {}
        self._starts: list[int] = []  # of the numbers in each shard's file, in bytes
        self._unchecked: set[int] = set()  # shards that have a checksum and have not been used yet
        # The first missing shard ends the loop: the description alone does not decide how long it takes.
        for number in range(-(-len(self) // self._shard_size)):
            self._open(number)

    def _open(self, number: int) -> None:
        """Checks a shard's shape and size, and reads its notes."""
        path = _shard_path(self.directory, number)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: the extraction was interrupted. The same call continues where it stopped."
            )
        first = number * self._shard_size
        expected = min(self._shard_size, len(self) - first), self.shape[1]
        with path.open("rb") as file, reading(path, "a shard of features", _SHARD_ADVICE):
            np.lib.format.read_magic(file)
            shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
            start, size = file.tell(), os.fstat(file.fileno()).st_size
        if shape != expected or dtype != np.float32 or in_columns:
            raise InputError(
                f"{path} has shape {shape} and dtype {dtype}: expected {expected} and float32. {_SHARD_ADVICE}"
            )
        data = start + 4 * expected[0] * expected[1]
        if size not in (data, data + _CRC_BYTES):
            raise InputError(f"{path} has {size:,} bytes: expected {data + _CRC_BYTES:,}. {_SHARD_ADVICE}")
        self._starts.append(start)
        if size > data:
            self._unchecked.add(number)
        notes = _notes_path(path)
        if notes.exists():
            told = read_json(notes, dict[int, str], advice=f"Delete {path}, and extract the features again.")
            if outside := [index for index in told if not first <= index < first + expected[0]]:
                raise InputError(
                    f"{notes} is about image {outside[0]}: expected {first}..{first + expected[0] - 1}. Delete {path}, "
                    "and extract the features again."
                )
            self.unreadable |= told

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def readable(self) -> np.ndarray:
        """(n,) bool, False for images that could not be read."""
        mask = np.ones(len(self), bool)
        mask[list(self.unreadable)] = False
        return mask

    def __getitem__(self, indices) -> np.ndarray:
        """Features of some images, in the order of the indices.

        Args:
          indices: any NumPy index of an axis of length n: a slice, a mask (n,) or integers (m,).

        Returns:
          (m, K) float32; (K,) for one integer.

        Raises:
          ValueError: a shard is damaged; its checksum is verified when it is first used.
        """
        indices = np.arange(len(self))[indices]
        flat = np.ravel(indices)
        rows = np.empty((len(flat), self.shape[1]), np.float32)
        shards, places = np.divmod(flat, self._shard_size)
        for number in np.unique(shards):
            of_shard = shards == number
            rows[of_shard] = self._read(int(number), places[of_shard])
        return rows.reshape(*indices.shape, self.shape[1])

    def _read(self, number: int, places: np.ndarray) -> np.ndarray:
        """(m, K) some rows of a shard.

        They are read, not mapped into memory: a mapped file that is cut meanwhile ends the process without a word.
        """
        path = _shard_path(self.directory, number)
        places, order = np.unique(places, return_inverse=True)
        rows = np.empty((len(places), self.shape[1]), np.float32)
        width, target = rows.strides[0], rows.data.cast("B")
        with path.open("rb", buffering=0) as file:
            if number in self._unchecked:
                self._verify(path, file)
                self._unchecked.discard(number)
            # One read for each run of neighbors.
            ends = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
            for first, end in itertools.pairwise(ends):
                file.seek(self._starts[number] + int(places[first]) * width)
                part = target[first * width : end * width]
                while part:
                    if not (count := file.readinto(part)):
                        raise InputError(f"{path} was cut after it was opened. {_SHARD_ADVICE}")
                    part = part[count:]
        return rows[order]

    def _verify(self, path: Path, file: io.FileIO) -> None:
        """Compares a shard with its checksum; ValueError if they differ."""
        left, found = os.fstat(file.fileno()).st_size - _CRC_BYTES, 0
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            found, left = zlib.crc32(block, found), left - len(block)
        notes = _notes_path(path)
        found = zlib.crc32(notes.read_bytes() if notes.exists() else b"", found)
        if file.read() != _crc_bytes(found):
            raise InputError(
                f"{path}, or {notes.name} beside it, has changed since it was written: its checksum is another. "
                f"{_SHARD_ADVICE}"
            )


def extract_features(
    model: CamModel,
    source: RandomAccessSource,
    directory: str | os.PathLike,
    *,
    batch_size: int = 32,
    shard_size: int = SHARD_SIZE,
    num_threads: int = 4,
    progress: Progress | None = None,
) -> FeatureStore:
    """Computes the pooled features of all images of a source, once; see `camjax.features.gap_features`.

    After an interruption at any moment, the same call computes only the missing shards, and leaves the same files as an
    uninterrupted call. An image that can't be read gets features of NaN and an entry in `unreadable`.

    Several processes call it together, see `camjax.features.map_images`: the first one writes, and all have to see the
    directory. Their number may be another when the call is continued.

    Args:
      model: as in `gap_features`.
      source: the images. If it has an `info`, as camjax's sources do, data set and split are recorded.
      directory: of the store; created if missing.
      batch_size: images at a time.
      shard_size: images in a shard, rounded up to whole batches.
      num_threads: as in `map_images`.
      progress: as in `map_images`.

    Returns:
      `FeatureStore`.

    Raises:
      ValueError: the directory has features of other images or of another network, or in batches or shards of another
        size; the message names the differences. Or no image can be read, or a size is below 1.
      OSError: the directory is not writable.
    """
    if batch_size < 1 or shard_size < 1:
        raise InputError(f"batch_size={batch_size}, shard_size={shard_size}: expected at least 1 each.")
    directory = local_path(directory, "features in")
    directory.mkdir(parents=True, exist_ok=True)
    shard_size = -(-shard_size // batch_size) * batch_size
    pooled = pooled_fn(model)
    description = {
        **_data_of(source),
        "images": len(source),
        "network": type(model).__name__,
        "weights_sha256": weights_sha256(model),
        "input_size": list(model.input_size),
        "channels": jax.eval_shape(pooled, jax.ShapeDtypeStruct((1, *model.input_size, 3), np.uint8), None).shape[1],
        "batch_size": batch_size,
        "shard_size": shard_size,
    }
    in_first(functools.partial(_describe, directory, description))
    missing = _missing(directory, range(-(-len(source) // shard_size)))
    while missing:
        missing = _extract_run(pooled, source, directory, missing, description, num_threads, progress)
    if progress:
        progress(len(source), len(source))  # nothing may have been missing
    return FeatureStore(directory)


def _extract_run(pooled, source, directory: Path, missing: list[int], description: Mapping, num_threads, progress):
    """Writes the missing shards from the first on, up to one that is there; returns those that are still missing."""
    images, shard_size, batch_size = (description[key] for key in ("images", "shard_size", "batch_size"))
    results = batch_results(
        pooled,
        source,
        description["input_size"],
        batch_size=batch_size,
        num_threads=num_threads,
        unreadable="mark",
        start_batch=missing[0] * shard_size // batch_size,
        progress=progress,
    )
    try:
        for start in range(missing[0] * shard_size, images, shard_size):
            number, length = start // shard_size, min(shard_size, images - start)
            if number not in missing:
                break
            rows = np.full((length, description["channels"]), np.nan, np.float32)
            unreadable: dict[int, str] = {}
            for _ in range(-(-length // batch_size)):
                batch, features = next(results)
                rows[batch["index"][batch["mask"]] - start] = features
                marked = batch["index"][~batch["mask"] & (batch["index"] >= 0)]
                unreadable |= {int(index): unreadable_because(source, int(index)) for index in marked}
            if is_first():
                _write_shard(_shard_path(directory, number), rows, unreadable)
    finally:
        results.close()
    return _missing(directory, missing)


def _missing(directory: Path, numbers: Iterable[int]) -> list[int]:
    """Which of some shards are not there; the same in all processes."""
    return in_first(lambda: [number for number in numbers if not _shard_path(directory, number).exists()])


def _write_shard(path: Path, rows: np.ndarray, unreadable: Mapping[int, str]) -> None:
    """Writes the notes before the shard, so that a shard on disk has its notes."""
    notes = _notes_path(path)
    told = json.dumps(unreadable, indent=1).encode() if unreadable else b""
    if told:
        write_whole(notes, told)
    else:
        notes.unlink(missing_ok=True)
    shard = io.BytesIO()
    np.save(shard, rows)
    content = shard.getvalue()
    write_whole(path, content + _crc_bytes(zlib.crc32(told, zlib.crc32(content))))


def _crc_bytes(crc: int) -> bytes:
    return crc.to_bytes(_CRC_BYTES, "little")


def _describe(directory: Path, description: Mapping) -> None:
    """Writes the description of the store; ValueError if the directory has another one."""
    kept = _read_description(directory, dict[str, Any])
    if kept is None:
        write_whole(directory / _DESCRIPTION, json.dumps(description, indent=1))
    elif kept != description:
        keys = sorted(key for key in {*kept, *description} if kept.get(key) != description.get(key))
        lines = [f"{key} was {kept.get(key)}, is {description.get(key)}" for key in keys]
        raise InputError(f"{directory} holds other features: {'; '.join(lines)}. Give another directory, or delete it.")


def _read_description(directory: Path, form: type[_Form]) -> _Form | None:
    path = directory / _DESCRIPTION
    if not path.exists():
        return None
    return read_json(path, form, advice=f"Delete {directory}, and extract the features again.")


def _data_of(source: RandomAccessSource) -> dict:
    info = getattr(source, "info", None)
    return {} if info is None else {"dataset": info.name, "split": info.split}


def _shard_path(directory: Path, number: int) -> Path:
    return directory / f"features-{number:05d}.npy"


def _notes_path(shard: Path) -> Path:
    return shard.with_name(shard.stem + ".unreadable.json")
