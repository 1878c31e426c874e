"""The card of a finished run: model, recipe, data, results and hardware."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import jax
from flax import nnx

from camjax.addresses import as_path
from camjax.checkpoints import metric_to_compare
from camjax.files import whole_file, write_whole
from camjax.models import CamModel
from camjax.runs import read_run
from camjax.training.logs import curves_figure, read_metrics
from camjax.training.recipes import Recipe

_PACKAGES = ("camjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
_FROM_RUN = ("starting_weights", "data", "augmentation", "evaluation", "lengthened", "loss")


def has_run_card(directory: str | os.PathLike) -> bool:
    """Whether a run has finished."""
    return (as_path(directory) / "run_card.json").is_file()


def write_run_card(
    directory: str | os.PathLike,
    model: CamModel,
    recipe: Recipe,
    *,
    start: int,
    seconds: float,
) -> None:
    """Writes `curves.png`, `run_card.md` and `run_card.json` of a finished run from its `run.json` and `metrics.jsonl`.

    Starting weights, data, augmentation and evaluation are left out if the `run.json` of an older camjax lacks them.

    Args:
      directory: of the run.
      model: as trained.
      recipe: that it was trained by.
      start: the step at which the last process started; above 0 if it resumed the run.
      seconds: wall time since then.
    """
    directory = as_path(directory)
    lines, run = read_metrics(directory), dict(read_run(directory))
    with whole_file(directory / "curves.png") as draft:
        curves_figure(lines).savefig(draft, format="png", dpi=120)
    card = {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": _describe_model(model),
        **{key: run[key] for key in _FROM_RUN if key in run},
        "recipe": dataclasses.asdict(recipe),
        "results": _results(lines),
        "hardware": _hardware(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "git_revision": git_revision(Path.cwd()),
        "wall_time": {"seconds": round(seconds, 1), "from_step": start, "to_step": recipe.steps},
    }
    write_whole(directory / "run_card.md", _markdown(card))
    # Last, since it marks the run as finished.
    write_whole(directory / "run_card.json", json.dumps(card, indent=2) + "\n")


def git_revision(directory: Path) -> str | None:
    """The commit of a git checkout, with "+changes" if files differ from it; None outside of one, or without git."""
    try:
        revision = _git(directory, "rev-parse", "HEAD")
        return f"{revision}+changes" if _git(directory, "status", "--porcelain") else revision
    except (OSError, subprocess.SubprocessError):
        return None


def count_parameters(model: CamModel) -> int:
    """The number of parameters, with BatchNorm's scales and biases and without its statistics."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def _git(directory: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _describe_model(model: CamModel) -> dict:
    return {
        "created_as": model.created_as,
        "class": type(model).__name__,
        "classes": model.head.num_classes,
        "parameters": count_parameters(model),
        "dtype": model.dtype.name,
        "input_size": list(model.input_size),
    }


def _hardware() -> dict:
    return {
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": jax.default_backend(),
        "processes": jax.process_count(),
        "cpu_cores": os.cpu_count(),
        "system": platform.platform(),
    }


def _results(lines: list[dict]) -> dict:
    """The last training metrics, and the last and the best evaluation; accuracies and precisions are in 0..1."""
    results = {}
    for name in ("train/loss", "train/accuracy", "eval/loss", "eval/accuracy", "eval/mean_average_precision"):
        values = [line[name] for line in lines if name in line]
        if values:
            results[name] = values[-1]
    evaluations = [line for line in lines if "eval/accuracy" in line]
    if evaluations:
        name = metric_to_compare(evaluations[-1], "eval/")
        best = max(evaluations, key=lambda line: line[name])
        results |= {f"best {name}": best[name], "best at step": best["step"]}
    speeds = [line["train/images_per_second"] for line in lines if "train/images_per_second" in line]
    if speeds:
        results["train/images_per_second (median)"] = sorted(speeds)[len(speeds) // 2]
    return results


def _markdown(card: dict) -> str:
    text = ["# Run card", "", "![loss and accuracy over the steps](curves.png)", ""]
    for section, content in card.items():
        title = section.replace("_", " ").capitalize()
        if isinstance(content, dict):
            rows = [f"| {name} | {_cell(value)} |" for name, value in content.items()]
            text += [f"## {title}", "", "| | |", "| --- | --- |", *rows, ""]
        else:
            nothing = "not in a git checkout" if section == "git_revision" else "none"
            text += [f"{title}: {nothing if content is None else content}", ""]
    return "\n".join(text)


def _cell(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", r"\|")
