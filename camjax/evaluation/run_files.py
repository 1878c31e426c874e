"""What an evaluation keeps on disk while it runs, so that it can go on where it was interrupted."""

import csv
import hashlib
import heapq
import io
import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from pydantic import NonNegativeFloat, NonNegativeInt
from typing_extensions import TypedDict

from camjax.addresses import as_path, is_address, make_folder, upload
from camjax.errors import InputError, printable, reading
from camjax.files import GrowingFile, whole_file, write_whole
from camjax.json_files import read_json
from camjax.metrics import Truth, score_map

_UPLOADS = 16
"""Maps that are written to a bucket at the same time."""

FORMAT = 4
"""Of the state: another number is the state of another version of camjax. Version 1 had no number, and the tables of
images of version 3 no boxes: rows of both would not be one table."""


class _MetricState(TypedDict):
    metric: str
    options: dict[str, Any]
    sums: dict[str, Any]


class _State(TypedDict):
    """Of `state.json`."""

    format: int
    options: dict[str, Any]
    batches: NonNegativeInt
    seconds: NonNegativeFloat
    counts: dict[str, NonNegativeInt]
    metrics: dict[str, dict[str, _MetricState]]
    images_bytes: NonNegativeInt
    sha256: str


def _sha256(state: Mapping[str, Any]) -> str:
    """Of a state, without its own field of that name."""
    return hashlib.sha256(json.dumps({**state, "sha256": ""}).encode()).hexdigest()


def _parts() -> list[str]:
    """What tells the files of the processes apart."""
    count = jax.process_count()
    return [f"-{index}" for index in range(count)] if count > 1 else [""]


def merge_images(directory: str | os.PathLike[str]) -> None:
    """Writes `images.csv` from the tables of all processes, in the order of the source; of one, it is there already."""
    parts = _parts()
    if len(parts) == 1:
        return
    folder = as_path(directory)
    texts = [(folder / f"images{part}.csv").read_bytes().decode() for part in parts]
    tables = [csv.reader(io.StringIO(text, newline="")) for text in texts]
    columns, *_ = [next(table) for table in tables]
    write_whole(folder / "images.csv", _csv([columns, *heapq.merge(*tables, key=lambda row: int(row[0]))]))


class RunFiles:
    """The state of an evaluation and its table of images, in a directory.

    Each of several processes has its own, with its number in the names, as `state-0.json`; `merge_images` makes one
    table of theirs.

    - `state.json`: options, batches done, counts and the sums of all metrics.
    - `images.csv`: a row for each image of the batches done.
    - `cases.npz`: maps of the best and the worst cases.
    - `scoremaps/`: maps in the layout that wsolevaluation reads.

    Args:
      directory: a folder, created where it is missing, or an address of a bucket.
      options: what the results depend on, in JSON's types.
      columns: of `images.csv`.
      resume: whether to go on where an evaluation in this directory stopped, if there is one.

    Attributes:
      state: the state as last saved; None at the start.
      arrays: the arrays as last saved; empty at the start.

    Raises:
      FileExistsError: the directory holds an evaluation, and `resume` is False.
      ValueError: `resume`, and the evaluation has other options, was written by another version, or is damaged.
      OSError: the directory can't be written to.
    """

    def __init__(
        self, directory: str | os.PathLike[str], options: Mapping[str, Any], columns: Sequence[str], resume: bool
    ):
        self.directory = as_path(directory)
        make_folder(self.directory)
        parts = _parts()
        process = parts[jax.process_index()]
        expected = {f"state{part}.json" for part in parts}
        if others := sorted({path.name for path in self.directory.glob("state*.json")} - expected):
            raise InputError(
                f"{self.directory} holds an evaluation of another number of processes ({others[0]}), and now there "
                f"are {len(parts)}. Go on with as many as it had, or give another --out."
            )
        self._state_file = self.directory / f"state{process}.json"
        self._arrays_file = self.directory / f"cases{process}.npz"
        self._images_file = self.directory / f"images{process}.csv"
        self._options = json.loads(json.dumps(dict(options)))
        self.state: dict[str, Any] | None = None
        self.arrays: dict[str, np.ndarray] = {}
        images = _csv([columns])
        if self._state_file.exists():
            if not resume:
                raise FileExistsError(
                    f"{self.directory} holds an evaluation already. Go on with it by --resume, or give another --out."
                )
            self.state, self.arrays, images = self._read()
        self._images = GrowingFile(self._images_file, images)
        self._images_bytes = len(images)

    def write_images(self, rows: Sequence[Sequence]) -> None:
        """Adds rows to `images.csv`; they count once `save` was called."""
        content = _csv(rows)
        self._images.write(content)
        self._images_bytes += len(content)

    def write_maps(self, truth: Truth, maps: jax.Array | np.ndarray, folder: str = ".") -> None:
        """Writes `scoremaps/<folder>/<file name>.npy` for each image that counts, of its raw map in maps (B, h, w).

        A file holds (224, 224) float64 in 0..1, as wsolevaluation prepares maps: rounded to float32, a pixel can fall
        to another of the 256 levels of its boxes.

        Raises:
          ValueError: a file name that leads out of the folder.
        """
        in_bucket = is_address(self.directory)
        root = self.directory / "scoremaps" / folder
        root = root if in_bucket else root.resolve()
        with ThreadPoolExecutor(_UPLOADS) as pool:
            uploads = []
            for i in np.flatnonzero(truth.counted).tolist():
                name = f"{truth.filenames[i]}.npy"
                path = root / posixpath.normpath(name) if in_bucket else (root / name).resolve()
                if not path.is_relative_to(root) or ".." in path.parts:
                    raise InputError(f"file name {truth.filenames[i]!r} leads out of {root}: the map is not written.")
                if in_bucket:
                    content = io.BytesIO()
                    np.save(content, score_map(maps[i]))
                    uploads.append(pool.submit(upload, path, content.getvalue()))
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, score_map(maps[i]))
            for done in uploads:
                done.result()

    def save(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces the state, in JSON's types, and keeps the rows written until now: both or neither.

        The arrays are replaced first: after a crash they may be newer than the state.
        """
        self._images.flush()
        self.state = {"format": FORMAT, "options": self._options, **state, "images_bytes": self._images_bytes}
        self.arrays = dict(arrays)
        with whole_file(self._arrays_file) as draft, draft.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # for NumPy, any may be `allow_pickle`
        write_whole(self._state_file, json.dumps({**self.state, "sha256": _sha256(self.state)}))

    def close(self) -> None:
        """Closes the files."""
        self._images.close()

    def _read(self) -> tuple[dict[str, Any], dict[str, np.ndarray], bytes]:
        """The state, the arrays, and the rows that it counts."""
        advice = f"Delete {self.directory}, and start again."
        whole = read_json(self._state_file, dict[str, Any], advice=advice)
        version = whole.get("format", 1)
        if version != FORMAT:
            raise InputError(
                f"{self._state_file} has the format {version}, of another version of camjax; this one reads format "
                f"{FORMAT}. Finish the evaluation with that version, or delete {self.directory} and start again."
            )
        state: dict[str, Any] = {**read_json(self._state_file, _State, advice=advice)}
        if state["sha256"] != _sha256(whole):
            raise InputError(f"{self._state_file} is damaged: it is not what was written. {advice}")
        for path in (self._arrays_file, self._images_file):
            if not path.is_file():
                raise InputError(f"{path} is missing. {advice}")
        what = "the best and worst cases of an evaluation"
        with reading(self._arrays_file, what, advice), np.load(io.BytesIO(self._arrays_file.read_bytes())) as file:
            arrays = dict(file)
        images = self._images_file.read_bytes()
        if len(images) < state["images_bytes"]:
            raise InputError(f"{self._images_file} is shorter than it was: delete {self.directory} and start again.")
        options = state["options"]
        keys = sorted(options.keys() | self._options.keys())
        different = [key for key in keys if options.get(key) != self._options.get(key)]
        if different:
            listed = "; ".join(
                f"{printable(key)} was {printable(repr(options.get(key)))}, is {self._options.get(key)!r}"
                for key in different
            )
            raise InputError(
                f"{self.directory} holds an evaluation with other options: {listed}. Give these, or another --out."
            )
        return state, arrays, images[: state["images_bytes"]]


def _csv(rows: Sequence[Sequence]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
