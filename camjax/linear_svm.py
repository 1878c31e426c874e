"""Linear support vector machines on pooled features, as a kernel and a bias: what a dense layer has, and maps need.

A classifier that is linear in the global average of a feature map has class activation maps, whoever trained it: its
weights take the place of the dense layer's (Zhou et al. 2016, section 4).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

try:
    import joblib
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC
except ImportError as error:
    raise ImportError(
        'Support vector machines come from scikit-learn, which is not installed. Run: pip install "camjax[experiments]"'
    ) from error

PENALTIES = (1e-5, 1e-4, 1e-3)
"""The `penalties` of `fit_linear_svm`: for a thousand standardized features, from hardly any weight on the single
example to almost none on the margin."""


class LinearSVM(NamedTuple):
    """One machine for each of C classes, against all others.

    Attributes:
      kernel: (K, C) float32.
      bias: (C,) float32.
      penalty: of `penalties`, the one that was chosen.
      cross_validation: penalty -> mean accuracy on the parts left out, in 0..1; empty where there was no choice.
    """

    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    cross_validation: dict[float, float]

    def decision_values(self, features: np.ndarray) -> np.ndarray:
        """(n, K) features -> (n, C) float32; the class of the largest is the answer."""
        return np.asarray(features, np.float32) @ self.kernel + self.bias


def fit_linear_svm(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    penalties: Sequence[float] = PENALTIES,
    folds: int = 3,
    seed: int = 0,
) -> LinearSVM:
    """Fits one-vs-all linear support vector machines (scikit-learn's LinearSVC: L2 penalty, squared hinge loss).

    Each feature is scaled to mean 0 and standard deviation 1 over the examples; the scale is folded into kernel and
    bias, which take the features as they are. The penalty is chosen by cross-validation on all cores; of equally good
    ones the first.

    Args:
      features: (n, K) real numbers.
      labels: (n,) integers in 0..num_classes-1. A class without examples gets what its machine learns from examples of
        the others alone: kernel 0 and bias -1.
      num_classes: C.
      penalties: candidates for the weight of an example's loss, scikit-learn's C. With one there is nothing to choose.
      folds: parts of the cross-validation, each of which is left out once; they keep the classes' shares.
      seed: of the parts, and of the solver.

    Returns:
      `LinearSVM`.

    Raises:
      ValueError: shapes that do not fit together, numbers that are not finite, labels out of range or of one class
        alone, no penalty or one that is not positive; or more folds than any class has examples.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    _check(features, labels, num_classes, penalties)
    machine = make_pipeline(StandardScaler(), LinearSVC(random_state=seed))
    cross_validation = {}
    penalty = float(penalties[0])
    if len(penalties) > 1:
        most = int(np.bincount(labels).max())
        if not 2 <= folds <= most:
            raise ValueError(
                f"folds={folds}: expected at least 2, and at most the examples of the largest class, {most}. Give more "
                "examples, or one penalty alone."
            )
        search = GridSearchCV(
            machine,
            {"linearsvc__C": list(penalties)},
            cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
            refit=False,
            error_score="raise",
        )
        # Threads: the solver releases the interpreter, and processes would each get a copy of the features.
        with joblib.parallel_config("threading", n_jobs=-1):
            search.fit(features, labels)
        scores = search.cv_results_["mean_test_score"]
        cross_validation = {float(c): float(score) for c, score in zip(penalties, scores, strict=True)}
        penalty = max(cross_validation, key=cross_validation.get)
    scaler, svc = machine.set_params(linearsvc__C=penalty).fit(features, labels)
    coefficients, intercepts = svc.coef_, svc.intercept_
    if len(svc.classes_) == 2:
        # Of two classes scikit-learn trains one machine, for the second against the first.
        coefficients, intercepts = (np.concatenate([-part, part]) for part in (coefficients, intercepts))
    kernel, bias = np.zeros((features.shape[1], num_classes)), np.full(num_classes, -1.0)
    kernel[:, svc.classes_] = coefficients.T / scaler.scale_[:, None]
    bias[svc.classes_] = intercepts - scaler.mean_ @ kernel[:, svc.classes_]
    return LinearSVM(kernel.astype(np.float32), bias.astype(np.float32), penalty, cross_validation)


def _check(features: np.ndarray, labels: np.ndarray, num_classes: int, penalties: Sequence[float]) -> None:
    """Raises ValueError for what `fit_linear_svm` does not take."""
    if features.ndim != 2 or labels.shape != features.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"features of shape {features.shape} and labels of shape {labels.shape} and dtype {labels.dtype}: expected "
            "(n, K) and n integers."
        )
    if not np.isfinite(features).all():
        wrong = np.flatnonzero(~np.isfinite(features).all(1))
        raise ValueError(f"features of the examples {wrong[:10].tolist()} are not finite: expected real numbers.")
    classes = np.unique(labels)
    if len(classes) < 2 or classes[0] < 0 or classes[-1] >= num_classes:
        raise ValueError(
            f"labels are {classes[:10].tolist()}{' ...' * (len(classes) > 10)}: expected at least two classes of "
            f"0..{num_classes - 1}."
        )
    if not penalties or not all(0 < penalty < math.inf for penalty in penalties):
        raise ValueError(f"penalties={tuple(penalties)}: expected at least one, each a positive number.")
