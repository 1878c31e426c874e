"""The metrics of a run, as lines of JSON and as TensorBoard event files."""

import json
import os
from pathlib import Path

from tensorboardX import SummaryWriter

from camjax.files import write_whole


class MetricsLog:
    """Writes metrics to `metrics.jsonl` and TensorBoard event files in a run's directory.

    A run that is taken up at step n computes the steps after n again: their old lines are dropped.

    Args:
      directory: of the run.
      step: the step at which the run starts, or is taken up again.
    """

    def __init__(self, directory: str | os.PathLike, step: int = 0):
        self.path = Path(directory) / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            write_whole(self.path, "".join(f"{line}\n" for line in kept))
        self._file = self.path.open("a")
        self._events = SummaryWriter(str(directory), purge_step=step + 1 if step else None)

    def write(self, step: int, group: str, values: dict[str, float]) -> None:
        """Writes one line {"step": ..., "group/name": value, ...}, and one scalar each for TensorBoard."""
        named = {f"{group}/{name}": float(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **named}) + "\n")
        self._file.flush()
        for name, value in named.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()


def _step_of(line: str) -> float:
    """The step of a line; infinite for one that a killed run left half-written."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
