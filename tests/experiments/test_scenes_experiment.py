"""The table of the scenes experiment, on localizations made by hand."""

import numpy as np
import pytest

from experiments.scenes.localization import CENTER_SIDES, THRESHOLDS, Localizations, center_boxes, is_right, results

FULL, HALF, CORNER = [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.1, 0.1]


def localizations(labels, predictions, true_boxes, boxes_of_label, boxes_of_prediction):
    """Boxes that are the same at all thresholds but 0.4, where all of them are a corner."""
    boxes = np.stack([boxes_of_label, boxes_of_prediction], axis=1)[None].repeat(len(THRESHOLDS), axis=0)
    boxes[np.isclose(THRESHOLDS, 0.4)] = CORNER
    return Localizations(
        np.array(labels), np.array(predictions), np.array(true_boxes), np.zeros((len(labels), 1, 1)), boxes
    )


def test_half_a_box_is_right():
    assert is_right(np.array([HALF, CORNER]), np.array(FULL)).tolist() == [True, False]


def test_numbers():
    """Four images. 0: all right. 1: another class, whose box is right too. 2: right class, wrong box. 3: other class,
    whose box is right while that of the true class is wrong."""
    test = localizations(
        labels=[0, 1, 2, 3],
        predictions=[0, 0, 2, 0],
        true_boxes=[FULL] * 4,
        boxes_of_label=[HALF, HALF, CORNER, CORNER],
        boxes_of_prediction=[HALF, HALF, CORNER, FULL],
    )
    assert test.accuracy == 0.5
    at_04 = np.isclose(THRESHOLDS, 0.4)
    np.testing.assert_array_equal(test.gt_known(), np.where(at_04, 0, 0.5))
    np.testing.assert_array_equal(test.top1(), np.where(at_04, 0, 0.25))


def test_thresholds_and_center_box_are_chosen_on_the_validation_split():
    middle = [0.3, 0.3, 0.7, 0.7]
    # On validation 40 % alone is right, on test it alone is wrong.
    validation = localizations([0, 0], [0, 0], [CORNER, CORNER], [FULL] * 2, [FULL] * 2)
    test = localizations([0, 1], [0, 0], [FULL, middle], [FULL, middle], [FULL, middle])
    table, numbers = results(validation, test)
    assert numbers["best_threshold"] == 0.4
    assert (numbers["gt_known_20"], numbers["gt_known_best"]) == (1.0, 0.0)
    assert (numbers["top1_accuracy"], numbers["top1_localization_20"]) == (0.5, 0.5)
    assert table.row_count == 3
    # A validation split of boxes in the middle: its best square is 0.4 wide, which is right for one image of the two,
    # the one that the network takes for another class.
    validation = localizations([0], [0], [middle], [FULL], [FULL])
    numbers = results(validation, test)[1]
    assert is_right(center_boxes()[numbers["center_side"] == CENTER_SIDES], np.array(middle)).all()
    assert (numbers["gt_known_center"], numbers["top1_localization_center"]) == (0.5, 0.0)


@pytest.mark.parametrize("side", [0.1, 0.5])
def test_center_boxes(side):
    np.testing.assert_allclose(
        center_boxes()[side == CENTER_SIDES], [[0.5 - side / 2] * 2 + [0.5 + side / 2] * 2], atol=1e-12
    )
