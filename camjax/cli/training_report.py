"""What `camjax train` leaves: `results.json`, a figure of predictions, and what it prints at the end."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

import camjax
from camjax.addresses import as_path
from camjax.cli.figure_file import save_figure
from camjax.cli.photographs import for_display
from camjax.data.images import resize_image
from camjax.data.own_pictures import OwnPictures
from camjax.evaluation.classification import Classified
from camjax.files import write_whole
from camjax.inference import make_localize_fn
from camjax.models import CamModel
from camjax.terminal import Console
from camjax.training import Recipe
from camjax.viz import localization_figure
from camjax.weights.fingerprint import weights_sha256

WORST, CONFUSED, DRAWN = 10, 5, 6
"""How many classes and pairs the tables show, and how many pictures of each kind the figure has."""


def write_results(
    out: Path,
    data: str,
    model: CamModel,
    pictures: OwnPictures,
    recipe: Recipe,
    found: Classified,
) -> None:
    """Writes `results.json`, with shares in 0..1."""
    results = {
        "accuracy": found.accuracy,
        "num_images": len(found.labels),
        "per_class": found.per_class(),
        "confused": [confusion._asdict() for confusion in found.confused()],
        "data": data,
        "train_images": len(pictures.train),
        "validation_images": len(pictures.validation),
        "unreadable": dict(pictures.found.unreadable),
        "class_names": list(pictures.class_names),
        "model": (model.created_as or {}).get("name"),
        "input_size": list(model.input_size),
        "weights_sha256": weights_sha256(model),
        "recipe": asdict(recipe),
        "version": camjax.__version__,
    }
    write_whole(out / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def print_results(console: Console, found: Classified, data: str, out: Path) -> None:
    """Prints how good the network is, what it confuses, and what to do next."""
    right = int(found.right.sum())
    console.print(f"\nAccuracy {found.accuracy:.1%}: {right:,} of {len(found.labels):,} validation pictures are right.")
    console.print("", _class_table(found.per_class()), "")
    if confused := found.confused():
        console.print("Most often confused:")
        for pair in confused[:CONFUSED]:
            console.print(f"  {pair.true}, taken for {pair.predicted}: {pair.images}")
    names = ("results.json", "predictions.png", "run_card.md", "pictures.csv")
    for name in names:
        if (path := as_path(out) / name).exists():
            console.print(f"Saved {path}")
    run = str(out) if str(out).startswith(("/", "./", "~")) or "/" in str(out) else f"./{out}"
    commands = [
        ["camjax", "explain", "PICTURE", "--model", run],
        ["camjax", "annotate", data, "--model", run, "--out", f"{run}-boxes"],
        [
            *("camjax", "evaluate", "--dataset", f"{run}/pictures.csv", "--split", "validation", "--model", run),
            *("--metrics", "insertion", "deletion"),
        ],
        ["camjax", "app", run],
    ]
    console.print("\nNext:")
    for words in commands if (as_path(out) / "pictures.csv").exists() else (commands[0], commands[-1]):
        console.print(f"  {shlex.join(words)}")


def _class_table(per_class: Mapping[str, Mapping[str, Any]]) -> Table:
    """The classes that are least often right."""
    ordered = sorted(per_class.items(), key=lambda item: (item[1]["accuracy"], item[0]))
    title = f"The {WORST} of {len(ordered)} classes that are least often right" if len(ordered) > WORST else None
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Class", overflow="fold")
    for name in ("Right", "Pictures", "Accuracy"):
        table.add_column(name, justify="right")
    for name, numbers in ordered[:WORST]:
        table.add_row(name, str(numbers["right"]), str(numbers["images"]), f"{numbers['accuracy']:.1%}")
    return table


def draw_predictions(model: CamModel, pictures: OwnPictures, found: Classified, path: Path, *, seed: int) -> None:
    """Draws maps of the predicted classes: right ones drawn at random, then the most certain of the wrong ones."""
    right = np.flatnonzero(found.right)
    right = np.sort(np.random.default_rng(seed).permutation(right)[:DRAWN])
    wrong = np.flatnonzero(~found.right)
    wrong = wrong[np.argsort(-found.probabilities[wrong], kind="stable")][:DRAWN]
    chosen = [*right.tolist(), *wrong.tolist()]
    photos = [pictures.validation[i]["image"] for i in chosen]
    localize = make_localize_fn(model, "cam" if hasattr(model.head, "kernel") else "gradcam")
    maps, boxes = [], []
    for photo in photos:
        out = localize(resize_image(photo, model.input_size)[None])
        maps.append(np.asarray(out.maps[0, 0]))
        boxes.append(np.asarray(out.boxes[0, 0]))
    figure = localization_figure(
        [for_display(photo) for photo in photos],
        maps,
        boxes,
        [np.zeros((0, 4), np.float32)] * len(photos),
        [_title(found, i) for i in chosen],
        columns=len(right) or len(wrong),
    )
    save_figure(figure, path)


def _title(found: Classified, i: int) -> str:
    true, predicted = (found.class_names[label] for label in (found.labels[i], found.predictions[i]))
    percent = f"{found.probabilities[i]:.0%}"
    return f"{true}, {percent}" if found.right[i] else f"{true}, taken for {predicted}, {percent}"
