"""`camjax explain`: what a network sees in photographs, and where, as tables and a figure."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from camjax.cli.figure_options import FigureOptions
from camjax.cli.layer_option import IMAGES, Layer, layer_to_explain
from camjax.cli.network_choice import DEFAULT_METHOD, DEFAULT_THRESHOLD, exported_network, network_choice
from camjax.cli.options import Classes, Flag, Method, Model, Threshold, TopK, Weights
from camjax.cli.photographs import ExplainedPhoto
from camjax.cli.picture_files import Picture, find_pictures
from camjax.cli.picture_report import Found, OutputOptions, PictureReport
from camjax.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from camjax.models import CamModel

MAX_MAPS = 16  # of a photograph in a figure


def explain(
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR...", help_behavior_hint="(required)")
    ],
    /,
    *,
    model: Model = None,
    method: Method = None,
    weights: Weights = None,
    trust: Flag = False,
    classes: Classes = (),
    top_k: TopK = 1,
    threshold: Threshold = None,
    layer: Layer = None,
    output: Annotated[OutputOptions, tyro.conf.arg(name="")],
    figures: Annotated[FigureOptions, tyro.conf.arg(name="")],
) -> None:
    """Show what a network sees in photographs, and where, in tables and a figure.

    The figure has the photographs, and over them maps of classes and their boxes. A file that cannot be read is named,
    the others are done, and the exit code is 1.

    Args:
      images: Photographs (JPEG, PNG, WebP, TIFF, ...), and folders: all images in them and below.
      model: A network of `camjax models`, a run, MODULE:NAME or FILE.camjax.
      method: How maps are made: cam, gradcam, layercam, scorecam, ...; docs/attribution.md has all of them.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      classes: Classes whose maps to show, by id or name: --classes 285 "tiger cat". The table lists them too.
      top_k: Without --classes, the figure shows the maps of the K most probable classes.
      threshold: The box encloses the largest connected region where the map exceeds this share of its maximum.
      layer: The layer that gradcam, ... explain; auto measures which has the most faithful maps. By default the last.
      output: What is written.
      figures: How it is drawn.
    """
    # The command line's help keeps line breaks of the text above: hence one line for each argument.
    shown = len(classes) or top_k
    if not 1 <= shown <= MAX_MAPS:
        name = "--classes" if classes else "--top-k"
        raise InputError(f"{name}: {shown} maps for each photograph; expected 1..{MAX_MAPS}.")
    if threshold is not None and not 0 <= threshold < 1:
        raise InputError(f"--threshold {threshold}: expected a share of the map's maximum, 0 <= threshold < 1.")

    # Imported here: `camjax --help` and other commands do not need them.

    from camjax.cli.class_choice import class_ids, figure_names
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.cli.photographs import photo_explainer
    from camjax.cli.ready_network import ReadyNetwork, ready_network
    from camjax.exporting.network import ExportedNetwork
    from camjax.viz import explanation_figure

    exported = exported_network(model, [method] if method else [], weights, trust, layer)
    model, weights = network_choice(model, weights)
    if exported is not None:
        method, threshold = exported.method, exported.about["threshold"] if threshold is None else threshold
    method = method or DEFAULT_METHOD
    threshold = DEFAULT_THRESHOLD if threshold is None else threshold

    def load() -> "CamModel":
        from camjax.loading import load_model

        return load_model(model, weights, trust=trust)

    def start(report: PictureReport) -> Callable[[Picture, np.ndarray], Found]:
        directory = keep_compiled_programs()
        network = exported or (ready_network(directory, model, weights, method, load) if layer is None else load())
        if isinstance(network, ReadyNetwork | ExportedNetwork):
            asked = class_ids(classes, network.class_names, network.num_classes)
        else:
            from camjax.attribution.methods import method_named

            row = method_named(method)
            asked = class_ids(classes, network.class_names, row.num_classes(network))
            size = row.image_size(network)
            about["layer"] = layer_to_explain(
                layer, network, method, lambda: report.first_photographs(IMAGES, size), report.announce
            )
        explain_photo = photo_explainer(
            network,
            asked,
            method,
            top_k=top_k,
            threshold=threshold,
            layer=about["layer"],
            progress=lambda done, total: report.say(f"{method}: {done} of {total} changed copies of a photograph seen"),
            display_pixels=report.display_pixels,
        )

        def find(picture: Picture, photo: np.ndarray) -> Found:
            explained = explain_photo(photo)
            shown = explained.asked or explained.top.first(top_k)
            names = figure_names(shown.class_ids, network.class_names)
            drawn = {
                "images": explained.display,
                "maps": shown.maps,
                "boxes": shown.boxes,
                "names": [names[int(i)] for i in shown.class_ids],
                "probabilities": shown.probabilities,
                "titles": picture.name if method == DEFAULT_METHOD else f"{picture.name}, {method}",
            }
            table = functools.partial(_table, explained, network.class_names)
            return Found(explained.size, {method: explained.all}, {method: shown}, network.class_names, table, drawn)

        return find

    about: dict[str, Any] = {
        "command": "explain",
        "model": model,
        "weights": weights,
        "threshold": threshold,
        "layer": None,
    }
    report = PictureReport(find_pictures(images), method, output, figures, cells=(1, 1 + shown), about=about)
    report.run(start, functools.partial(explanation_figure, **figures.drawing()))


def _table(photo: ExplainedPhoto, names: Sequence[str] | None) -> "Table":
    """A table of a photograph's classes: the most probable ones, then those asked for that are not among them."""
    from rich import box
    from rich.table import Table

    from camjax.cli.class_choice import class_name
    from camjax.cli.photographs import edges_in_pixels

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Rank", justify="right", vertical="bottom")
    table.add_column("Class", overflow="fold", vertical="bottom")
    table.add_column("Id", justify="right", vertical="bottom")
    table.add_column("Probability", justify="right", vertical="bottom")
    table.add_column("Box in pixels\n  top  left bottom right", justify="right", no_wrap=True, vertical="bottom")
    for row, (class_id, rank, probability, _, edges, valid) in enumerate(zip(*photo.all, strict=True)):
        if row == len(photo.top.class_ids):
            table.add_section()
        table.add_row(
            str(rank),
            class_name(class_id, names),
            str(class_id),
            f"{probability:.1%}",
            edges_in_pixels(edges, photo.size) if valid else "none",
        )
    table.add_section()
    return table
