"""The metrics of a run: written as lines of JSON and TensorBoard event files, read back, and drawn."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from tensorboardX import SummaryWriter

from camjax.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUPS = {"train": "training", "eval": "evaluation"}


class MetricsLog:
    """Writes metrics to `metrics.jsonl` and TensorBoard event files in a run's directory.

    A run that resumes at step n computes the steps after n again: their old lines are dropped.

    Args:
      directory: of the run.
      step: the step at which the run starts or resumes.
    """

    def __init__(self, directory: str | os.PathLike, step: int = 0):
        self.path = Path(directory) / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= step]
            write_whole(self.path, "".join(f"{line}\n" for line in kept))
        self._file = self.path.open("a")
        self._events = SummaryWriter(str(directory), purge_step=step + 1 if step else None)

    def write(self, step: int, group: str, values: dict[str, float]) -> None:
        """Writes one line {"step": ..., "group/name": value, ...}, and one TensorBoard scalar for each value."""
        named = {f"{group}/{name}": float(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **named}) + "\n")
        self._file.flush()
        for name, value in named.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()


def read_metrics(directory: str | os.PathLike) -> list[dict]:
    """Reads the lines of a run's `metrics.jsonl`, in their order.

    Raises:
      FileNotFoundError: the directory has no such file.
    """
    return [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]


def metric_curve(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    """Returns the steps and the values of a metric, such as "train/loss"."""
    points = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in points], [value for _, value in points]


def curves_figure(lines: list[dict]) -> Figure:
    """Draws loss (nats) and top-1 accuracy over the steps of a run.

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
        axes.set(xlabel="step", title={"loss": "loss (nats)", "accuracy": "top-1 accuracy"}[metric])
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[1].set_ylim(0, 1)
    return figure


def _step_of(line: str) -> float:
    """The step of a line; infinite for a line that a killed run left half-written."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
