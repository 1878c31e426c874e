"""`camjax evaluate`: how well a network's maps localize the objects of a data set, as a table and files."""

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from camjax.addresses import as_path, is_address
from camjax.cli.figure_options import FigureOptions
from camjax.cli.layer_option import IMAGES, Layer, layer_to_explain
from camjax.cli.network_choice import DEFAULT_METHOD, DEFAULT_THRESHOLD, exported_network, network_choice
from camjax.cli.options import (
    ALONE,
    Count,
    Flag,
    Folder,
    Model,
    OptionalCount,
    OptionalPath,
    Processes,
    Share,
    Threshold,
    Weights,
)
from camjax.errors import InputError, require_extra


def evaluate(
    *,
    dataset: Annotated[str, tyro.conf.arg(metavar="NAME|DIR|FILE")],
    split: Annotated[str, tyro.conf.arg(metavar="SPLIT")] = "validation",
    data_dir: OptionalPath = None,
    boxes: OptionalPath = None,
    blacklist: OptionalPath = None,
    lists: OptionalPath = None,
    masks: OptionalPath = None,
    model: Model = None,
    weights: Weights = None,
    trust: Flag = False,
    method: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="NAME...", aliases=["--methods"], help_behavior_hint=f"(default: {DEFAULT_METHOD})"),
    ] = (),
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ("ilsvrc", "maxboxacc", "maxboxaccv2"),
    threshold: Threshold = None,
    layer: Layer = None,
    threshold_step: Share = 0.01,
    batch_size: Count = 32,
    crop: Literal["none", "center"] = "none",
    limit: OptionalCount = None,
    out: Folder = Path("evaluation"),
    resume: Flag = False,
    save_maps: Flag = False,
    workers: Count = 0,
    figures: Annotated[FigureOptions, tyro.conf.arg(name="")],
    processes: Processes = ALONE,
) -> None:
    """Measure how well maps localize the objects of a data set, and how faithful they are to the network.

    Prints a table and writes results.json, results.csv, images.csv, a plot of the threshold curves and a grid of the
    best and worst cases. docs/metrics.md and docs/faithfulness.md explain the numbers.

    Args:
      dataset: A prepared data set (imagenet2012, ...), scenes, look_alikes, a folder (./NAME), or a CSV of file,label.
      split: A split or slice, such as "test[:10%]"; of a folder, one of its sub-folders; of a CSV, one that it names.
      data_dir: Where prepared data sets are; tensorflow-datasets' default if not given.
      boxes: True boxes: ILSVRC2012_bbox_val_v3.tgz, a folder of XML, or a CSV file of boxes in pixels.
      blacklist: A file with the numbers of the validation images to leave out, as ILSVRC's.
      lists: A folder of lists in wsolevaluation's format (class_labels.txt, localization.txt, ...).
      masks: A folder of masks, for the lists that name them.
      model: A network of `camjax models`, a run, MODULE:NAME or FILE.camjax.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      method: How maps are made: cam, gradcam, layercam, center, ...; docs/attribution.md has all of them.
      metrics: What to measure: ilsvrc, maxboxacc, ... (docs/metrics.md); insertion, road, ... (docs/faithfulness.md).
      layer: The layer that the methods explain; auto measures the first images by the first one. By default the last.
      threshold: The paper's box encloses the largest connected region where the map exceeds this share of its maximum.
      threshold_step: Between the thresholds of maxboxacc, maxboxaccv2 and pxap; published numbers are with 0.001.
      batch_size: Images at a time, over all devices of all processes.
      crop: "none" squashes an image to the network's input; "center" takes its largest centered part.
      limit: Evaluate the first N images only.
      out: Where everything is written, a folder or gs://, s3://.
      resume: Continue an interrupted evaluation in --out; the results match an uninterrupted run.
      save_maps: Also write the maps of the true classes, 224 x 224 in 0..1: scoremaps/[METHOD/]NAME.npy.
      workers: Processes that read images; 0 reads in threads.
      figures: How figures are drawn.
      processes: Which processes evaluate together.
    """
    # Imported here, because other commands do not need them.

    from camjax.attribution.methods import common_image_size
    from camjax.cli.compilation_cache import keep_compiled_programs
    from camjax.data.annotated import from_anywhere, open_annotated
    from camjax.data.relabeled import with_classes_of
    from camjax.evaluation.figures import cases_figure, curve_figure, save_figures
    from camjax.evaluation.report import counts_sentence, results_table, summary, write_results
    from camjax.evaluation.runner import crop_rule, evaluate_localization, first_images
    from camjax.loading import load_model
    from camjax.processes import is_first
    from camjax.terminal import Console, progress
    from camjax.weights.fingerprint import weights_sha256

    if threshold is not None and not 0 <= threshold < 1:
        raise InputError(f"--threshold {threshold}: expected a share of the map's maximum, 0 <= threshold < 1.")
    require_extra("data", "camjax evaluate", "grain", "tensorflow_datasets")
    processes.join()
    console, errors = Console(quiet=not is_first()), Console(stderr=True, quiet=not is_first())
    out = as_path(out) if is_address(out) else out
    files: dict[str, Any] = {
        "data_dir": data_dir,
        "boxes": boxes,
        "blacklist": blacklist,
        "lists": lists,
        "masks": masks,
    }
    source = open_annotated(dataset, split, **files)
    keep_compiled_programs()
    model, weights = network_choice(model, weights)
    with errors.status(f"loading {model}"):
        exported = exported_network(model, method, layer, weights, trust)
        network: Any = exported or load_model(model, weights, trust=trust)
    if exported is not None:
        method, threshold = (exported.method,), exported.about["threshold"] if threshold is None else threshold
    method, threshold = method or (DEFAULT_METHOD,), DEFAULT_THRESHOLD if threshold is None else threshold
    source = with_classes_of(source, network.class_names, network.num_classes)
    names = source.info.class_names
    if not network.class_names and not all(name.isdecimal() for name in names):
        pairs = ", ".join(f"{i} is {name!r}" for i, name in enumerate(names[:3])) + ", ..." * (len(names) > 3)
        sentence = f"The names of the network's classes are not known; they are taken in the data's order: {pairs}."
        console.print(sentence, soft_wrap=True)
    sha256 = weights_sha256(network)
    layer = layer_to_explain(
        layer,
        network,
        method[0],
        lambda: first_images(
            source,
            IMAGES,
            common_image_size(network, method),
            None if crop == "none" else crop,
            **crop_rule(network),
        ),
        lambda sentence: console.print(sentence, soft_wrap=True),
    )
    with progress("evaluating", errors, "images") as show:
        evaluation = evaluate_localization(
            network,
            source,
            methods=method,
            metrics=metrics,
            threshold=threshold,
            threshold_step=threshold_step,
            layer=layer,
            batch_size=batch_size,
            crop=None if crop == "none" else crop,
            limit=limit,
            run_dir=out,
            resume=resume,
            save_maps=save_maps,
            options={"model": model, "weights_sha256": sha256},
            num_workers=workers,
            progress=show,
        )
    if not is_first():
        return
    results = summary(
        evaluation,
        {
            "model": model,
            "weights": weights,
            "weights_sha256": sha256,
            "dataset": source.info.name,
            "split": source.info.split,
            "class_names": list(names),
            # What opens them again, for `camjax app`.
            "pictures": {
                "dataset": from_anywhere(dataset, lists),
                "split": split,
                **{name: None if path is None else str(path.expanduser().absolute()) for name, path in files.items()},
            },
            "options": {
                "threshold": threshold,
                "layer": layer if exported is None else exported.about["layer"],
                "batch_size": batch_size,
                "crop": crop,
                "limit": limit,
                **{name: None if path is None else str(path) for name, path in files.items()},
            },
        },
    )
    console.print(results_table(results))
    console.print(counts_sentence(results))
    paths = write_results(out, results)
    with console.status("drawing figures"):
        paths += save_figures(
            out,
            {
                "thresholds": curve_figure(evaluation, dpi=figures.dpi),
                "cases": cases_figure(source, evaluation.cases, **figures.drawing()),
            },
            figures.format,
        )
    for path in (*paths, out / "images.csv", *[out / "scoremaps"] * save_maps):
        console.print(f"Saved {path}", soft_wrap=True)
