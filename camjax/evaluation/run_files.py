"""What an evaluation keeps on disk while it runs, so that it can go on where it was interrupted."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from camjax.files import write_whole


class RunFiles:
    """The state of an evaluation and its table of images, in a directory; each process has its own.

    - `state.json`: options, batches done, counts and the sums of all metrics.
    - `images.csv`: a row for each image of the batches done.

    Args:
      directory: made where it is missing.
      options: what the results depend on, in JSON's types.
      columns: of `images.csv`.
      resume: whether to go on where an evaluation in this directory stopped, if there is one.

    Attributes:
      state: what `save` was last given; None at the start.

    Raises:
      FileExistsError: an evaluation is there already, and `resume` is False.
      ValueError: `resume`, and what is there was made with other options, or is damaged.
      OSError: the directory can't be written to.
    """

    def __init__(self, directory: str | os.PathLike, options: Mapping, columns: Sequence[str], resume: bool):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        process = f"-{jax.process_index()}" if jax.process_count() > 1 else ""
        self._state_file = self.directory / f"state{process}.json"
        self.images_file = self.directory / f"images{process}.csv"
        self._options = json.loads(json.dumps(dict(options)))
        self.state = None
        if self._state_file.exists():
            if not resume:
                raise FileExistsError(
                    f"{self.directory} holds an evaluation already. Go on with it by --resume, or give another --out."
                )
            self.state = self._read()
        self._images = self.images_file.open("a+", newline="")
        self._images.truncate(self.state["images_bytes"] if self.state else 0)
        self._images.seek(0, os.SEEK_END)
        self._rows = csv.writer(self._images)
        if not self.state:
            self._rows.writerow(columns)

    def write_images(self, rows: Sequence[Sequence]) -> None:
        """Adds rows to `images.csv`; they count once `save` was called."""
        self._rows.writerows(rows)

    def save(self, state: Mapping) -> None:
        """Keeps a state in JSON's types, and the rows written until now, together or not at all."""
        self._images.flush()
        os.fsync(self._images.fileno())
        self.state = {"options": self._options, **state, "images_bytes": self._images.tell()}
        write_whole(self._state_file, json.dumps(self.state))

    def close(self) -> None:
        """Closes the files."""
        self._images.close()

    def _read(self) -> dict:
        try:
            state = json.loads(self._state_file.read_text())
            found = state["options"]
            size = self.images_file.stat().st_size
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ValueError(
                f"{self._state_file} is damaged ({error}): delete {self.directory} and start anew."
            ) from error
        if size < state["images_bytes"]:
            raise ValueError(f"{self.images_file} is shorter than it was: delete {self.directory} and start anew.")
        keys = sorted(found.keys() | self._options.keys())
        different = [key for key in keys if found.get(key) != self._options.get(key)]
        if different:
            listed = "; ".join(f"{key} was {found.get(key)!r}, is {self._options.get(key)!r}" for key in different)
            raise ValueError(
                f"{self.directory} holds an evaluation with other options: {listed}. Give these, or another --out."
            )
        return state
