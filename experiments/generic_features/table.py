"""Table 5 of Zhou et al. 2016 with our column."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from experiments.common.table import result_table
from experiments.generic_features.datasets import Dataset

PAPER = ("AlexNet fc7", "GoogLeNet pool", "GoogLeNet-GAP")


# Copies of a data set differ by a few images.
_WHOLE = 0.99


def summary(dataset: Dataset, images: int, results: Sequence[Mapping], unreadable: Mapping[int, str]) -> dict:
    """Summarizes the splits of a data set.

    Args:
      dataset: a row of the table.
      images: the number of images found, with those that can't be read.
      results: of each split, from `experiments.generic_features.classifiers.run_split`.
      unreadable: index -> what was wrong, for the images that were left out.

    Returns:
      In JSON's types: title, metric, paper (name of the network -> percent; None on a part of the data set), images,
      scores of the splits, their mean and standard deviation (with n - 1; None for one split), and unreadable.
    """
    paper = dataset.paper if images >= _WHOLE * dataset.images else None
    scores = [result["score"] for result in results]
    return {
        "title": dataset.title,
        "metric": dataset.metric,
        "paper": dict(zip(PAPER, paper, strict=True)) if paper else None,
        "images": images,
        "scores": scores,
        "mean": float(np.mean(scores)),
        "deviation": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "unreadable": {str(index): why for index, why in unreadable.items()},
    }


def table5(found: Mapping[str, Mapping], network: str) -> Table:
    """The table, a row for each data set.

    Args:
      found: name of the data set -> `summary`.
      network: the name of ours.
    """
    title = f"Table 5. Linear SVM on pooled features (%); ours: {network}"
    caption = "The paper's numbers are quoted from memory, and only beside ours on the whole data set."
    table = result_table(title, *PAPER, "ours", "images", "splits", caption=caption)
    for column in table.columns[3:5]:
        column.no_wrap = True
    for row in found.values():
        title = row["title"] + (" (average precision)" if row["metric"] == "average precision" else "")
        paper = [f"{value:.2f}" for value in row["paper"].values()] if row["paper"] else [""] * len(PAPER)
        deviation = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
        counts = f"{row['images'] - len(row['unreadable']):,}", str(len(row["scores"]))
        table.add_row(title, *paper, f"{row['mean']:.2f}{deviation}", *counts)
    return table
