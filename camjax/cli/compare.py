"""`camjax compare`: what several methods make of one photograph, as a table and a grid of methods by classes."""

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

MAX_METHODS, MAX_CLASSES = 16, 8  # in one figure, which is a bitmap of limited size


def compare(
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE", help_behavior_hint="(required)")],
    /,
    *,
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "efficientnet_lite0",
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...", help_behavior_hint="")] = (),
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS...", help_behavior_hint="")] = (),
    top_k: Annotated[int, tyro.conf.arg(metavar="K")] = 2,
    threshold: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.2,
    chunk_size: Annotated[int, tyro.conf.arg(metavar="N")] = 32,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
) -> None:
    """Draw a grid of methods by classes for one photograph, and print their boxes.

    Args:
      image: A photograph (JPEG, PNG, WebP, TIFF, ...).
      model: A network of `camjax models`, the directory of a training run, or MODULE:NAME of your own.
      methods: Methods to compare, as cam gradcam scorecam; all that take one pass of the network if not given.
      weights: A file (.pth, .safetensors, .caffemodel, ...) or address (hf://, https://). EfficientNet-Lite needs none.
      classes: Classes to compare them for, by id or name: --classes 285 "tiger cat".
      top_k: Without --classes, the K most probable classes.
      threshold: The box encloses the largest connected region where the map exceeds this share of its maximum.
      chunk_size: Of methods that perturb, such as scorecam: changed copies of the photograph in memory at a time.
      out: The figure; its suffix is its format. Without it: IMAGE_methods.png.
    """
    shown = len(classes) or top_k
    if not 1 <= shown <= MAX_CLASSES:
        name = "--classes" if classes else "--top-k"
        raise ValueError(f"{name}: {shown} classes; expected 1..{MAX_CLASSES} in one figure.")
    if len(methods) > MAX_METHODS:
        raise ValueError(f"--methods: {len(methods)} of them; expected at most {MAX_METHODS} in one figure.")
    if chunk_size < 1:
        raise ValueError(f"--chunk-size {chunk_size}: expected at least 1.")

    # Imported here, for `camjax --help` and other commands have no use for them.
    import jax
    from rich.console import Console
    from rich.text import Text

    from camjax.cli.class_choice import class_ids, class_name
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.cli.figure_file import figure_path, save_figure
    from camjax.cli.photographs import for_display, softmax
    from camjax.data.images import load_image, resize_image
    from camjax.evaluation.comparison import compare_methods
    from camjax.evaluation.methods import method_image_size
    from camjax.loading import load_model
    from camjax.viz import comparison_figure

    out = figure_path([image], out, "methods")
    photo = load_image(image)
    keep_compiled_programs()
    with Console(stderr=True).status(f"{model}: loading, and compiling at the first start") as status:

        def progress(name: str, done: int, total: int) -> None:
            status.update(f"{name}: {done} of {total} changed copies of the photograph seen")

        network = load_model(model, weights)
        methods = methods or _methods_of_one_pass(network)
        asked = class_ids(classes, network.class_names, network.head.num_classes)
        found = compare_methods(
            network,
            methods,
            resize_image(photo, method_image_size(network, methods[0]))[None],
            np.array([asked]) if asked else None,
            threshold=threshold,
            top_k=1 if asked else top_k,
            chunk_size=chunk_size,
            progress=progress,
        )
        found = [jax.device_get(found[name]) for name in methods]
    # The classes asked for stand behind the most probable one.
    drawn = slice(1, None) if asked else slice(top_k)
    logits, ids = found[0].logits[0], found[0].class_ids[0, drawn]
    names = [class_name(i, network.class_names) for i in ids]
    maps, boxes, valid = ([getattr(out, of)[0, drawn] for out in found] for of in ("maps", "boxes", "valid"))

    console = Console(highlight=False)
    height, width = photo.shape[:2]
    console.print(Text(f"{image} ({width} x {height} pixels)", style="bold"), soft_wrap=True)
    console.print(_table(methods, names, boxes, valid, photo.shape[:2]), "")
    figure = comparison_figure(for_display(photo), maps, boxes, methods, names, softmax(logits)[ids])
    save_figure(figure, out)
    console.print(Text(f"Saved {out}"), soft_wrap=True)


def _methods_of_one_pass(network) -> tuple[str, ...]:
    """The methods that need one forward and at most one backward pass, and that the network has."""
    from camjax.attribution import METHODS

    names = tuple(name for name, method in METHODS.items() if method.from_gradients)
    return ("cam", *names) if hasattr(network.head, "kernel") else names


def _table(methods, names, boxes, valid, size):
    """For each class the box of each method."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from camjax.cli.photographs import edges_in_pixels

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Class", overflow="fold", vertical="bottom")
    table.add_column("Method", vertical="bottom")
    table.add_column("Box in pixels\n  top  left bottom right", justify="right", no_wrap=True)
    for of_class, name in enumerate(names):
        for of_method, method in enumerate(methods):
            edges = edges_in_pixels(boxes[of_method][of_class], size)
            table.add_row(
                Text("" if of_method else name),
                method,
                edges if valid[of_method][of_class] else "none",
                end_section=of_method == len(methods) - 1,
            )
    return table
