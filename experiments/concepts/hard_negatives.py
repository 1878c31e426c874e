"""Hard-negative mining: a detector is trained again on the negatives that it took for positives.

Only some of the many images without a concept are hard to tell from it. A detector of positives and random negatives
finds them in rounds: the other negatives that it scores highest join the training examples (Felzenszwalb et al. 2010,
section 4.2; Zhou et al. 2015, ConceptLearner, for concepts of captions).
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from camjax.errors import InputError
from camjax.features import FeatureStore
from camjax.features.svm import PENALTIES, LinearSVM, fit_linear_svm

_ROWS = 4096  # scored at a time


class Detector(NamedTuple):
    """A detector of one concept, and what it was trained on.

    Attributes:
      svms: SVMs of two classes, 0 without and 1 with the concept: the first has the random negatives, each round
        adds one; the last is the detector.
      negatives: (m,) rows of the features: the random ones first, then those of each round by falling score.
      added: number of negatives that each round added; rounds end early when no negative is taken for a positive.
    """

    svms: tuple[LinearSVM, ...]
    negatives: np.ndarray
    added: tuple[int, ...]


def mine_hard_negatives(
    features: np.ndarray | FeatureStore,
    positives: np.ndarray,
    candidates: np.ndarray,
    image_ids: Sequence[Hashable],
    *,
    random_negatives: int,
    hard_negatives: int,
    rounds: int,
    penalties: Sequence[float] = PENALTIES,
    folds: int = 3,
    seed: int = 0,
) -> Detector:
    """Trains a detector on positives and random negatives, then again with the hardest negatives, round by round.

    Args:
      features: (n, K) real numbers.
      positives: (p,) rows with the concept.
      candidates: (c,) rows that negatives may come from; `negative_pool` selects them.
      image_ids: n, the image of each row.
      random_negatives: how many are drawn for the first training; the whole pool, if it has fewer.
      hard_negatives: most that a round adds: the highest decision values above 0.
      rounds: of mining; with 0 the detector is the SVM of the random negatives.
      penalties: as in `fit_linear_svm`; the choice of the first training is kept.
      folds: as in `fit_linear_svm`.
      seed: of the negatives drawn, and as in `fit_linear_svm`.

    Returns:
      `Detector`.

    Raises:
      ValueError: fewer positives or negatives than folds; numbers below 1, rounds below 0; or as `fit_linear_svm`.
    """
    if random_negatives < 1 or hard_negatives < 1 or rounds < 0:
        raise InputError(
            f"random_negatives={random_negatives}, hard_negatives={hard_negatives}, rounds={rounds}: expected at least "
            "1, 1 and 0."
        )
    pool = negative_pool(positives, candidates, image_ids)
    least = folds if len(penalties) > 1 else 1
    if min(len(positives), len(pool), random_negatives) < least:
        raise InputError(
            f"{len(positives)} positives, {random_negatives} random negatives of a pool of {len(pool)}: expected at "
            f"least {least} of each" + (", the number of folds." if least > 1 else ".")
        )
    rng = np.random.default_rng(seed)
    negatives = rng.choice(pool, min(random_negatives, len(pool)), replace=False)

    def train(penalties: Sequence[float]) -> LinearSVM:
        labels = np.repeat([1, 0], [len(positives), len(negatives)])
        rows = np.concatenate([positives, negatives])
        return fit_linear_svm(features[rows], labels, 2, penalties=penalties, folds=folds, seed=seed)

    svms, added = [train(penalties)], []
    for _ in range(rounds):
        others = np.setdiff1d(pool, negatives)
        scores = concept_scores(svms[-1], features, others)
        # A stable order: of equal scores the first row.
        hardest = np.argsort(-scores, kind="stable")[:hard_negatives]
        hardest = others[hardest[scores[hardest] > 0]]
        if not len(hardest):
            break
        negatives = np.concatenate([negatives, hardest])
        added.append(len(hardest))
        svms.append(train([svms[0].penalty]))
    return Detector(tuple(svms), negatives, tuple(added))


def concept_scores(svm: LinearSVM, features: np.ndarray | FeatureStore, rows: np.ndarray) -> np.ndarray:
    """Decision values of the second of two classes, computed in parts; above 0 means with the concept.

    Args:
      svm: of `Detector`.
      features: (n, K) real numbers.
      rows: (r,) integers.

    Returns:
      (r,) float32.
    """
    parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
    scores = [svm.decision_values(features[part])[:, 1] for part in parts]
    return np.concatenate([np.zeros(0, np.float32), *scores])


def negative_pool(positives: np.ndarray, candidates: np.ndarray, image_ids: Sequence[Hashable]) -> np.ndarray:
    """The rows that may be negatives: one row of each image without a positive row.

    An image with several rows, only one of which has the concept, is a positive and never a negative.

    Args:
      positives: (p,) rows.
      candidates: (c,) rows.
      image_ids: the image of each row.

    Returns:
      (m,) of the candidates, sorted; the first row of each image.
    """
    taken = {image_ids[row] for row in positives}
    pool = []
    for row in np.unique(candidates):
        if image_ids[row] not in taken:
            taken.add(image_ids[row])
            pool.append(row)
    return np.array(pool, int)
