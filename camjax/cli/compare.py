"""`camjax compare`: photographs by several methods, as tables and a grid of methods by classes."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from camjax.cli.figure_options import FigureOptions
from camjax.cli.layer_option import IMAGES, Layer, layer_to_explain
from camjax.cli.network_choice import network_choice
from camjax.cli.options import Classes, Count, Flag, NetworkOrRun, Share, TopK, Weights
from camjax.cli.photographs import ClassMaps
from camjax.cli.picture_files import Picture, find_pictures
from camjax.cli.picture_report import Found, OutputOptions, PictureReport
from camjax.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from camjax.models import CamModel

MAX_METHODS, MAX_CLASSES = 16, 8  # in one figure, which is a bitmap of limited size


def compare(
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR...", help_behavior_hint="(required)")
    ],
    /,
    *,
    model: NetworkOrRun = None,
    method: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME...", aliases=["--methods"], help_behavior_hint="")
    ] = (),
    weights: Weights = None,
    trust: Flag = False,
    classes: Classes = (),
    top_k: TopK = 2,
    threshold: Share = 0.2,
    layer: Layer = None,
    chunk_size: Count = 32,
    output: Annotated[OutputOptions, tyro.conf.arg(name="")],
    figures: Annotated[FigureOptions, tyro.conf.arg(name="")],
) -> None:
    """Draw a grid of methods by classes for photographs, and print their boxes.

    A file that cannot be read is named, the others are done, and the exit code is 1.

    Args:
      images: Photographs (JPEG, PNG, WebP, TIFF, ...), and folders: all images in them and below.
      model: A network of `camjax models`, a run, or MODULE:NAME.
      method: Methods to compare, as cam gradcam scorecam; all that need one pass of the network if not given.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      classes: Classes to explain, by id or name: --classes 285 "tiger cat".
      top_k: Without --classes, the K most probable classes.
      threshold: The box encloses the largest connected region where the map exceeds this share of its maximum.
      layer: The layer that the methods explain; auto measures with the first one. By default the last feature map.
      chunk_size: For scorecam and other methods that change the photograph: copies of it in memory at a time.
      output: What is written.
      figures: How it is drawn.
    """
    shown = len(classes) or top_k
    if not 1 <= shown <= MAX_CLASSES:
        name = "--classes" if classes else "--top-k"
        raise InputError(f"{name}: {shown} classes; expected 1..{MAX_CLASSES} in one figure.")
    if len(method) > MAX_METHODS:
        raise InputError(f"--method: {len(method)} of them; expected at most {MAX_METHODS} in one figure.")
    if chunk_size < 1:
        raise InputError(f"--chunk-size {chunk_size}: expected at least 1.")

    # Imported here: `camjax --help` and other commands do not need them.
    import jax

    from camjax.attribution.methods import METHODS, common_image_size
    from camjax.cli.class_choice import class_ids, figure_names
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.cli.photographs import class_maps, for_display
    from camjax.data.images import resize_image
    from camjax.inference import make_localize_fns
    from camjax.loading import load_model
    from camjax.viz import comparisons_figure

    model, weights = network_choice(model, weights)

    def start(report: PictureReport) -> Callable[[Picture, np.ndarray], Found]:
        def say(name: str, done: int, total: int) -> None:
            report.say(f"{name}: {done} of {total} changed copies of the photograph seen")

        keep_compiled_programs()
        network = load_model(model, weights, trust=trust)
        methods = method or _methods_of_one_pass(network, layer)
        size = common_image_size(network, methods)
        rows = [METHODS[name] for name in methods]
        asked = class_ids(classes, network.class_names, rows[0].num_classes(network))
        about["layer"] = layer_to_explain(
            layer, network, methods[0], lambda: report.first_photographs(IMAGES, size), report.announce
        )
        localize = make_localize_fns(
            network,
            methods,
            threshold=threshold,
            top_k=1 if asked else top_k,
            layer=about["layer"],
            options={
                row.name: row.accepted(chunk_size=chunk_size, progress=functools.partial(say, row.name)) for row in rows
            },
        )

        def find(picture: Picture, photo: np.ndarray) -> Found:
            found = jax.device_get(localize(resize_image(photo, size)[None], np.array([asked]) if asked else None))
            by_method = {
                name: class_maps(network.multi_label, *(field[0] for field in found[name].asked or found[name].top))
                for name in methods
            }
            first = by_method[methods[0]]
            names = figure_names(first.class_ids, network.class_names)
            drawn = {
                "images": for_display(photo, report.display_pixels),
                "maps": [of_method.maps for of_method in by_method.values()],
                "boxes": [of_method.boxes for of_method in by_method.values()],
                "methods": methods,
                "names": [names[int(i)] for i in first.class_ids],
                "probabilities": first.probabilities,
                "titles": picture.name if len(pictures) > 1 else "",
            }
            table = functools.partial(_table, by_method, network.class_names, photo.shape[:2])
            return Found(photo.shape[:2], by_method, by_method, network.class_names, table, drawn)

        return find

    def draw(methods: Sequence[Sequence[str]], **of_pictures: Any) -> "Figure":
        return comparisons_figure(methods=methods[0], **of_pictures, **figures.drawing())

    pictures = find_pictures(images)
    about: dict[str, Any] = {"command": "compare", "model": model, "weights": weights, "threshold": threshold}
    cells = (shown, 1 + (len(method) or MAX_METHODS))
    PictureReport(pictures, "methods", output, figures, cells=cells, about=about).run(start, draw)


def _methods_of_one_pass(network: "CamModel", layer: str | None) -> tuple[str, ...]:
    """The methods that need one pass of the network and at most one backward pass of its head, of the layer if any."""
    from camjax.attribution.methods import METHODS, Needs
    from camjax.models.vit import reads_attention

    needs = {Needs.GRADIENTS}
    if layer is None and hasattr(network.head, "kernel"):
        needs.add(Needs.KERNEL)
    if layer is None and reads_attention(network):
        needs |= {Needs.ATTENTION, Needs.BLOCK_SCORES}
    return tuple(
        name
        for name, row in METHODS.items()
        if row.needs in needs and row.crops is None and row.target is None and row.combine is None
    )


def _table(found: Mapping[str, ClassMaps], names: Sequence[str] | None, size: tuple[int, int]) -> "Table":
    """For each class the box of each method."""
    from rich import box
    from rich.table import Table

    from camjax.cli.class_choice import class_name
    from camjax.cli.photographs import edges_in_pixels

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Class", overflow="fold", vertical="bottom")
    table.add_column("Method", vertical="bottom")
    table.add_column("Box in pixels\n  top  left bottom right", justify="right", no_wrap=True, vertical="bottom")
    class_ids = next(iter(found.values())).class_ids
    for row, class_id in enumerate(class_ids):
        for i, (method, of_method) in enumerate(found.items()):
            table.add_row(
                "" if i else class_name(class_id, names),
                method,
                edges_in_pixels(of_method.boxes[row], size) if of_method.valid[row] else "none",
                end_section=i == len(found) - 1,
            )
    return table
