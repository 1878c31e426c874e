"""The curves of a run: loss and accuracy over its steps, as a figure."""

import json
import os
from pathlib import Path

from matplotlib.figure import Figure

_GROUPS = {"train": "training", "eval": "evaluation"}


def read_metrics(directory: str | os.PathLike) -> list[dict]:
    """The lines of a run's `metrics.jsonl`, in their order.

    Raises:
      FileNotFoundError: the directory has none.
    """
    return [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]


def metric_curve(lines: list[dict], name: str) -> tuple[list[int], list[float]]:
    """The steps and values of a metric, such as "train/loss"."""
    points = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in points], [value for _, value in points]


def curves_figure(lines: list[dict]) -> Figure:
    """Loss (nats) and top-1 accuracy over the steps of a run.

    Training's values are means over the steps between two lines, of augmented images; evaluation's are of the whole
    evaluation data.

    Args:
      lines: from `read_metrics`.
    """
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
