"""`camjax annotate`: boxes of what a network sees in a folder of pictures, in the formats of annotation tools."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from camjax.addresses import as_path, is_address
from camjax.cli.figure_options import FigureOptions
from camjax.cli.network_choice import DEFAULT_METHOD, DEFAULT_THRESHOLD, exported_network, network_choice
from camjax.cli.options import ALONE, Classes, Count, Flag, Folder, Method, Model, Processes, Share, TopK, Weights
from camjax.errors import InputError, few, require_extra

if TYPE_CHECKING:
    from camjax.annotating import Manifest
    from camjax.terminal import Console

CLASSES_SHOWN = 20


def annotate(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")],
    /,
    *,
    out: Folder = Path("annotation"),
    model: Model = None,
    weights: Weights = None,
    trust: Flag = False,
    method: Method = None,
    classes: Classes = (),
    top_k: TopK = 1,
    boxes: Literal["paper", "components"] = "paper",
    threshold: Annotated[
        tuple[float, ...], tyro.conf.arg(metavar="SHARE...", help_behavior_hint=f"(default: {DEFAULT_THRESHOLD})")
    ] = (),
    max_boxes: Count = 10,
    min_area: Share = 0.0,
    min_score: Annotated[float, tyro.conf.arg(metavar="SCORE")] = 0.0,
    maps: Flag = False,
    overlays: Flag = False,
    batch_size: Count = 32,
    workers: Count = 0,
    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N", help_behavior_hint="")] = None,
    merge: Flag = False,
    figures: Annotated[FigureOptions, tyro.conf.arg(name="")],
    processes: Processes = ALONE,
) -> None:
    """Write where things are in a folder of pictures: boxes as COCO JSON, as CSV and as PASCAL VOC XML.

    The same command continues an interrupted one. Pictures that can't be read are listed in manifest.json with the
    reason; the exit code is 1 only if none can be read. docs/annotating.md explains the files and the scores.

    Args:
      folder: The folder of pictures; those in folders below it count too.
      out: Where everything is written, a folder or gs://, s3://: coco.json, boxes.csv, voc/, and last manifest.json.
      model: A network of `camjax models`, a run, MODULE:NAME or FILE.camjax.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      method: How maps are made: cam, gradcam, layercam, scorecam, ...; docs/attribution.md has all of them.
      classes: Classes to box in every picture, by id or name: --classes 285 "tiger cat". See --min-score.
      top_k: Without --classes, each picture's K most probable classes are boxed.
      boxes: paper: one box a map, of its largest connected region. components: one for each connected region.
      threshold: A region is where the map exceeds this share of its maximum. Several give boxes each.
      max_boxes: With --boxes components, the most boxes of a map: those with the highest scores.
      min_area: With --boxes components, leave out regions of a smaller share of the picture, such as 0.01.
      min_score: Leave out boxes with a lower score: the class's probability times the region's peak, 0 to 1.
      maps: Also write the raw maps, as arrays: maps/*.npz.
      overlays: Also write a figure of each picture under its maps, with its boxes: overlays/.
      batch_size: Pictures at a time, on each device.
      workers: Processes that read pictures; 0 reads in threads.
      shard: Annotate one of N shares of the pictures only, I from 0: for the tasks of a Slurm array or an indexed job.
      merge: Write the files from the finished shards.
      figures: How overlays are drawn.
      processes: Which processes annotate together.
    """
    of_shard = _shard(shard)
    for wrong, message in (
        (merge and shard, "--merge and --shard: first run all shards, then --merge alone."),
        (classes and top_k != 1, "--classes and --top-k: leave out one of them."),
        (overlays and figures.scale == "all", "--scale all is for one figure: give picture, each or a number."),
        (
            (shard or merge) and processes != ALONE,
            "--shard and --merge are for processes that do not know of each other: no --coordinator.",
        ),
    ):
        if wrong:
            raise InputError(message)
    require_extra("data", "camjax annotate", "grain")

    # Imported here, because other commands do not need them.
    from camjax.annotating import Options, annotate_folder
    from camjax.annotating.loop import check_folders
    from camjax.attribution.methods import method_named
    from camjax.cli.class_choice import class_ids
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.loading import load_model
    from camjax.processes import is_first
    from camjax.terminal import Console, progress

    options = Options(
        method=method or DEFAULT_METHOD,
        top_k=top_k,
        boxes=boxes,
        thresholds=threshold or (DEFAULT_THRESHOLD,),
        max_boxes=max_boxes,
        min_area=min_area,
        min_score=min_score,
        maps=maps,
        overlays=overlays,
        drawing=figures.drawing() if overlays else {},
        format=figures.format,
        batch_size=batch_size,
    )
    check_folders(folder, out)
    out = as_path(out) if is_address(out) else out
    if not (shard or merge):  # a task of a Slurm array is not to wait for the others
        processes.join()
    keep_compiled_programs()
    model, weights = network_choice(model, weights)
    errors = Console(stderr=True, quiet=not is_first())
    with errors.status(f"loading {model}"):
        exported = exported_network(model, [method] if method else [], weights, trust)
        network = exported or load_model(model, weights, trust=trust)
    if exported is not None:
        thresholds = threshold or (exported.about["threshold"],)
        options = dataclasses.replace(options, method=exported.method, thresholds=thresholds)
    ids = class_ids(classes, network.class_names, method_named(options.method).num_classes(network))
    options = dataclasses.replace(options, classes=tuple(ids))
    with progress("annotating", errors, "pictures") as show:
        manifest = annotate_folder(
            network,
            folder,
            out,
            options,
            model_name=model,
            shard=of_shard,
            merge=merge,
            num_workers=workers,
            progress=show,
        )
    console = Console(quiet=not is_first())
    if manifest is None:
        console.print(f"Shard {shard} is finished. After all of them, run the command with --merge.", soft_wrap=True)
        return
    _print_summary(console, manifest, folder, out, network.class_names)
    if not manifest["annotated"]:
        raise InputError(
            f"none of the {manifest['pictures']} pictures can be read: {out / 'manifest.json'} has the reasons."
        )


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    if not (found := re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)):
        raise InputError(f"--shard {text}: expected I/N, as 0/8 for the first of eight shards.")
    index, count = map(int, found.groups())
    if not 0 <= index < count:
        raise InputError(f"--shard {text}: expected I/N with I below N, since the first of eight shards is 0/8.")
    return index, count


def _print_summary(
    console: "Console", manifest: "Manifest", folder: Path, out: Path, class_names: Sequence[str] | None
) -> None:
    from rich import box
    from rich.table import Table

    from camjax.annotating.formats import FORMATS

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("Class", "Pictures", "Boxes"):
        table.add_column(name, justify="left" if name == "Class" else "right", overflow="fold")
    for row in manifest["classes"][:CLASSES_SHOWN]:
        table.add_row(row["name"], str(row["pictures"]), str(row["boxes"]))
    if rest := manifest["classes"][CLASSES_SHOWN:]:
        table.add_row(f"{len(rest)} more classes", "", str(sum(row["boxes"] for row in rest)))
    console.print(table)
    unreadable = manifest["unreadable"]
    console.print(
        f"{manifest['pictures']} pictures: {manifest['annotated']} annotated, {manifest['without_boxes']} of them "
        f"without boxes, {len(unreadable)} unreadable. {manifest['boxes']} boxes.",
        soft_wrap=True,
    )
    for item in unreadable[:5]:
        console.print(f"  {item['file']}: {item['reason']}", soft_wrap=True)
    if len(unreadable) > 5:
        console.print(f"  and {len(unreadable) - 5} more: see {out / 'manifest.json'}", soft_wrap=True)
    for name in (*FORMATS, *(name for name in ("maps", "overlays") if name in manifest["files"]), "manifest.json"):
        console.print(f"Saved {out / name}", soft_wrap=True)
    if is_address(out):
        return
    place, boxes = shlex.quote(str(folder.absolute())), shlex.quote(str(out / "boxes.csv"))
    console.print("Next:", f"  camjax app {shlex.quote(str(out))}", sep="\n", soft_wrap=True)
    if wrong := _no_classes(folder, class_names):
        console.print(
            f"camjax evaluate takes a picture's folder for its class, and this network has no {few(wrong)}: to measure "
            "the boxes, sort the pictures by class, or move them beside each other and annotate again.",
            soft_wrap=True,
        )
    else:
        console.print(f"  camjax evaluate --dataset {place} --split all --boxes {boxes} --model ...", soft_wrap=True)


def _no_classes(folder: Path, class_names: Sequence[str] | None) -> list[str]:
    """The folders of pictures that have the name of no class."""
    from camjax.class_names import class_id

    wrong = []
    for path in sorted(folder.iterdir()):
        if class_names and path.is_dir() and not path.name.startswith("."):
            try:
                class_id(path.name, class_names)
            except InputError:
                wrong.append(path.name)
    return wrong
