"""Which cases are kept, and how they are shown."""

import numpy as np
import pytest

from camjax.evaluation.cases import CASES, Case, Cases
from camjax.evaluation.figures import _in_image


def case(index, iou):
    return Case(index, 0, iou, 0, np.full((2, 3), index, np.float32), np.zeros(4, np.float32), np.array([0, 0, 1, 1]))


def indices(cases):
    return [[of.index for of in part] for part in cases.chosen()]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 11, 12, 13, 40])
def test_the_best_and_the_worst_whatever_the_order_and_the_repetitions(number):
    ious = np.round(np.random.default_rng(number).random(number), 1)  # many are equal: the first in order counts
    expected = sorted(range(number), key=lambda i: (-ious[i], i))
    half = min(CASES, number // 2) or number
    for seed in range(3):
        cases = Cases(["cat"])
        order = np.random.default_rng(seed).permutation(number).tolist()
        for start in range(0, number, 4):
            cases.add(case(i, ious[i]) for i in order[max(0, start - 2) : start + 4])  # two of the batch before again
        assert indices(cases) == [expected[:half], expected[half:][-half:] if number > 1 else []]
        assert len(cases.arrays()["index"]) <= 2 * CASES
        again = Cases(["cat"])
        again.restore(cases.arrays())
        assert indices(again) == indices(cases)
        assert all(of.map.tolist() == [[of.index] * 3] * 2 for part in again.chosen() for of in part)


def test_the_map_of_a_crop_lies_where_the_network_looked():
    whole = case(0, 0.5)
    assert _in_image(whole, (40, 60)) is whole.map
    view = np.array([0, 0.25, 1, 0.75])
    cropped = Case(0, 0, 0.5, 0, np.array([[1.0, 1.0], [3.0, 3.0]], np.float32), whole.box, view)
    shown = _in_image(cropped, (4, 8))
    expected = np.repeat([1, 1.5, 2.5, 3], 4).reshape(4, 4)  # bilinear, half-pixel centers
    np.testing.assert_allclose(shown, np.pad(expected, ((0, 0), (2, 2)), constant_values=1))
