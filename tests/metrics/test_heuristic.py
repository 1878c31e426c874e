import numpy as np
import pytest
from test_components import scipy_box

import camjax
from camjax.metrics.localization.heuristic import heuristic_boxes

SIZE = (32, 48)
CLASS_IDS = np.array([[7, 2, 5, 9], [1, 0, 3, 3]])
MAPS = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype(np.float32) + 0.5


def box_by_scipy(map, share):
    map = np.asarray(camjax.resize_map(map, SIZE))
    return scipy_box(map > np.float32(share) * map.max())


def test_two_boxes_for_the_first_two_classes_and_a_loose_one_for_the_third():
    found = heuristic_boxes(CLASS_IDS, MAPS, SIZE, tight=0.5, loose=0.1)
    np.testing.assert_array_equal(found.class_ids, [[7, 7, 2, 2, 5], [1, 1, 0, 0, 3]])
    assert np.asarray(found.valid).all()
    for i in range(2):
        expected = [box_by_scipy(MAPS[i, rank], share) for rank, share in ((0, 0.5), (0, 0.1), (1, 0.5), (1, 0.1))]
        expected.append(box_by_scipy(MAPS[i, 2], 0.1))
        np.testing.assert_allclose(found.boxes[i], expected, atol=1e-6)


def test_by_hand():
    # One column of cells from 1 down to 0.1: above 0.4 of the maximum lie three cells, above 0.2 four, of five.
    column = np.array([1.0, 0.9, 0.5, 0.3, 0.1])[:, None]
    found = heuristic_boxes(np.array([[0, 1, 2]]), np.broadcast_to(column, (1, 3, 5, 1)), (5, 1))
    expected = [[0, 0, 0.6, 1], [0, 0, 0.8, 1], [0, 0, 0.6, 1], [0, 0, 0.8, 1], [0, 0, 0.8, 1]]
    np.testing.assert_allclose(found.boxes[0], expected)


def test_a_map_without_a_region_has_no_box():
    maps = MAPS.copy()
    maps[0, 1], maps[1, 2] = -1, np.nan
    found = heuristic_boxes(CLASS_IDS, maps, SIZE)
    assert found.valid.tolist() == [[True, True, False, False, True], [True, True, True, True, False]]
    np.testing.assert_array_equal(np.asarray(found.boxes)[~np.asarray(found.valid)], 0)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="N >= 3 classes by falling logit"):
        heuristic_boxes(CLASS_IDS[:, :2], MAPS[:, :2], SIZE)
    with pytest.raises(ValueError, match=r"class_ids of shape \(2, 3\) and maps of shape \(2, 4, 4, 6\)"):
        heuristic_boxes(CLASS_IDS[:, :3], MAPS, SIZE)
    with pytest.raises(ValueError, match=r"tight=0.2, loose=0.2: expected tight above loose"):
        heuristic_boxes(CLASS_IDS, MAPS, SIZE, tight=0.2)
    with pytest.raises(ValueError, match=r"threshold=1\.5"):
        heuristic_boxes(CLASS_IDS, MAPS, SIZE, tight=1.5)
