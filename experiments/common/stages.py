"""An experiment in stages; each is computed once."""

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from typing_extensions import TypedDict

from camjax.errors import InputError, reading
from camjax.files import write_whole
from camjax.json_files import read_json
from camjax.processes import in_first, is_first


class _Stage(TypedDict):
    options: dict[str, Any]
    seconds: float
    results: dict[str, Any]
    crc32: NotRequired[int]  # of the results; files without it are read unchecked


class Stages:
    """The results of an experiment's finished stages, kept in `results.json`.

    Of several processes, which have to run the same stages, the first one reads and writes the file.

    Args:
      directory: of results.json; created if missing.

    Attributes:
      path: of `results.json`: stage -> its options, seconds and results.

    Raises:
      ValueError: the file is damaged.
    """

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "results.json"
        self._stages: dict[str, _Stage] = {}
        if is_first() and self.path.exists():
            self._stages = read_json(self.path, dict[str, _Stage], advice="Delete it to compute all stages again.")

    def run(
        self,
        name: str,
        options: Mapping,
        compute: Callable[[], dict],
        files: Sequence[Path] = (),
        *,
        together: bool = False,
    ) -> dict:
        """Returns the results of a stage, in all processes; computes and keeps them unless they are there.

        Args:
          name: of the stage.
          options: everything that the results depend on, in JSON's types.
          compute: returns the results, in JSON's types.
          files: that the stage also writes, for other stages; if one is missing, the stage is computed again.
          together: all processes call `compute`, which shares its work among them and writes in the first one only.
            Otherwise the first one computes, and the others wait.

        Raises:
          ValueError: the kept results were computed with other options; the message says which. Or they have changed.
        """
        wanted = json.loads(json.dumps(dict(options)))
        kept = in_first(lambda: self._kept(name, wanted, files))
        if kept is not None:
            return kept
        clock = time.monotonic()
        computed = compute() if together else in_first(compute)

        def keep() -> dict:
            results = json.loads(json.dumps(computed))
            seconds = round(time.monotonic() - clock, 1)
            self._stages[name] = {"options": wanted, "seconds": seconds, "results": results, "crc32": _crc32(results)}
            write_whole(self.path, json.dumps(self._stages, indent=2) + "\n")
            return results

        return in_first(keep)

    def _kept(self, name: str, wanted: dict, files: Sequence[Path]) -> dict | None:
        """The results of a stage that is finished; raises as `run`."""
        if name in self._stages:
            kept = self._stages[name]["options"]
            keys = sorted({*kept, *wanted})
            if differing := [key for key in keys if kept.get(key) != wanted.get(key)]:
                lines = [f"{key} was {kept.get(key)}, is {wanted.get(key)}" for key in differing]
                raise InputError(
                    f"{self.path} holds {name!r} with other options: {'; '.join(lines)}. Give another --out, or delete "
                    "that file."
                )
            if all(file.exists() for file in files):
                results = self._stages[name]["results"]
                if self._stages[name].get("crc32", _crc32(results)) != _crc32(results):
                    raise InputError(
                        f"{self.path}: the results of {name!r} have changed since they were written. Delete that "
                        "entry, or the file, to compute them again."
                    )
                return results
        return None


def _crc32(results: dict) -> int:
    return zlib.crc32(json.dumps(results, sort_keys=True).encode())


def load_arrays(path: Path, *names: str) -> tuple[np.ndarray, ...]:
    """Reads arrays from an .npz file that a stage has written.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is damaged.
    """
    with reading(path, "arrays of a stage", "Delete it, and start the same command again."), np.load(path) as file:
        return tuple(file[name] for name in names)
