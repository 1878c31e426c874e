"""An experiment in stages; each is computed once."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from camjax.errors import InputError
from camjax.files import write_whole


class Stages:
    """The results of an experiment's finished stages, kept in `results.json`.

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
        self._stages: dict = {}
        if self.path.exists():
            try:
                self._stages = json.loads(self.path.read_text())
            except json.JSONDecodeError as error:
                raise InputError(f"{self.path} is damaged ({error}). Delete it to compute all stages again.") from error

    def run(self, name: str, options: Mapping, compute: Callable[[], dict], files: Sequence[Path] = ()) -> dict:
        """Returns the results of a stage; computes and keeps them unless they are there.

        Args:
          name: of the stage.
          options: everything that the results depend on, in JSON's types.
          compute: returns the results, in JSON's types.
          files: that the stage also writes, for other stages; if one is missing, the stage is computed again.

        Raises:
          ValueError: the kept results were computed with other options; the message says which.
        """
        options = json.loads(json.dumps(dict(options)))
        if name in self._stages:
            kept = self._stages[name]["options"]
            keys = sorted({*kept, *options})
            if differing := [key for key in keys if kept.get(key) != options.get(key)]:
                lines = [f"{key} was {kept.get(key)}, is {options.get(key)}" for key in differing]
                raise InputError(
                    f"{self.path} holds {name!r} with other options: {'; '.join(lines)}. Give another --out, or delete "
                    "that file."
                )
            if all(file.exists() for file in files):
                return self._stages[name]["results"]
        clock = time.monotonic()
        results = json.loads(json.dumps(compute()))
        seconds = round(time.monotonic() - clock, 1)
        self._stages[name] = {"options": options, "seconds": seconds, "results": results}
        write_whole(self.path, json.dumps(self._stages, indent=2) + "\n")
        return results
