"""`camjax compare`: one photograph by several methods, as a table and a grid of methods by classes."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from camjax.cli.network_choice import network_choice
from camjax.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from camjax.models import CamModel

MAX_METHODS, MAX_CLASSES = 16, 8  # in one figure, which is a bitmap of limited size


def compare(
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE", help_behavior_hint="(required)")],
    /,
    *,
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None,
    method: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME...", aliases=["--methods"], help_behavior_hint="")
    ] = (),
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    trust: bool = False,
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS...", help_behavior_hint="")] = (),
    top_k: Annotated[int, tyro.conf.arg(metavar="K")] = 2,
    threshold: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.2,
    chunk_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
) -> None:
    """Draw a grid of methods by classes for one photograph, and print their boxes.

    Args:
      image: A photograph (JPEG, PNG, WebP, TIFF, ...).
      model: A network of `camjax models`, a run, or MODULE:NAME; by default that of --weights, or efficientnet_lite0.
      method: Methods to compare, as cam gradcam scorecam; all that need one pass of the network if not given.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      classes: Classes to explain, by id or name: --classes 285 "tiger cat".
      top_k: Without --classes, the K most probable classes.
      threshold: The box encloses the largest connected region where the map exceeds this share of its maximum.
      chunk_size: For scorecam and other methods that change the photograph: copies of it in memory at a time.
      out: The figure; its suffix is its format. Without it: IMAGE_methods.png.
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
    from camjax.cam import class_probabilities
    from camjax.cli.class_choice import class_ids, class_name, figure_names
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.cli.figure_file import figure_path, save_figure
    from camjax.cli.photographs import for_display
    from camjax.data.images import load_image, resize_image
    from camjax.inference import make_localize_fns
    from camjax.loading import load_model
    from camjax.terminal import Console
    from camjax.viz import comparison_figure

    out = figure_path([image], out, "methods")
    photo = load_image(image)
    keep_compiled_programs()
    model, weights = network_choice(model, weights)
    with Console(stderr=True).status(f"{model}: loading, and compiling at the first start") as status:

        def progress(name: str, done: int, total: int) -> None:
            status.update(f"{name}: {done} of {total} changed copies of the photograph seen")

        network = load_model(model, weights, trust=trust)
        methods = method or _methods_of_one_pass(network)
        size = common_image_size(network, methods)
        rows = [METHODS[name] for name in methods]
        asked = class_ids(classes, network.class_names, rows[0].num_classes(network))
        localize = make_localize_fns(
            network,
            methods,
            threshold=threshold,
            top_k=1 if asked else top_k,
            options={
                row.name: row.accepted(chunk_size=chunk_size, progress=functools.partial(progress, row.name))
                for row in rows
            },
        )
        found = jax.device_get(localize(resize_image(photo, size)[None], np.array([asked]) if asked else None))
    drawn = [found[name].asked or found[name].top for name in methods]
    maps, boxes, valid = ([getattr(out, of)[0] for out in drawn] for of in ("maps", "boxes", "valid"))
    logits, ids = drawn[0].logits[0], drawn[0].class_ids[0]
    names = [class_name(i, network.class_names) for i in ids]

    console = Console()
    height, width = photo.shape[:2]
    console.print(f"{image} ({width} x {height} pixels)", style="bold", soft_wrap=True)
    console.print(_table(methods, names, boxes, valid, photo.shape[:2]), "")
    labels = list(figure_names(ids, network.class_names).values())
    figure = comparison_figure(
        for_display(photo), maps, boxes, methods, labels, class_probabilities(logits, network.multi_label)[ids]
    )
    save_figure(figure, out)
    console.print(f"Saved {out}", soft_wrap=True)


def _methods_of_one_pass(network: "CamModel") -> tuple[str, ...]:
    """The methods that need one pass of the network and at most one backward pass of its head."""
    from camjax.attribution.methods import METHODS, Needs

    needs = {Needs.GRADIENTS, Needs.KERNEL} if hasattr(network.head, "kernel") else {Needs.GRADIENTS}
    return tuple(name for name, row in METHODS.items() if row.needs in needs and row.crops is None)


def _table(
    methods: Sequence[str],
    names: Sequence[str],
    boxes: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    size: tuple[int, int],
) -> "Table":
    """For each class the box of each method."""
    from rich import box
    from rich.table import Table

    from camjax.cli.photographs import edges_in_pixels

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Class", overflow="fold", vertical="bottom")
    table.add_column("Method", vertical="bottom")
    table.add_column("Box in pixels\n  top  left bottom right", justify="right", no_wrap=True, vertical="bottom")
    for of_class, name in enumerate(names):
        for of_method, method in enumerate(methods):
            edges = edges_in_pixels(boxes[of_method][of_class], size)
            table.add_row(
                "" if of_method else name,
                method,
                edges if valid[of_method][of_class] else "none",
                end_section=of_method == len(methods) - 1,
            )
    return table
