"""The metrics of a run: written as lines of JSON and TensorBoard event files, read back, and drawn."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING

from camjax.addresses import as_path
from camjax.errors import InputError
from camjax.files import GrowingFile
from camjax.json_files import parse_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_GROUPS = {"train": "training", "eval": "evaluation"}


class MetricsLog:
    """Writes metrics to `metrics.jsonl` and a TensorBoard event file in a run's directory.

    A run that resumes at step n computes the steps after n again: their old lines are dropped, and so is a line that a
    killed process left half-written. A line of a step and group that is there already is not written again.
    In a bucket, lines appear some seconds late: see `camjax.files.GrowingFile`.

    Args:
      directory: of the run.
      step: the step at which the run starts or resumes.
    """

    def __init__(self, directory: str | os.PathLike, step: int = 0):
        from camjax.training.event_file import EventFile  # here, because only a run's directory needs tensorboardX

        directory = as_path(directory)
        self.path = directory / "metrics.jsonl"
        before = self.path.read_bytes() if self.path.exists() else b""
        lines = [(line, _numbers(line)) for line in _lines(before)]
        kept = [(line, numbers) for line, numbers in lines if numbers.get("step", math.inf) <= step]
        groups = ((numbers["step"], name.partition("/")[0]) for _, numbers in kept for name in numbers)
        self._written = set(groups)
        self._file = GrowingFile(self.path, "".join(f"{line}\n" for line, _ in kept).encode())
        self._events = EventFile(directory, step)

    def write(self, step: int, group: str, values: dict[str, float]) -> None:
        """Writes one line {"step": ..., "group/name": value, ...}, and one TensorBoard scalar for each value.

        Raises:
          OSError: they cannot be written.
        """
        if (step, group) in self._written:
            return
        self._written.add((step, group))
        named = {f"{group}/{name}": float(value) for name, value in values.items()}
        try:
            self._file.write((json.dumps({"step": step, **named}) + "\n").encode())
            self._events.write(step, named)
        except OSError as error:
            if error.errno is None:  # of a bucket: it names the object
                raise
            raise OSError(error.errno, f"{error.strerror} (step {step} is not logged)", str(self.path)) from error

    def flush(self) -> None:
        """Returns once all is in the files, also in a bucket."""
        self._file.flush()
        self._events.flush()

    def close(self) -> None:
        """Closes both."""
        self._file.close()
        self._events.close()


def read_metrics(directory: str | os.PathLike) -> list[dict]:
    """Reads the lines of a run's `metrics.jsonl`, in their order.

    Raises:
      FileNotFoundError: the directory has no such file.
      ValueError: a line is damaged. A last line that a killed process left half-written is left out.
    """
    path = as_path(directory) / "metrics.jsonl"
    lines = _lines(path.read_bytes())
    if lines and "step" not in _numbers(lines[-1]):
        lines.pop()
    advice = "Delete the line, or restore the file from a copy."
    return [
        parse_json(line, dict[str, int | float], name=f"{path}, line {number}", advice=advice)
        for number, line in enumerate(lines, 1)
    ]


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", errors="replace").splitlines()


def metric_curve(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Returns the steps and the values of a metric, such as "train/loss"."""
    points = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in points], [value for _, value in points]


def curves_figure(lines: list[dict]) -> Figure:
    """Draws loss and accuracy over the steps of a run.

    Training's values are means over the steps between two lines, on augmented images; evaluation's are over the whole
    evaluation data.

    Args:
      lines: from `read_metrics`.
    """
    from matplotlib.figure import Figure  # here, because training needs Matplotlib only at its end

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for group, label in _GROUPS.items():
            steps, values = metric_curve(lines, f"{group}/{metric}")
            if steps:
                axes.plot(steps, values, label=label, marker="." if group == "eval" else None)
        axes.set(xlabel="step", title=metric)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[1].set_ylim(0, 1)
    return figure


def _numbers(line: str) -> dict[str, int | float]:
    """The content of a line; nothing for one that a killed run left half-written."""
    try:
        return parse_json(line, dict[str, int | float], name="", advice="")
    except InputError:
        return {}
