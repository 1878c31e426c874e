"""Pooled features of a whole data set on disk: computed once, in shards that are read as they are needed.

A shard is written under another name and renamed when it is complete, so every shard on disk is whole. An interrupted
extraction continues at the first missing shard, and ends with the same files.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from camjax.data.rows import RandomAccessSource
from camjax.errors import InputError
from camjax.features.pooled import Progress, batch_results, pooled_fn, unreadable_because
from camjax.files import whole_file, write_whole
from camjax.models import CamModel
from camjax.weights.fingerprint import weights_sha256

SHARD_SIZE = 4096
"""Most images in a shard: 21 MB of 1,280 features."""

_DESCRIPTION = "features.json"


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
      ValueError: a shard does not fit the store's description.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        description = _read_description(self.directory)
        if description is None:
            raise FileNotFoundError(f"{self.directory} has no {_DESCRIPTION}: expected what extract_features wrote.")
        self._shard_size = description["shard_size"]
        self.shape = description["images"], description["channels"]
        self.unreadable: dict[int, str] = {}
        self._shards = []
        for number, count in enumerate(_shard_lengths(self.shape[0], self._shard_size)):
            path = _shard_path(self.directory, number)
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} is missing: the extraction was interrupted. The same call continues where it stopped."
                )
            shard = np.load(path, mmap_mode="r")
            if shard.shape != (count, self.shape[1]) or shard.dtype != np.float32:
                raise InputError(
                    f"{path} has shape {shard.shape} and dtype {shard.dtype}: expected {(count, self.shape[1])} and "
                    "float32. Delete it, and extract the features again."
                )
            self._shards.append(shard)
            notes = _notes_path(path)
            if notes.exists():
                self.unreadable |= {int(index): why for index, why in json.loads(notes.read_text()).items()}

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
        """
        indices = np.arange(len(self))[indices]
        flat = np.ravel(indices)
        rows = np.empty((len(flat), self.shape[1]), np.float32)
        shards, places = np.divmod(flat, self._shard_size)
        for number in np.unique(shards):
            of_shard = shards == number
            rows[of_shard] = self._shards[number][places[of_shard]]
        return rows.reshape(*indices.shape, self.shape[1])


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
        size; the message names the differences. Or no image can be read.
      OSError: the directory is not writable.
    """
    directory = Path(directory)
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
    _describe(directory, description)
    lengths = _shard_lengths(len(source), shard_size)
    missing = [number for number in range(len(lengths)) if not _shard_path(directory, number).exists()]
    while missing:
        missing = _extract_run(pooled, source, directory, missing, description, num_threads, progress)
    if progress:
        progress(len(source), len(source))  # nothing may have been missing
    return FeatureStore(directory)


def _extract_run(pooled, source, directory: Path, missing: list[int], description: Mapping, num_threads, progress):
    """Writes the missing shards from the first on, up to one that is there; returns those that are still missing."""
    lengths = _shard_lengths(description["images"], description["shard_size"])
    results = batch_results(
        pooled,
        source,
        description["input_size"],
        batch_size=description["batch_size"],
        num_threads=num_threads,
        unreadable="mark",
        start_batch=missing[0] * description["shard_size"] // description["batch_size"],
        progress=progress,
    )
    try:
        for number in range(missing[0], len(lengths)):
            if number not in missing:
                break
            start = number * description["shard_size"]
            rows = np.full((lengths[number], description["channels"]), np.nan, np.float32)
            unreadable: dict[int, str] = {}
            for _ in range(-(-lengths[number] // description["batch_size"])):
                batch, features = next(results)
                rows[batch["index"][batch["mask"]] - start] = features
                marked = batch["index"][~batch["mask"] & (batch["index"] >= 0)]
                unreadable |= {int(index): unreadable_because(source, int(index)) for index in marked}
            _write_shard(_shard_path(directory, number), rows, unreadable)
    finally:
        results.close()
    return [number for number in missing if not _shard_path(directory, number).exists()]


def _write_shard(path: Path, rows: np.ndarray, unreadable: Mapping[int, str]) -> None:
    """Writes the notes before the shard, so that a shard on disk has its notes."""
    notes = _notes_path(path)
    if unreadable:
        write_whole(notes, json.dumps(unreadable, indent=1))
    else:
        notes.unlink(missing_ok=True)
    with whole_file(path) as draft, draft.open("wb") as file:
        np.save(file, rows)


def _describe(directory: Path, description: Mapping) -> None:
    """Writes the description of the store; ValueError if the directory has another one."""
    kept = _read_description(directory)
    if kept is None:
        write_whole(directory / _DESCRIPTION, json.dumps(description, indent=1))
    elif kept != description:
        keys = sorted(key for key in {*kept, *description} if kept.get(key) != description.get(key))
        lines = [f"{key} was {kept.get(key)}, is {description.get(key)}" for key in keys]
        raise InputError(f"{directory} holds other features: {'; '.join(lines)}. Give another directory, or delete it.")


def _read_description(directory: Path) -> dict | None:
    path = directory / _DESCRIPTION
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}). Delete {directory}, and extract the features again.") from error


def _data_of(source: RandomAccessSource) -> dict:
    info = getattr(source, "info", None)
    return {} if info is None else {"dataset": info.name, "split": info.split}


def _shard_lengths(images: int, shard_size: int) -> list[int]:
    return [min(shard_size, images - start) for start in range(0, images, shard_size)]


def _shard_path(directory: Path, number: int) -> Path:
    return directory / f"features-{number:05d}.npy"


def _notes_path(shard: Path) -> Path:
    return shard.with_name(shard.stem + ".unreadable.json")
