r"""Tables 1 to 3 of Zhou et al. 2016: classification and localization on ILSVRC, next to the paper's numbers.

    python -m experiments.imagenet_localization                     # the tables, and what is missing to fill them
    camjax prepare imagenet2012 --archives DIR --data-dir DATA    # once
    python -m experiments.imagenet_localization --data-dir DATA --weights-dir WEIGHTS \\
        --boxes ILSVRC2012_bbox_val_v3.tgz --blacklist ILSVRC2014_clsloc_validation_blacklist.txt

WEIGHTS has a file for each network to run, named as the network: `googlenet_gap.caffemodel`, `vgg16_gap.caffemodel`,
`alexnet_star_gap.caffemodel` (the paper's own, whose addresses are in docs/models.md), `alexnet.caffemodel`,
`googlenet.caffemodel`, `vgg16.caffemodel` (BVLC's and Oxford's), or what camjax trained (`experiments.imagenet`), as
directories of runs. Networks whose file is missing are left out, and the output says so.
Each network runs once over the 50,000 images of the validation split. The same command continues an interrupted run.

Cost: a forward pass for each image and network, a backward pass for backprop, and a graph cut for each of six boxes
(about 50 ms a box on a CPU core). Two CPU cores pass 12 images a second through a ResNet-50: 50,000 in 70 minutes.

The paper's numbers are errors in percent. Table 3 is on the test split, whose labels are not public: our column is on
the validation split, within 0.2 points of it by the paper's table 2. The thresholds of the tight and the loose box are
not in the paper; ours are the defaults of `camjax.metrics.localization.heuristic`.

The paper's columns are printed beside ours only where ours are on all of the split's images.

Our numbers: none yet, the networks' published weights were not available where this was written.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import camjax
from camjax.cli.options import (
    ALONE,
    Count,
    Folder,
    OptionalCount,
    OptionalFolder,
    OptionalPath,
    Processes,
    arg,
    at_least_one,
)
from camjax.data.annotated import open_annotated
from camjax.data.annotation import AnnotatedSource
from camjax.errors import InputError
from camjax.evaluation.report import counts_sentence, summary, write_results
from camjax.evaluation.runner import evaluate_localization
from camjax.processes import is_first
from camjax.terminal import Console, progress
from camjax.weights.fingerprint import weights_sha256
from experiments.common.command import start
from experiments.imagenet_localization.tables import NETWORKS, TABLES, tables

SUFFIXES = (".caffemodel", ".safetensors", ".pth", ".npz")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run the networks of Tables 1 to 3 whose weights are found, and print the tables with the paper's numbers.

    Attributes:
      dataset: A prepared data set with ImageNet's classes.
      split: Its split.
      data_dir: Where the data set is prepared; tensorflow-datasets' default if not given.
      boxes: ILSVRC2012_bbox_val_v3.tgz, or a folder of its XML.
      blacklist: ILSVRC's list of validation images to leave out.
      weights_dir: A folder with a file of weights, or a run, for each network. Without it, only the paper's numbers are
        printed.
      out: Where all results go. The same command continues where it stopped.
      batch_size: Images at a time, over all devices.
      limit: Only the first N images.
      processes: Which processes share the work.
    """

    dataset: Annotated[str, arg("NAME")] = "imagenet2012"
    split: Annotated[str, arg("SPLIT")] = "validation"
    data_dir: OptionalFolder = None
    boxes: OptionalPath = None
    blacklist: OptionalPath = None
    weights_dir: OptionalFolder = None
    out: Folder = Path("runs/imagenet_localization")
    batch_size: Count = 32
    limit: OptionalCount = None
    processes: Processes = ALONE

    def __post_init__(self):
        at_least_one(self, "batch_size", "limit")


def weights_of(folder: Path | None) -> dict[str, Path]:
    """The weights of the networks in a folder, files or directories of runs: name -> path.

    Raises:
      FileNotFoundError: the folder does not exist.
      ValueError: the folder has two files for one network.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise FileNotFoundError(f"--weights-dir {folder}: folder not found.")
    found = {}
    for name in NETWORKS:
        paths = [path for suffix in ("", *SUFFIXES) if (path := folder / f"{name}{suffix}").exists()]
        if len(paths) > 1:
            raise InputError(f"{' and '.join(map(str, paths))} are both weights of {name!r}: expected one.")
        if paths:
            found[name] = paths[0]
    return found


def run(options: Options, name: str, weights: Path, source: AnnotatedSource, console: Console) -> dict:
    """Evaluates one network by every method and metric of its rows; returns its part of results.json."""
    rows = [row for _, of_table in TABLES.values() for row in of_table if row.file == name]
    methods = sorted({row.method for row in rows})
    metrics = sorted({row.metric for row in rows})
    network, pool = NETWORKS[name]
    model = camjax.load_model(weights) if weights.is_dir() else camjax.load_model(network, weights, pool=pool)
    sha256 = weights_sha256(model)
    with progress(name, console) as update:
        evaluation = evaluate_localization(
            model,
            source,
            methods=methods,
            metrics=metrics,
            batch_size=options.batch_size,
            limit=options.limit,
            run_dir=options.out / name,
            resume=True,
            options={"model": network, "weights_sha256": sha256},
            progress=update,
        )
    subject = {
        "model": network,
        "weights": str(weights),
        "weights_sha256": sha256,
        "dataset": source.info.name,
        "split": source.info.split,
    }
    results = summary(evaluation, subject)
    if is_first():
        write_results(options.out / name, results)
    console.print(f"{name}: {counts_sentence(results)}")
    return results


def main(options: Options) -> None:
    """Runs the networks, and prints the tables."""
    options.processes.join()
    console = Console(quiet=not is_first())
    weights = weights_of(options.weights_dir)
    results = {}
    if weights:
        source = open_annotated(
            options.dataset,
            options.split,
            data_dir=options.data_dir,
            boxes=options.boxes,
            blacklist=options.blacklist,
        )
        for name, path in weights.items():
            results[name] = run(options, name, path, source, console)
    for table in tables(results):
        console.print(table)
    missing = [name for name in NETWORKS if name not in weights]
    if missing:
        where = options.weights_dir or "--weights-dir DIR"
        console.print(
            f"Not run, because {where} has no weights for them: {', '.join(missing)}. A file has the name of its "
            f"network and ends in {', '.join(SUFFIXES)}; a directory is a training run.",
            soft_wrap=True,
        )
    if results and is_first():
        path = options.out / "results.json"
        path.write_text(json.dumps(results, indent=2) + "\n")
        console.print(f"Saved {path}", soft_wrap=True)


if __name__ == "__main__":
    start("imagenet_localization", main, Options)
