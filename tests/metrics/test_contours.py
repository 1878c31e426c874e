"""Boxes around contours: against one call of OpenCV per threshold, and by hand."""

import cv2
import numpy as np
import pytest

from camjax.metrics.localization import contours
from camjax.metrics.localization.contours import contour_boxes

HUNDRED = np.arange(0, 1, 0.01)
THOUSAND = np.arange(0, 1, 0.001)


def boxes_one_by_one(score_map, thresholds, all_contours):
    """The rule, as it is stated: threshold, find contours, take bounding rectangles, one threshold after another."""
    height, width = score_map.shape
    q = (score_map * 255).astype(np.uint8)
    result = []
    for threshold in thresholds:
        _, region = cv2.threshold(q, int(threshold * q.max()), 255, cv2.THRESH_BINARY)
        found = cv2.findContours(region, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if len(found) and not all_contours:
            areas = [cv2.contourArea(contour) for contour in found]
            found = [found[areas.index(max(areas))]]
        boxes = []
        for contour in found:
            x, y, w, h = cv2.boundingRect(contour)
            boxes.append([x, y, min(x + w, width - 1), min(y + h, height - 1)])
        result.append(boxes or [[0, 0, 0, 0]])
    return result


def scaled(values):
    values = np.asarray(values, np.float64)
    return (values - values.min()) / (values.max() - values.min())


def blobs(seed, size=224, number=6):
    """A sum of Gaussians of both signs, as a smooth class activation map is."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    total = np.zeros((size, size))
    for _ in range(number):
        cy, cx, width = *rng.uniform(0, 1, 2), rng.uniform(0.03, 0.3)
        total += rng.uniform(-0.5, 1) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
    return scaled(total)


def upsampled(seed, cells, size=(224, 224)):
    raw = np.random.default_rng(seed).normal(size=(cells, cells))
    return scaled(cv2.resize(raw, size[::-1], interpolation=cv2.INTER_CUBIC))


def spiral(size=61):
    """One long arm that rises along its way, with single cells between its turns."""
    image = np.zeros((size, size))
    y, x, dy, dx, value = 0, 0, 0, 1, 1
    image[y, x] = value
    turns = 0
    while turns < 2:
        ny, nx, fy, fx = y + dy, x + dx, y + 2 * dy, x + 2 * dx
        free = 0 <= ny < size and 0 <= nx < size and not image[ny, nx]
        if free and not (0 <= fy < size and 0 <= fx < size and image[fy, fx]):
            y, x, turns, value = ny, nx, 0, value + 1
            image[y, x] = value
        else:
            dy, dx, turns = dx, -dy, turns + 1
    return image / image.max()


def rings(size=64):
    """Rings within rings: contours of holes, and contours within those."""
    y, x = np.mgrid[:size, :size] - size / 2
    return scaled(np.cos(np.hypot(y, x)) + 0.01 * x)


def one_pixel(y, x, shape=(9, 12)):
    image = np.zeros(shape)
    image[y, x] = 1
    return image


def steps(values, shape=(50, 40)):
    return np.random.default_rng(5).choice(values, size=shape)


MAPS = {
    "blobs": blobs(0),
    "narrow blobs": blobs(1, number=40),
    "14 cells": upsampled(0, 14),
    "28 cells, oblong": upsampled(1, 28, (120, 200)),
    "noise": np.random.default_rng(0).random((40, 57)),
    "noise of few values": steps([0, 0.25, 0.5, 1]),
    "noise of two values": steps([0, 1]),
    "noise without 0": steps([0.4, 0.7, 0.9]),
    "spiral": spiral(),
    "rings": rings(),
    "checkerboard": np.indices((20, 21)).sum(0) % 2 * 1.0,
    "gradient": np.tile(np.linspace(0, 1, 300), (3, 1)),
    "constant 0": np.zeros((10, 11)),
    "constant 1": np.ones((10, 11)),
    "constant 0.5": np.full((10, 11), 0.5),
    "one pixel": one_pixel(4, 5),
    "one pixel in the first corner": one_pixel(0, 0),
    "one pixel in the last corner": one_pixel(8, 11),
    "one row": np.random.default_rng(1).random((1, 30)),
    "one column": np.random.default_rng(2).random((30, 1)),
    "a map of one pixel": np.ones((1, 1)),
    "below a level": np.full((5, 5), 0.003),
}


def assert_same(score_map, thresholds, all_contours):
    found = contour_boxes(score_map, thresholds, all_contours)
    expected = boxes_one_by_one(score_map, thresholds, all_contours)
    assert [boxes.tolist() for boxes in found] == expected
    assert all(boxes.dtype == np.int64 for boxes in found)


@pytest.mark.parametrize("all_contours", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_equal_to_one_call_of_opencv_per_threshold(name, all_contours):
    assert_same(MAPS[name], HUNDRED, all_contours)


@pytest.mark.parametrize("all_contours", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "blobs",
        "14 cells",
        "spiral",
        "rings",
        pytest.param("noise", marks=pytest.mark.long),
        pytest.param("noise of few values", marks=pytest.mark.long),
    ],
)
def test_equal_at_a_thousand_thresholds(name, all_contours):
    assert_same(MAPS[name], THOUSAND, all_contours)


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(8, 40))])
def test_equal_on_small_maps_of_every_kind(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 30, 2)
    smooth = cv2.GaussianBlur(rng.random(shape), (0, 0), rng.uniform(0.3, 4))
    for score_map in (rng.random(shape), np.clip(smooth, 0, 1), rng.integers(0, 3, shape) / 2):
        for all_contours in (False, True):
            assert_same(score_map, rng.random(20), all_contours)


@pytest.mark.parametrize("pixels", [1, 5000, 10**8])
def test_the_height_of_the_stacks_changes_nothing(monkeypatch, pixels):
    expected = [boxes.tolist() for boxes in contour_boxes(MAPS["14 cells"], HUNDRED, True)]
    monkeypatch.setattr(contours, "_STACK_PIXELS", pixels)
    assert [boxes.tolist() for boxes in contour_boxes(MAPS["14 cells"], HUNDRED, True)] == expected


def test_a_hill_by_hand():
    score_map = np.zeros((5, 6))
    score_map[1:4, 1:5] = 0.4
    score_map[2, 2:4] = 1.0
    # q is 102 and 255; the levels are 0, 76, 102 (not above itself), 127 and 252.
    found = contour_boxes(score_map, [0.0, 0.3, 0.4, 0.5, 0.99])
    assert [boxes.tolist() for boxes in found] == [[[1, 1, 5, 4]]] * 2 + [[[2, 2, 4, 3]]] * 3


def test_far_edges_stop_at_the_last_pixel():
    score_map = np.zeros((4, 7))
    score_map[2:, 3:] = 1
    assert contour_boxes(score_map, [0.5])[0].tolist() == [[3, 2, 6, 3]]


def test_the_outline_of_a_hole_is_a_contour_of_its_own():
    score_map = np.zeros((9, 9))
    score_map[1:8, 1:8] = 1
    score_map[3:5, 3:6] = 0
    # The hole's outline runs over the pixels around it: rows 2 to 5, columns 2 to 6.
    assert sorted(contour_boxes(score_map, [0.5], all_contours=True)[0].tolist()) == [[1, 1, 8, 8], [2, 2, 7, 6]]
    assert contour_boxes(score_map, [0.5])[0].tolist() == [[1, 1, 8, 8]]


def test_the_largest_is_by_polygon_area_not_by_pixels():
    score_map = np.zeros((12, 30))
    score_map[1, 1:29] = 1  # 28 pixels in a row: a polygon of area 0
    score_map[4:8, 4:8] = 1  # 16 pixels: 3 x 3 between their centers
    assert contour_boxes(score_map, [0.5])[0].tolist() == [[4, 4, 8, 8]]


def test_touching_corners_make_one_region():
    score_map = np.zeros((8, 8))
    score_map[1:3, 1:3] = score_map[3:6, 3:6] = 1
    assert contour_boxes(score_map, [0.5], all_contours=True)[0].tolist() == [[1, 1, 6, 6]]


def test_the_threshold_1_has_no_region():
    assert contour_boxes(MAPS["blobs"], [1.0], all_contours=True)[0].tolist() == [[0, 0, 0, 0]]


def test_thresholds_in_any_order_and_repeated():
    thresholds = [0.7, 0.1, 0.7, 0.0, 0.1]
    assert_same(MAPS["14 cells"], thresholds, True)


def test_arrays_that_thresholds_share_cannot_be_written():
    boxes = contour_boxes(MAPS["one pixel"], [0.1, 0.2])
    with pytest.raises(ValueError, match="read-only"):
        boxes[0][0, 0] = 7


def test_float32_maps_count_with_their_exact_value():
    score_map = MAPS["14 cells"].astype(np.float32)
    assert_same(score_map.astype(np.float64), HUNDRED, True)
    found, expected = (contour_boxes(a, HUNDRED, True) for a in (score_map, score_map.astype(np.float64)))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("score_map", "message"),
    [
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\): expected \(H, W\)"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.array([[0.0, 1.5]]), r"values in 0\.\.1\.5: expected 0\.\.1"),
        (np.array([[-0.1, 0.5]]), r"values in -0\.1\.\.0\.5"),
        (np.array([[np.nan, 0.5]]), "no NaN; see camjax.metrics.score_map"),
    ],
)
def test_what_is_no_score_map_is_an_error(score_map, message):
    with pytest.raises(ValueError, match=message):
        contour_boxes(score_map, [0.5])


@pytest.mark.parametrize("thresholds", [[], [-0.1], [1.1], [np.nan], 0.5, [[0.5]]])
def test_thresholds_out_of_range_are_an_error(thresholds):
    with pytest.raises(ValueError, match=r"thresholds=.*in 0\.\.1"):
        contour_boxes(np.ones((3, 3)), thresholds)
