"""What a network takes pictures for, on pictures whose color is their class."""

import numpy as np

import camjax.features
from camjax.evaluation.classification import Confusion, classify
from tests.experiments.colors import Colors, Identity, painted

RED, GREEN, BLUE = range(3)


def all_of(color, value=200):
    return painted((color, value, 0, 0, 16, 16))


def test_accuracies_and_confusions_by_hand():
    seen = [RED, RED, GREEN, GREEN, GREEN, RED, RED]
    labels = [RED, GREEN, GREEN, GREEN, BLUE, GREEN, BLUE]
    source = Colors([all_of(color) for color in seen], labels, [[0, 0, 1, 1]] * 7)
    model = camjax.features.with_linear_classifier(Identity(), 10 * np.eye(3), np.zeros(3))
    model.class_names = ("blue", "green", "red")  # paired by name, in another order than the source's
    steps = []
    found = classify(model, source, batch_size=2, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(2, 7), (4, 7), (6, 7), (7, 7)]
    # The network's first logit is the red of a picture, whose name in this network is "blue".
    to_network = {RED: 0, GREEN: 1}
    assert found.predictions.tolist() == [to_network[color] for color in seen]
    assert [found.class_names[i] for i in found.labels] == [source.info.class_names[i] for i in labels]
    logit = 10 * 200 / 255
    np.testing.assert_allclose(found.probabilities, np.exp(logit) / (np.exp(logit) + 2), rtol=1e-5)
    # Taken for: blue, blue, green, green, green, blue, blue.
    assert found.accuracy == 3 / 7
    assert found.per_class() == {
        "blue": {"images": 2, "right": 1, "accuracy": 0.5},
        "green": {"images": 4, "right": 2, "accuracy": 0.5},
        "red": {"images": 1, "right": 0, "accuracy": 0.0},
    }
    assert found.confused() == [
        Confusion("green", "blue", 2),
        Confusion("blue", "green", 1),
        Confusion("red", "blue", 1),
    ]
