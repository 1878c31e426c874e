"""`camjax explain`: what a network sees in photographs, and where, as tables and a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from camjax.cli.network_choice import network_choice
from camjax.cli.photographs import ExplainedPhoto
from camjax.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

DEFAULT_METHOD = "cam"
MAX_IMAGES, MAX_MAPS = 32, 16  # in one figure, which is a bitmap of limited size


def explain(
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="(required)")
    ],
    /,
    *,
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None,
    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = DEFAULT_METHOD,
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    trust: bool = False,
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS...", help_behavior_hint="")] = (),
    top_k: Annotated[int, tyro.conf.arg(metavar="K")] = 1,
    threshold: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.2,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
) -> None:
    """Show what a network sees in photographs, and where, in tables and a figure.

    The figure has the photographs, and over them maps of classes and their boxes.

    Args:
      images: Photographs (JPEG, PNG, WebP, TIFF, ...). With several, the figure has a row for each.
      model: A network of `camjax models`, a run, or MODULE:NAME; by default that of --weights, or efficientnet_lite0.
      method: How maps are made: cam, gradcam, layercam, scorecam, ...; docs/attribution.md has all of them.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      classes: Classes whose maps to show, by id or name: --classes 285 "tiger cat". The table lists them too.
      top_k: Without --classes, the figure shows the maps of the K most probable classes.
      threshold: The box encloses the largest connected region where the map exceeds this share of its maximum.
      out: The figure; its suffix is its format. Without it: IMAGE_METHOD.png, or METHOD.png for several photographs.
    """
    # The command line's help keeps line breaks of the text above: hence one line for each argument.
    if not images:
        raise InputError("no image given: expected at least one file, as in `camjax explain cat.jpg`.")
    if len(images) > MAX_IMAGES:
        raise InputError(f"{len(images)} images: one figure holds at most {MAX_IMAGES}; give them in several calls.")
    shown = len(classes) or top_k
    if not 1 <= shown <= MAX_MAPS:
        name = "--classes" if classes else "--top-k"
        raise InputError(f"{name}: {shown} maps for each photograph; expected 1..{MAX_MAPS}.")
    if not 0 <= threshold < 1:
        raise InputError(f"--threshold {threshold}: expected a share of the map's maximum, 0 <= threshold < 1.")

    # Imported here: `camjax --help` and other commands do not need them.

    from camjax.attribution.methods import method_named
    from camjax.cli.class_choice import class_ids, figure_names
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.cli.figure_file import figure_path, save_figure
    from camjax.cli.photographs import explain_photos
    from camjax.data.images import load_image
    from camjax.loading import load_model
    from camjax.terminal import Console
    from camjax.viz import explanation_figure

    out = figure_path(images, out, method)
    photos = [load_image(path) for path in images]
    keep_compiled_programs()
    model, weights = network_choice(model, weights)
    with Console(stderr=True).status(f"{model}: loading, and compiling at the first start") as status:

        def progress(done: int, total: int) -> None:
            status.update(f"{method}: {done} of {total} changed copies of a photograph seen")

        network = load_model(model, weights, trust=trust)
        asked = class_ids(classes, network.class_names, method_named(method).num_classes(network))
        explained = explain_photos(network, photos, asked, method, top_k=top_k, threshold=threshold, progress=progress)

    console = Console()
    for path, photo in zip(images, explained, strict=True):
        height, width = photo.size
        console.print(f"{path} ({width} x {height} pixels)", style="bold", soft_wrap=True)
        console.print(_table(photo, network.class_names), "")
    drawn = [photo.asked or photo.top.first(top_k) for photo in explained]
    names = figure_names((i for of_photo in drawn for i in of_photo.class_ids), network.class_names)
    figure = explanation_figure(
        [photo.display for photo in explained],
        [of_photo.maps for of_photo in drawn],
        [of_photo.boxes for of_photo in drawn],
        [[names[int(i)] for i in of_photo.class_ids] for of_photo in drawn],
        [of_photo.probabilities for of_photo in drawn],
        titles=[path.name if method == DEFAULT_METHOD else f"{path.name}, {method}" for path in images],
    )
    save_figure(figure, out)
    console.print(f"Saved {out}", soft_wrap=True)


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
    for part in (photo.top, photo.asked):
        if part is None:
            continue
        for class_id, rank, probability, _, edges, valid in zip(*part, strict=True):
            if part is photo.asked and class_id in photo.top.class_ids:
                continue
            table.add_row(
                str(rank),
                class_name(class_id, names),
                str(class_id),
                f"{probability:.1%}",
                edges_in_pixels(edges, photo.size) if valid else "none",
            )
        table.add_section()
    return table
