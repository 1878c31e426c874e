"""Hard-negative mining: what scikit-learn's machine scores highest, and never an image with the concept."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from experiments.concepts.hard_negatives import concept_scores, mine_hard_negatives, negative_pool

POSITIVES = np.arange(30)
CANDIDATES = np.arange(30, 400)
NUMBERS = {"random_negatives": 20, "hard_negatives": 15, "rounds": 3, "penalties": [0.01]}


@pytest.fixture(scope="module")
def features():
    """(400, 6): positives, then negatives, of which rows 320 to 399 are as positives but in one number."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 6)).astype(np.float32)
    features[:30, :2] += 3
    features[320:, 0] += 3
    return features


def scores_of_scikit_learn(features, negatives):
    """Decision values of all rows, by a machine of the positives and some negatives."""
    rows = np.concatenate([POSITIVES, negatives])
    machine = make_pipeline(StandardScaler(), LinearSVC(C=0.01, random_state=0))
    machine.fit(features[rows].astype(np.float64), np.isin(rows, POSITIVES))
    return machine.decision_function(features)


def test_each_round_adds_the_highest_of_the_false_positives(features):
    detector = mine_hard_negatives(features, POSITIVES, CANDIDATES, range(400), **NUMBERS)
    negatives = detector.negatives[:20]
    assert len({*negatives}) == 20 and np.isin(negatives, CANDIDATES).all()
    assert detector.added[0] == 15
    for added in detector.added:
        scores = scores_of_scikit_learn(features, negatives)
        others = np.setdiff1d(CANDIDATES, negatives)
        false = others[scores[others] > 0]
        expected = false[np.argsort(-scores[false])][:15]
        np.testing.assert_array_equal(detector.negatives[len(negatives) :][:added], expected)
        negatives = detector.negatives[: len(negatives) + added]
    # Those as positives but in one number: a fifth of the candidates, and most of what is mined.
    assert (detector.negatives[20:] >= 320).mean() > 0.5
    np.testing.assert_array_equal(negatives, detector.negatives)
    assert len(np.unique(detector.negatives)) == len(detector.negatives)
    scores = scores_of_scikit_learn(features, negatives)
    np.testing.assert_allclose(concept_scores(detector.svms[-1], features, np.arange(400)), scores, atol=1e-5)


def test_rounds_end_where_no_negative_is_taken_for_a_positive(features):
    features = features.copy()
    features[:30, 1] += 20
    detector = mine_hard_negatives(features, POSITIVES, CANDIDATES, range(400), **NUMBERS | {"penalties": [1.0]})
    assert detector.added == () and len(detector.negatives) == 20


def test_without_rounds_it_is_the_machine_of_the_random_negatives(features):
    detector = mine_hard_negatives(features, POSITIVES, CANDIDATES, range(400), **NUMBERS | {"rounds": 0})
    assert detector.added == () and len(detector.svms) == 1
    scores = scores_of_scikit_learn(features, detector.negatives)
    np.testing.assert_allclose(concept_scores(detector.svms[0], features, CANDIDATES), scores[CANDIDATES], atol=1e-5)
    other = mine_hard_negatives(features, POSITIVES, CANDIDATES, range(400), **NUMBERS | {"rounds": 0, "seed": 1})
    assert {*other.negatives} != {*detector.negatives}


def test_the_penalty_of_the_first_training_is_kept(features):
    options = NUMBERS | {"penalties": (1e-6, 0.1)}
    detector = mine_hard_negatives(features, POSITIVES, CANDIDATES, range(400), **options)
    first = mine_hard_negatives(features, POSITIVES, CANDIDATES, range(400), **options | {"rounds": 0})
    assert detector.added and list(detector.svms[0].cross_validation) == [1e-6, 0.1]
    np.testing.assert_array_equal(detector.svms[0].kernel, first.svms[0].kernel)
    assert {svm.penalty for svm in detector.svms} == {first.svms[0].penalty}


@pytest.mark.parametrize("seed", range(5))
def test_no_image_with_the_concept_is_ever_a_negative(seed):
    """Positives are hidden among the candidates: by themselves, and as second rows of the same image."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(200, 3)).astype(np.float32)
    image_ids = np.array([f"{number:03}.jpg" for number in rng.integers(0, 90, 200)])
    positives = rng.choice(200, 25, replace=False)
    # All that is mined should be a positive if it could: nothing else looks like one.
    features[np.isin(image_ids, image_ids[positives])] += 4
    detector = mine_hard_negatives(
        features,
        positives,
        np.arange(200),
        image_ids,
        **NUMBERS | {"hard_negatives": 100, "rounds": 5, "penalties": [1e-5]},
    )
    assert not {*image_ids[detector.negatives]} & {*image_ids[positives]}
    assert len({*image_ids[detector.negatives]}) == len(detector.negatives)


def test_pool():
    ids = ["a", "b", "a", "c", "b", "d", "e", "e"]
    # b is an image with the concept: in row 1 for its caption, and so in row 4 too. Row 6 is no candidate.
    assert negative_pool(np.array([1]), np.array([7, 5, 4, 3, 2, 1, 0, 3]), ids).tolist() == [0, 3, 5, 7]
    assert negative_pool(np.arange(8), np.arange(8), ids).tolist() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positives": np.array([], int)}, "0 positives"),
        ({"candidates": POSITIVES}, "pool of 0"),
        ({"random_negatives": 0}, "random_negatives=0"),
        ({"hard_negatives": 0}, "hard_negatives=0"),
        ({"rounds": -1}, "rounds=-1"),
        (
            {"positives": POSITIVES[:2], "penalties": (0.1, 0.2)},
            "2 positives.* at least 3 of each, the number of folds",
        ),
    ],
)
def test_what_cannot_be_trained_on_is_said(features, changes, message):
    arguments = {"features": features, "positives": POSITIVES, "candidates": CANDIDATES, "image_ids": range(400)}
    with pytest.raises(ValueError, match=message):
        mine_hard_negatives(**(arguments | NUMBERS | changes))
