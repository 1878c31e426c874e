r"""Tables 1 to 3 of Zhou et al. 2016: classification and localization on ILSVRC, the paper's numbers beside ours.

    python -m experiments.imagenet_localization                     # the tables, and what is missing to fill them
    camjax prepare imagenet2012 --manual-dir DIR --data-dir DATA    # once
    python -m experiments.imagenet_localization --data-dir DATA --weights-dir WEIGHTS \\
        --boxes ILSVRC2012_bbox_val_v3.tgz --blacklist ILSVRC2014_clsloc_validation_blacklist.txt

WEIGHTS holds a file for each network that is to be run, named as the network: `googlenet_gap.caffemodel` (the
release's imagenet_googlenetCAM), `vgg16_gap.caffemodel` (vgg16CAM), `alexnet_star_gap.caffemodel` (alexnetplusCAM),
`alexnet.caffemodel`, `googlenet.caffemodel`, `vgg16.caffemodel` (BVLC's and Oxford's), or what camjax trained
(`experiments.imagenet`), as directories of runs; networks whose file is missing are left out, and the table says so.
Each network runs once over the 50,000 images of the validation split, and goes on where it was interrupted.

Cost: a forward pass for each image and network, and for backprop a backward pass, and a graph cut for each of six
boxes (about 50 ms a box on a CPU core). Two CPU cores take a ResNet-50 through 12 images a second, hence through 50,000
in 70 minutes.

The paper's numbers are errors in percent. Table 3 is on the test split, whose labels are not public: our column is on
the validation split, which the paper's table 2 shows to lie within 0.2 points of it. The thresholds of the tight and
the loose box are not in the paper; ours are the defaults of `camjax.metrics.localization.heuristic`. None of the
networks' published weights were at hand where this file was written, so that no number of ours stands here.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import camjax
from camjax.cli.errors import run_command
from camjax.data.annotated import open_annotated
from camjax.evaluation.report import counts_sentence, summary, write_results
from camjax.evaluation.runner import evaluate_localization
from camjax.weights.fingerprint import weights_sha256
from experiments.progress import progress

PROGRAM = "python -m experiments.imagenet_localization"
SUFFIXES = (".caffemodel", ".safetensors", ".pth", ".npz")


@dataclass(frozen=True)
class Row:
    """A row of a table: the paper's name, whose maps they are, and the paper's top-1 and top-5 errors in percent.

    Attributes:
      name: as the paper writes it.
      file: the name of the file of weights; "" for a row that is quoted alone.
      method: of `camjax.evaluation.methods.METHODS`.
      metric: of `camjax.metrics.METRICS`.
      paper: top-1 and top-5 errors; None where the paper has no number.
    """

    name: str
    file: str
    method: str
    metric: str
    paper: tuple[float | None, float]


# File of weights -> network, and its pooling.
NETWORKS = {
    "vgg16_gap": ("vgg16_gap", "gap"),
    "googlenet_gap": ("googlenet_gap", "gap"),
    "alexnet_star_gap": ("alexnet_star_gap", "gap"),
    "alexnet_gap": ("alexnet_gap", "gap"),
    "googlenet": ("googlenet", "gap"),
    "vgg16": ("vgg16", None),
    "alexnet": ("alexnet", None),
    "nin": ("nin", "gap"),
    "googlenet_gmp": ("googlenet_gap", "gmp"),
}

TABLES = {
    "Table 1. Classification error on the ILSVRC validation set (%)": (
        "classification",
        (
            Row("VGGnet-GAP", "vgg16_gap", "cam", "ilsvrc", (33.4, 12.2)),
            Row("GoogLeNet-GAP", "googlenet_gap", "cam", "ilsvrc", (35.0, 13.2)),
            Row("AlexNet*-GAP", "alexnet_star_gap", "cam", "ilsvrc", (44.9, 20.9)),
            Row("AlexNet-GAP", "alexnet_gap", "cam", "ilsvrc", (51.1, 26.3)),
            Row("GoogLeNet", "googlenet", "cam", "ilsvrc", (31.9, 11.3)),
            Row("VGGnet", "vgg16", "backprop", "ilsvrc", (31.2, 11.4)),
            Row("AlexNet", "alexnet", "backprop", "ilsvrc", (42.6, 19.5)),
            Row("NIN", "nin", "cam", "ilsvrc", (41.9, 19.6)),
            Row("GoogLeNet-GMP", "googlenet_gmp", "cam", "ilsvrc", (35.6, 13.9)),
        ),
    ),
    "Table 2. Localization error on the ILSVRC validation set (%)": (
        "localization",
        (
            Row("GoogLeNet-GAP", "googlenet_gap", "cam", "ilsvrc", (56.40, 43.00)),
            Row("VGGnet-GAP", "vgg16_gap", "cam", "ilsvrc", (57.20, 45.14)),
            Row("GoogLeNet", "googlenet", "cam", "ilsvrc", (60.09, 49.34)),
            Row("AlexNet*-GAP", "alexnet_star_gap", "cam", "ilsvrc", (63.75, 49.53)),
            Row("AlexNet-GAP", "alexnet_gap", "cam", "ilsvrc", (67.19, 52.16)),
            Row("NIN", "nin", "cam", "ilsvrc", (65.47, 54.19)),
            Row("Backprop on GoogLeNet", "googlenet", "backprop", "ilsvrc", (61.31, 50.55)),
            Row("Backprop on VGGnet", "vgg16", "backprop", "ilsvrc", (61.12, 51.46)),
            Row("Backprop on AlexNet", "alexnet", "backprop", "ilsvrc", (65.17, 52.64)),
            Row("GoogLeNet-GMP", "googlenet_gmp", "cam", "ilsvrc", (57.78, 45.26)),
        ),
    ),
    "Table 3. Localization error on the ILSVRC test set (%); ours on the validation set": (
        "localization",
        (
            Row("GoogLeNet-GAP, heuristic", "googlenet_gap", "cam", "heuristic", (None, 37.1)),
            Row("GoogLeNet-GAP", "googlenet_gap", "cam", "ilsvrc", (None, 42.9)),
            Row("Backprop", "googlenet", "backprop", "ilsvrc", (None, 46.4)),
            Row("GoogLeNet, trained on boxes", "", "", "", (None, 26.7)),
            Row("OverFeat, trained on boxes", "", "", "", (None, 29.9)),
            Row("AlexNet, trained on boxes", "", "", "", (None, 34.2)),
        ),
    ),
}


def weights_of(folder: Path | None) -> dict[str, Path]:
    """The files, or runs, of the networks in a folder: name -> path.

    Raises:
      FileNotFoundError: the folder does not exist.
      ValueError: two files for one network.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise FileNotFoundError(f"--weights-dir {folder}: there is no such folder.")
    found = {}
    for name in NETWORKS:
        paths = [path for suffix in ("", *SUFFIXES) if (path := folder / f"{name}{suffix}").exists()]
        if len(paths) > 1:
            raise ValueError(f"{' and '.join(map(str, paths))} are both weights of {name!r}: expected one.")
        if paths:
            found[name] = paths[0]
    return found


def run(name: str, weights: Path, source, out: Path, batch_size: int, limit: int | None, console: Console) -> dict:
    """Evaluates one network by every method and metric of its rows; what `results.json` holds."""
    rows = [row for _, of_table in TABLES.values() for row in of_table if row.file == name]
    methods = sorted({row.method for row in rows})
    metrics = sorted({row.metric for row in rows})
    network, pool = NETWORKS[name]
    if weights.is_dir():
        model = camjax.load_model(weights)
    else:
        model = camjax.load_model(network, weights, **({} if pool is None else {"pool": pool}))
    sha256 = weights_sha256(model)
    with progress(name, console) as update:
        evaluation = evaluate_localization(
            model,
            source,
            methods=methods,
            metrics=metrics,
            batch_size=batch_size,
            limit=limit,
            run_dir=out / name,
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
    write_results(out / name, results)
    console.print(f"{name}: {counts_sentence(results)}")
    return results


def tables(results: dict[str, dict]) -> list[Table]:
    """The paper's tables with our column.

    Args:
      results: file of weights -> results of `run`.
    """
    printed = []
    for title, (kind, rows) in TABLES.items():
        table = Table("", "paper, top-1", "top-5", "ours, top-1", "top-5", title=title, box=box.SIMPLE_HEAD)
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            ours = ("", "")
            if row.file in results:
                numbers = results[row.file]["results"][row.method][row.metric]
                ours = tuple(f"{numbers[f'top{k}_{kind}_error']:.2f}" for k in (1, 5))
                # The heuristic's five boxes are one answer: its top-1 is no number of the paper's.
                ours = ("", ours[1]) if row.paper[0] is None else ours
            table.add_row(row.name, *("" if value is None else f"{value:.2f}" for value in row.paper), *ours)
        printed.append(table)
    return printed


def main(
    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "imagenet2012",
    split: str = "validation",
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None,
    boxes: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None,
    blacklist: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None,
    weights_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/imagenet_localization"),
    batch_size: int = 32,
    limit: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None,
) -> None:
    """Run the networks of Tables 1 to 3 whose weights are there, and print the tables with the paper's numbers.

    Args:
      dataset: A prepared data set with ImageNet's classes.
      split: Its split.
      data_dir: Where it is prepared; tensorflow-datasets' own place if not given.
      boxes: ILSVRC2012_bbox_val_v3.tgz, or a folder of its XML.
      blacklist: ILSVRC's list of validation images to leave out.
      weights_dir: A folder with a file of weights, or a run, for each network. Without it the tables are printed alone.
      out: Where results go; the same command goes on where it stopped.
      batch_size: Images at a time, over all devices.
      limit: The first N images alone.
    """
    console = Console(highlight=False)
    weights = weights_of(weights_dir)
    results = {}
    if weights:
        source = open_annotated(dataset, split, data_dir=data_dir, boxes=boxes, blacklist=blacklist)
        for name, path in weights.items():
            results[name] = run(name, path, source, out, batch_size, limit, console)
    for table in tables(results):
        console.print(table)
    missing = [name for name in NETWORKS if name not in weights]
    if missing:
        where = weights_dir or "--weights-dir DIR"
        console.print(
            f"Not run, for there are no weights of theirs in {where}: {', '.join(missing)}. A file is named as its "
            f"network and ends in {', '.join(SUFFIXES)}; a directory is a training run.",
            soft_wrap=True,
        )
    if results:
        path = out / "results.json"
        path.write_text(json.dumps(results, indent=2) + "\n")
        console.print(f"Saved {path}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, lambda: tyro.cli(main, prog=PROGRAM)))
