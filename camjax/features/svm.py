"""Linear support vector machines on pooled features, as the kernel and bias of a dense layer.

A classifier that is linear in the global average of a feature map has class activation maps, however it was trained:
its weights take the place of the dense layer's (Zhou et al. 2016, section 4).
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from camjax.errors import InputError, require_extra
from camjax.features.store import FeatureStore

require_extra("experiments", "A support vector machine", "sklearn")

import joblib  # noqa: E402
from sklearn.model_selection import StratifiedKFold  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.svm import LinearSVC  # noqa: E402

PENALTIES = (1e-5, 1e-4, 1e-3)
"""The default `penalties` of `fit_linear_svm`: for a thousand standardized features, from hardly any weight on single
examples to almost none on the margin."""

MEMORY = 2_800_000_000
"""Bytes that cross-validation may take besides the given features: as many fits run side by side as fit into them, at
least one. One fit, such as the last one of all examples, takes 24 bytes a number: 2.5 GB for 100,000 x 1,024."""

# Standardized features are float64; the solver makes its own copy, with an index and a value for each number.
_BYTES, _SOLVER_BYTES = 8, 16

_ROWS = 4096  # examples read and standardized at a time


class LinearSVM(NamedTuple):
    """One-vs-all support vector machines, one for each of C classes.

    Attributes:
      kernel: (K, C) float32.
      bias: (C,) float32.
      penalty: the one that cross-validation chose.
      cross_validation: penalty -> mean accuracy on the held-out parts, in 0..1; empty for a single penalty.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    cross_validation: dict[float, float]

    def decision_values(self, features: np.ndarray) -> np.ndarray:
        """(n, K) features -> (n, C) float32; the largest value gives the predicted class.

        Raises:
          ValueError: another K, or numbers that are not finite, as the features of images that could not be read.
        """
        features = np.asarray(features, np.float32)
        if features.ndim < 1 or features.shape[-1] != len(self.kernel):
            raise InputError(f"features of shape {features.shape}: expected (n, {len(self.kernel)}).")
        if not np.isfinite(features).all():
            raise InputError(
                "features have numbers that are not finite, which have no class. Leave out those of images that could "
                "not be read."
            )
        return features @ self.kernel + self.bias


def fit_linear_svm(
    features: np.ndarray | FeatureStore,
    labels: np.ndarray,
    num_classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
    folds: int = 3,
    seed: int = 0,
) -> LinearSVM:
    """Fits one-vs-all linear support vector machines (scikit-learn's LinearSVC: L2 penalty, squared hinge loss).

    Each feature is scaled to mean 0 and standard deviation 1 over the examples; the scale is folded into kernel and
    bias, so they apply to unscaled features. The penalty is chosen by cross-validation; the first of equally good ones.
    Fits run side by side, in threads, as cores and `MEMORY` allow.

    Args:
      features: (n, K) real numbers of any type: a memory-mapped or a float32 array is never copied as a whole.
      labels: (n,) integers in 0..num_classes-1. A class without examples gets kernel 0 and bias -1, which an SVM
        learns from negative examples alone.
      num_classes: C.
      penalties: candidates for the weight of an example's loss, scikit-learn's C. A single one is taken without
        cross-validation.
      folds: parts of the cross-validation, each held out once; they keep the classes' shares.
      seed: of the parts, and of the solver.

    Returns:
      `LinearSVM`.

    Raises:
      ValueError: the shapes do not match, a number is not finite, labels are out of range or of only one class, a
        penalty is not positive or there is none, or there are more folds than any class has examples.
    """
    if not isinstance(features, FeatureStore):
        features = np.asarray(features)
    labels = np.asarray(labels)
    _check(features, labels, num_classes, penalties)
    cross_validation = {}
    penalty = float(penalties[0])
    if len(penalties) > 1:
        most = int(np.bincount(labels).max())
        if not 2 <= folds <= most:
            raise InputError(
                f"folds={folds}: expected at least 2, and at most the examples of the largest class, {most}. Give more "
                "examples, or one penalty alone."
            )
        cross_validation = _cross_validate(features, labels, penalties, folds, seed)
        penalty = max(cross_validation, key=cross_validation.get)
    scaled, scaler = _standardized(features, np.arange(len(labels)))
    svc = LinearSVC(C=penalty, random_state=seed).fit(scaled, labels)
    coefficients, intercepts = svc.coef_, svc.intercept_
    if len(svc.classes_) == 2:
        # For two classes scikit-learn trains one SVM, the second class against the first.
        coefficients, intercepts = (np.concatenate([-part, part]) for part in (coefficients, intercepts))
    kernel, bias = np.zeros((features.shape[1], num_classes)), np.full(num_classes, -1.0)
    kernel[:, svc.classes_] = coefficients.T / scaler.scale_[:, None]
    bias[svc.classes_] = intercepts - scaler.mean_ @ kernel[:, svc.classes_]
    return LinearSVM(kernel.astype(np.float32), bias.astype(np.float32), penalty, cross_validation)


def _cross_validate(features, labels: np.ndarray, penalties: Sequence[float], folds: int, seed: int):
    """Penalty -> accuracy on the held-out part, averaged over all parts."""
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))
    numbers = max(len(train) for train, _ in splits) * features.shape[1]
    at_once, threads = _side_by_side(numbers, folds, len(penalties))
    accuracies = []
    for start in range(0, folds, at_once):
        parts = [(*_standardized(features, train), train, test) for train, test in splits[start : start + at_once]]
        # Threads, because the solver releases the GIL, and processes would each get a copy of the features.
        with ThreadPoolExecutor(threads) as pool:
            fits = [
                pool.submit(_accuracy, *part, features, labels, penalty, seed)
                for part in parts
                for penalty in penalties
            ]
            accuracies += [fit.result() for fit in fits]
        # Free them before the parts of the next folds are made.
        del parts
    means = np.mean(np.reshape(accuracies, (folds, len(penalties))), axis=0)
    return {float(penalty): float(mean) for penalty, mean in zip(penalties, means, strict=True)}


def _side_by_side(numbers: int, folds: int, penalties: int) -> tuple[int, int]:
    """How many folds are standardized at once, and how many threads fit them, within `MEMORY`.

    All folds at once if that leaves no core idle; otherwise one after the other, with as many threads as fit.

    Args:
      numbers: size of a fold's training examples, examples times features.
      folds: number of folds.
      penalties: number of fits of each fold.
    """
    cores = joblib.cpu_count()
    for at_once in (folds, 1):
        wanted = min(cores, at_once * penalties)
        possible = (MEMORY - at_once * _BYTES * numbers) // (_SOLVER_BYTES * numbers)
        if wanted <= possible:
            return at_once, wanted
    return 1, max(1, possible)


def _accuracy(scaled, scaler, train, test, features, labels: np.ndarray, penalty: float, seed: int) -> float:
    """Trains on the standardized features of some examples, and tests on others."""
    svc = LinearSVC(C=penalty, random_state=seed).fit(scaled, labels[train])
    right = [svc.predict(scaler.transform(chunk)) == labels[test[place]] for place, chunk in _chunks(features, test)]
    return float(np.concatenate(right).mean())


def _standardized(features, rows: np.ndarray) -> tuple[np.ndarray, StandardScaler]:
    """The features of some examples, (m, K) float64, with mean 0 and standard deviation 1; and their scaler."""
    scaler = StandardScaler(copy=False)
    for _, chunk in _chunks(features, rows):
        scaler.partial_fit(chunk)
    scaled = np.empty((len(rows), features.shape[1]))
    for place, chunk in _chunks(features, rows):
        scaled[place] = scaler.transform(chunk)
    return scaled, scaler


def _chunks(features, rows: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Parts of some examples' features, float64 copies, each with its place among `rows`."""
    for start in range(0, len(rows), _ROWS):
        place = slice(start, start + _ROWS)
        yield place, np.asarray(features[rows[place]], np.float64)


def _check(features, labels: np.ndarray, num_classes: int, penalties: Sequence[float]) -> None:
    """Raises ValueError for invalid arguments of `fit_linear_svm`."""
    shape = tuple(features.shape)
    if len(shape) != 2 or not shape[1] or labels.shape != shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        vectors = labels.ndim == 2 and labels.shape[:1] == shape[:1]
        hint = " Of vectors of zeros and ones with a single one, labels.argmax(1) are the integers." if vectors else ""
        raise InputError(
            f"features of shape {shape} and labels of shape {labels.shape} and dtype {labels.dtype}: expected (n, K) "
            f"and n integers.{hint}"
        )
    if isinstance(features, np.ndarray) and features.dtype.kind not in "fiub" and features.dtype.name != "bfloat16":
        raise InputError(f"features of dtype {features.dtype}: expected real numbers.")
    finite = [np.isfinite(chunk).all(1) for _, chunk in _chunks(features, np.arange(len(labels)))]
    wrong = np.flatnonzero(~np.concatenate([*finite, np.ones(0, bool)]))
    if len(wrong):
        raise InputError(
            f"features of the examples {wrong[:10].tolist()} are not finite: expected real numbers. Leave out those of "
            "images that could not be read."
        )
    classes = np.unique(labels)
    if len(classes) < 2 or classes[0] < 0 or classes[-1] >= num_classes:
        raise InputError(
            f"labels are {classes[:10].tolist()}{' ...' * (len(classes) > 10)}: expected at least two classes of "
            f"0..{num_classes - 1}."
        )
    if not penalties or not all(0 < penalty < math.inf for penalty in penalties):
        raise InputError(f"penalties={tuple(penalties)}: expected at least one, each a positive number.")
