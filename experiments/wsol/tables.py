"""The benchmark's published numbers, and our tables beside them."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from camjax.files import write_whole
from experiments.common.benchmark import CENTER_BOX, CENTER_BOX_NOTE
from experiments.common.table import result_table
from experiments.wsol.data import Dataset
from experiments.wsol.search import NETWORKS

# MaxBoxAccV2, and PxAP of OpenImages, of CAM with VGG, Inception and ResNet; of the other methods the difference to it
# (Choe et al. 2022, arXiv:2007.04178, table 2).
_CAM = {"imagenet": (60.0, 63.4, 63.7), "cub": (63.7, 56.7, 63.0), "openimages": (58.3, 63.2, 58.5)}
_DIFFERENCES = {
    "cam": dict.fromkeys(_CAM, (0.0, 0.0, 0.0)),
    "has": {"imagenet": (0.6, 0.3, -0.3), "cub": (0.0, -3.3, 1.7), "openimages": (-0.2, -5.1, -2.6)},
    "acol": {"imagenet": (-2.6, 0.3, -1.4), "cub": (-6.3, -0.5, 3.5), "openimages": (-4.0, -6.0, -1.2)},
    "spg": {"imagenet": (-0.1, -0.1, -0.4), "cub": (-7.4, -0.8, -2.6), "openimages": (0.0, -0.9, -1.8)},
    "adl": {"imagenet": (-0.2, -2.0, 0.0), "cub": (2.6, 2.1, -4.6), "openimages": (0.4, -6.4, -3.3)},
    "cutmix": {"imagenet": (-0.6, 0.5, -0.4), "cub": (-1.4, 0.8, -0.2), "openimages": (-0.2, -0.7, -0.8)},
}


# Of TS-CAM with DeiT-S (Gao et al. 2021, by the authors' repository); top-1 and GT-known localization are of the epoch
# that is best on the test images, at a tenth of a map's maximum.
_TSCAM = {"cub": (71.3, 87.7, 80.3), "imagenet": (53.4, 67.6, 74.3)}
_TSCAM_ROWS = ("top-1 localization", "GT-known localization", "top-1 accuracy")


def published(dataset: Dataset, name: str, method: str, network: str) -> dict[str, float]:
    """The published numbers of a method, by our name for them, in percent; none for another network.

    Args:
      dataset: of the benchmark.
      name: of the data set on the command line.
      method: of training.
      network: as given.
    """
    if method == "tscam":
        known = network == "deit_small_patch16_224" and name in _TSCAM
        return dict(zip(_TSCAM_ROWS, _TSCAM[name], strict=True)) if known else {}
    if network not in NETWORKS or name not in _CAM:
        return {}
    i = NETWORKS.index(network)
    return {dataset.score: round(_CAM[name][i] + _DIFFERENCES[method][name][i], 1)}


def trials_table(trials: Mapping[int, Mapping], score: str, best: int | None = None) -> Table:
    """A row for each trial: what was drawn, and its score on train-fullsup."""
    names = list(dict.fromkeys(name for trial in trials.values() for name in trial["parameters"] if name != "method"))
    table = result_table("Trials, scored on train-fullsup", *names, f"{score} (%)")
    for number, trial in trials.items():
        cells = [_cell(trial["parameters"].get(name, "")) for name in names]
        found = "diverged" if trial["score"] is None else f"{trial['score']:.1f}"
        table.add_row(f"{number}{' best' * (number == best)}", *cells, found)
    return table


def write_trials(path: Path, trials: Mapping[int, Mapping], score: str) -> None:
    """Writes the same table as CSV."""
    names = list(dict.fromkeys(name for trial in trials.values() for name in trial["parameters"]))
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["trial", *names, score, "error"])
    for number, trial in trials.items():
        values = [trial["parameters"].get(name, "") for name in names]
        rows.writerow([number, *values, "" if trial["score"] is None else trial["score"], trial.get("error", "")])
    write_whole(path, text.getvalue())


def final_table(
    dataset: Dataset, name: str, method: str, network: str, results: Sequence[Mapping[str, float]], whole: bool
) -> Table:
    """The mean of each number over the seeds, with its standard deviation, beside the published one.

    Args:
      dataset: of the benchmark.
      name: of the data set on the command line.
      method: of training.
      network: as given.
      results: name -> number in percent, for each seed.
      whole: whether they are on all images.
    """
    compared = published(dataset, name, method, network) if whole else {}
    center = {dataset.score: CENTER_BOX[name]} if compared else {}
    columns = [f"published, {network}", "center box"] * bool(compared)
    caption = (
        CENTER_BOX_NOTE * (name == "cub" and bool(compared))
        if whole
        else f"Published numbers are on all {dataset.counts[2]:,} test images: they are left out beside others."
    )
    seeds = f"{len(results)} seed{'s' * (len(results) > 1)}"
    title = f"Test images of {dataset.title}, {method} (%)"
    table = result_table(title, *columns, f"ours, {network}, {seeds}", caption=caption or None)
    for key in results[0]:
        ours = mean_and_deviation([of_seed[key] for of_seed in results])
        theirs = [f"{of[key]:.1f}" if key in of else "" for of in (compared, center)] if compared else []
        table.add_row(key, *theirs, ours)
    return table


def mean_and_deviation(values: Sequence[float]) -> str:
    """As in "63.1 ± 0.4"; of one value no deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
