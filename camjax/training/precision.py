"""Mean average precision: how well the scores of each class rank the images that have it."""

import numpy as np

from camjax.errors import InputError


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean of `average_precisions` over the classes that any image has, in 0..1.

    Raises:
      ValueError: no image has any class.
    """
    precisions = average_precisions(scores, labels)
    if np.isnan(precisions).all():
        raise InputError("no image of the evaluation data has any class: expected labels with a 1 in them.")
    return float(np.nanmean(precisions))


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The average precision of each class: `sum_n (R_n - R_(n-1)) P_n` over its thresholds, without interpolation.

    P_n and R_n are precision and recall of the images whose score is at least the n-th highest; equal scores are one
    threshold. That is scikit-learn's `average_precision_score`.

    Args:
      scores: (n, C); any increasing function of the probabilities.
      labels: (n, C) bool.

    Returns:
      (C,) float64 in 0..1; NaN for a class that no image has.
    """
    found = np.full(labels.shape[1], np.nan)
    for c in np.flatnonzero(labels.any(0)):
        order = np.argsort(-scores[:, c], kind="stable")
        is_last = np.append(np.diff(scores[order, c]) != 0, True)
        hits = labels[order, c].cumsum()[is_last]
        found[c] = (np.diff(hits, prepend=0) * hits / (np.flatnonzero(is_last) + 1)).sum() / hits[-1]
    return found
