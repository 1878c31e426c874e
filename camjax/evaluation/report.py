"""The report of an evaluation: a table, `results.json` and `results.csv`."""

import csv
import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path

import jax
from rich import box
from rich.table import Table
from rich.text import Text

from camjax.evaluation.runner import Evaluation
from camjax.files import write_whole
from camjax.metrics import METRICS

PACKAGES = ("camjax", "jax", "flax", "numpy", "opencv-python-headless", "pillow", "tensorflow-datasets")


def summary(evaluation: Evaluation, subject: Mapping) -> dict:
    """Everything about an evaluation, in JSON's types.

    Args:
      evaluation: what was found.
      subject: what was evaluated: model, weights, data set, options.

    Returns:
      What `write_results` writes: counts, numbers of each method and metric, versions, the device.
    """
    return {
        **subject,
        "num_images": evaluation.num_images,
        "images": evaluation.counts,
        "threshold_step": evaluation.threshold_step,
        "seconds": round(evaluation.seconds, 3),
        "results": {
            method: {name: metric.compute() for name, metric in by_name.items()}
            for method, by_name in evaluation.metrics.items()
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def write_results(directory: Path, results: Mapping) -> list[Path]:
    """Writes `results.json`, and `results.csv` with a row for each number; returns their paths.

    Args:
      directory: where.
      results: from `summary`.
    """
    as_json, as_csv = directory / "results.json", directory / "results.csv"
    write_whole(as_json, json.dumps(results, indent=2) + "\n")
    common = {key: results[key] for key in ("model", "weights_sha256", "dataset", "split", "num_images")}
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow([*common, "method", "metric", "name", "value"])
    for method, by_metric in results["results"].items():
        for metric, numbers in by_metric.items():
            rows.writerows([*common.values(), method, metric, name, value] for name, value in numbers.items())
    write_whole(as_csv, text.getvalue())
    return [as_json, as_csv]


def results_table(results: Mapping) -> Table:
    """A table with a column for each method and a row for each number: rates in percent, scores as they are.

    Args:
      results: from `summary`.

    Returns:
      What rich prints.
    """
    methods = list(results["results"])
    table = Table("", *methods, box=box.SIMPLE_HEAD, show_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    first = results["results"][methods[0]]
    for metric, numbers in first.items():
        table.add_section()
        steps = f", threshold in steps of {results['threshold_step']:g}" if METRICS[metric].stepped else ""
        table.add_row(Text.assemble((METRICS[metric].title, "bold"), steps))
        for name in numbers:
            digits = 2 if METRICS[metric].unit_of(name) == "percent" else 3
            values = [results["results"][method][metric][name] for method in methods]
            table.add_row(f"  {name.replace('_', ' ')}", *(f"{value:.{digits}f}" for value in values))
    return table


def counts_sentence(results: Mapping) -> str:
    """How the images were counted, in words.

    Args:
      results: from `summary`.

    Returns:
      One sentence: "600 images: 598 scored, 2 unreadable."
    """
    counts = results["images"]
    parts = [f"{count} {status}" for status, count in counts.items() if count or status == "scored"]
    return f"{results['num_images']} images: {', '.join(parts)}."
