"""Tables 1 to 3 of Zhou et al. 2016: their rows and networks, and the same tables with our column."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.table import Table

from camjax.models.head import Pool
from experiments.common.table import is_whole, result_table


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      name: as the paper writes it.
      file: the name of the file of weights; "" for a row that is only quoted.
      method: of `camjax.attribution.METHODS`.
      metric: of `camjax.metrics.METRICS`.
      paper: the paper's top-1 and top-5 errors in percent; None where it has no number.
    """

    name: str
    file: str
    method: str
    metric: str
    paper: tuple[float | None, float]


# File of weights -> network, and its pooling.
NETWORKS: dict[str, tuple[str, Pool | None]] = {
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


def tables(results: Mapping[str, Mapping]) -> list[Table]:
    """The paper's tables with our columns; without the paper's where ours are on other images than all of its split.

    Args:
      results: file of weights -> its results, as in results.json.
    """
    compared = all(is_whole(of["dataset"], {of["split"]: of["num_images"]}) for of in results.values())
    caption = None
    if not compared:
        caption = "The paper's numbers are on all of ILSVRC's images: they are left out beside ours on others."
    printed = []
    for title, (kind, rows) in TABLES.items():
        if not compared:
            title = f"{title.partition('.')[0]}: {kind} error on other images than the paper's (%)"
        columns = ["paper, top-1", "top-5"] * compared + ["ours, top-1", "top-5", "images"]
        table = result_table(title, *columns, caption=caption)
        for row in rows:
            ours: tuple[str, ...] = ("", "", "")
            if row.file in results:
                found = results[row.file]
                numbers = found["results"][row.method][row.metric]
                ours = tuple(f"{numbers[f'top{k}_{kind}_error']:.2f}" for k in (1, 5))
                # The heuristic's five boxes are one answer: the paper has no top-1 for it.
                ours = ("", ours[1]) if row.paper[0] is None else ours
                images = f"{found['num_images']:,}"
                ours += (images if compared else f"{images} of {found['dataset']}, {found['split']}",)
            elif not compared:
                continue
            paper = ("" if value is None else f"{value:.2f}" for value in row.paper) if compared else ()
            table.add_row(row.name, *paper, *ours)
        printed.append(table)
    return printed
