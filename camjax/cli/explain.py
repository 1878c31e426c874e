"""`camjax explain`: what a network sees in photographs, and where, as tables and a figure."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

TABLE_ROWS = 5
MAX_IMAGES, MAX_MAPS = 32, 16  # in one figure, which is a bitmap of limited size
DISPLAY_SIDE = 800  # pixels; more than a photograph gets in the figure


@dataclass(frozen=True)
class Explanation:
    """What the network says about one photograph, for N classes.

    Attributes:
      size: (H, W) of the photograph in pixels.
      display: the photograph at its own aspect ratio, at most `DISPLAY_SIDE` high and wide; (H', W', 3) uint8 RGB.
      class_ids: (N,), the most probable ones first, in order; then those asked for.
      ranks: (N,) place of each class by falling probability, from 1.
      probabilities: (N,) softmax of the logits.
      maps: (N, h, w) raw class activation maps.
      boxes: (N, 4) `[ymin, xmin, ymax, xmax]` in 0..1.
      valid: (N,) whether there is a box.
    """

    size: tuple[int, int]
    display: np.ndarray
    class_ids: np.ndarray
    ranks: np.ndarray
    probabilities: np.ndarray
    maps: np.ndarray
    boxes: np.ndarray
    valid: np.ndarray


def explain(
    images: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...", help_behavior_hint="(required)")
    ],
    /,
    *,
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "efficientnet_lite0",
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    classes: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CLASS...", help_behavior_hint="")] = (),
    top_k: Annotated[int, tyro.conf.arg(metavar="K")] = 1,
    threshold: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.2,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
) -> None:
    """Show what a network sees in photographs, and where, in tables and a figure.

    The figure has the photographs, and over them class activation maps and boxes.

    Args:
      images: Photographs (JPEG, PNG, WebP, TIFF, ...). With several, the figure has a row for each.
      model: A network of `camjax models`, the directory of a training run, or MODULE:NAME of your own.
      weights: A file (.pth, .safetensors, .caffemodel, ...) or address (hf://, https://). EfficientNet-Lite needs none.
      classes: Classes whose maps to show, by id or name: --classes 285 "tiger cat". The table lists them too.
      top_k: Without --classes, the figure shows the maps of the K most probable classes.
      threshold: The box encloses the largest connected region where the map exceeds this share of its maximum.
      out: The figure; its suffix is its format. Without it: IMAGE_cam.png, or cam.png for several photographs.
    """
    # The command line's help keeps line breaks of the text above: hence one line for each argument.
    if not images:
        raise ValueError("no image given: expected at least one file, as in `camjax explain cat.jpg`.")
    if len(images) > MAX_IMAGES:
        raise ValueError(f"{len(images)} images: one figure holds at most {MAX_IMAGES}; give them in several calls.")
    shown = len(classes) or top_k
    if not 1 <= shown <= MAX_MAPS:
        name = "--classes" if classes else "--top-k"
        raise ValueError(f"{name}: {shown} maps for each photograph; expected 1..{MAX_MAPS}.")
    if not 0 <= threshold < 1:
        raise ValueError(f"--threshold {threshold}: expected a share of the map's maximum, 0 <= threshold < 1.")

    # Imported here, for `camjax --help` and other commands have no use for them.
    from rich.console import Console
    from rich.text import Text

    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.data.images import load_image
    from camjax.loading import load_model
    from camjax.viz import explanation_figure

    out = figure_path(images, out)
    photos = [load_image(path) for path in images]
    keep_compiled_programs()
    with Console(stderr=True).status(f"{model}: loading, and compiling at the first start"):
        network = load_model(model, weights)
        asked = class_ids(classes, network.class_names, network.head.num_classes)
        explanations = explain_photos(network, photos, asked, top_k, threshold)

    console = Console(highlight=False)
    for path, explanation in zip(images, explanations, strict=True):
        height, width = explanation.size
        console.print(Text(f"{path} ({width} x {height} pixels)", style="bold"), soft_wrap=True)
        console.print(_table(explanation, network.class_names, len(asked)), "")
    # The classes asked for stand behind the most probable ones.
    drawn = slice(-len(asked), None) if asked else slice(top_k)
    figure = explanation_figure(
        [e.display for e in explanations],
        [e.maps[drawn] for e in explanations],
        [e.boxes[drawn] for e in explanations],
        [[_name(i, network.class_names) for i in e.class_ids[drawn]] for e in explanations],
        [e.probabilities[drawn] for e in explanations],
        titles=[path.name for path in images],
    )
    # PNG's default compression takes longer than drawing the figure, and saves a tenth of the file.
    figure.savefig(out, pil_kwargs={"compress_level": 1} if out.suffix.lower() == ".png" else None)
    console.print(Text(f"Saved {out}"), soft_wrap=True)


def explain_photos(
    network, photos: Sequence[np.ndarray], asked: Sequence[int], top_k: int, threshold: float
) -> list[Explanation]:
    """Runs the network on photographs of any sizes.

    One compiled program serves every number of photographs, of classes and every threshold: it takes one photograph
    and returns the maps of all classes, which cost little more than one. Compiling takes a hundred times as long
    as running it does, so a batch would gain nothing.

    Args:
      network: a model with class activation maps.
      photos: (H, W, 3) uint8 RGB each.
      asked: ids of classes to add to the most probable ones.
      top_k: the number of these, where it is more than `TABLE_ROWS`.
      threshold: as in `camjax.make_localize_fn`.
    """
    import jax

    from camjax.data.images import resize_image
    from camjax.inference import boxes_from_maps, check_top_k, make_cam_fn, num_classes

    check_top_k(top_k, num_classes(network))
    cam_fn = make_cam_fn(network, top_k=None)
    boxes_fn = jax.jit(boxes_from_maps, static_argnums=1)
    explanations = []
    for photo in photos:
        height, width = photo.shape[:2]
        out = jax.device_get(cam_fn(resize_image(photo, network.input_size)[None]))
        logits, maps = out.logits[0], out.maps[0]
        exponentials = np.exp(logits - logits.max())
        order = np.argsort(-logits, kind="stable")
        ids = np.concatenate([order[: max(top_k, TABLE_ROWS)], np.array(asked, order.dtype)])
        boxes, valid = jax.device_get(boxes_fn(maps[ids], network.input_size, np.float32(threshold)))
        scale = min(1, DISPLAY_SIDE / max(height, width))
        explanations.append(
            Explanation(
                size=(height, width),
                display=resize_image(photo, (max(1, round(height * scale)), max(1, round(width * scale)))),
                class_ids=ids,
                ranks=np.argsort(order)[ids] + 1,
                probabilities=(exponentials / exponentials.sum())[ids],
                maps=maps[ids],
                boxes=boxes,
                valid=valid,
            )
        )
    return explanations


def figure_path(images: Sequence[Path], out: Path | None) -> Path:
    """Where the figure goes; checked before any work is done.

    Raises:
      ValueError: `out` is one of the images, a directory, or of a format that matplotlib does not write.
      OSError: its directory does not exist, or it cannot be written.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    if out is None:
        out = Path(f"{images[0].stem}_cam.png" if len(images) == 1 else "cam.png")
    formats = FigureCanvasBase.get_supported_filetypes()
    if out.is_dir():
        raise ValueError(f"--out {out} is a directory: expected a file, such as {out / 'cam.png'}.")
    if out.suffix[1:].lower() not in formats:
        raise ValueError(
            f"--out {out}: expected a file that ends in .png, or in one of .{', .'.join(sorted(formats))}."
        )
    if any(out.resolve() == image.resolve() for image in images):
        raise ValueError(f"--out {out} is one of the images: expected another file, the figure would overwrite it.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no directory {out.parent}; make it first.")
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise PermissionError(f"--out {out}: no permission to write there; give another --out FILE.")
    return out


def class_ids(classes: Sequence[str], names: Sequence[str] | None, num_classes: int) -> list[int]:
    """Ids of the classes that a user named; each once, in the order given.

    Args:
      classes: ids in decimal, and names: the whole of a class's name or one of the words that its commas separate,
        in upper or lower case.
      names: of the C classes, or None where they are not known.
      num_classes: C.

    Raises:
      ValueError: an id out of range, or a name that none or several of the classes have.
    """
    ids = {}
    for text in classes:
        if text.lstrip("-").isdecimal():
            if not 0 <= int(text) < num_classes:
                raise ValueError(f"--classes {text}: out of range, the network has classes 0..{num_classes - 1}.")
            ids[int(text)] = None
        elif names is None:
            raise ValueError(
                f"--classes {text!r}: the names of this network's classes are not known; give ids in "
                f"0..{num_classes - 1}."
            )
        else:
            ids[_id_of_name(text, names)] = None
    return list(ids)


def _id_of_name(text: str, names: Sequence[str]) -> int:
    """The one class that has this name."""
    wanted = text.strip().lower()
    words = [[word.strip() for word in name.split(",")] for name in names]
    matches = [i for i, name in enumerate(names) if wanted in (name.lower(), *map(str.lower, words[i]))]
    if len(matches) == 1:
        return matches[0]
    if matches:
        listed = "; ".join(f"{i} is {names[i]!r}" for i in matches)
        raise ValueError(f"--classes {text!r} names {len(matches)} classes: {listed}. Give the id.")
    known = {word.lower(): word for of_class in words for word in of_class}
    holding = [word for word in known if wanted in word.split()]
    similar = difflib.get_close_matches(wanted, known, n=5)
    near = [repr(known[word]) for word in dict.fromkeys(holding + similar)][:8]
    hint = f"Did you mean {', '.join(near)}?" if near else "Try another word, or give the id."
    raise ValueError(f"--classes {text!r}: no class of this network has that name. {hint}")


def _name(class_id: int, names: Sequence[str] | None) -> str:
    return f"class {class_id}" if names is None else names[class_id]


def _table(explanation: Explanation, names: Sequence[str] | None, num_asked: int):
    """A table of a photograph's classes: the most probable ones, then those asked for that are not among them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Rank", justify="right", vertical="bottom")
    table.add_column("Class", overflow="fold", vertical="bottom")
    table.add_column("Id", justify="right", vertical="bottom")
    table.add_column("Probability", justify="right", vertical="bottom")
    table.add_column("Box in pixels\n  top  left bottom right", justify="right", no_wrap=True)
    height, width = explanation.size
    top = len(explanation.class_ids) - num_asked
    for i, class_id in enumerate(explanation.class_ids):
        if i >= top and class_id in explanation.class_ids[:top]:
            continue
        edges = np.rint(explanation.boxes[i] * (height, width, height, width)).astype(int)
        table.add_row(
            str(explanation.ranks[i]),
            Text(_name(class_id, names)),
            str(class_id),
            f"{explanation.probabilities[i]:.1%}",
            "{:5} {:5} {:6} {:5}".format(*edges) if explanation.valid[i] else "none",
            end_section=i == top - 1,
        )
    return table
