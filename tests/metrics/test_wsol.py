"""MaxBoxAcc, MaxBoxAccV2 and PxAP: against loops that follow the benchmark's words, and by hand."""

import cv2
import numpy as np
import pytest
from test_contours import blobs, boxes_one_by_one

from camjax.metrics import MaxBoxAcc, MaxBoxAccV2, PxAP, score_map
from camjax.metrics.localization.wsol import _grid_boxes

HUNDRED = np.arange(0, 1, 0.01)


def raw_maps(seed, number=6, cells=14):
    """Smooth raw maps of any scale and sign."""
    rng = np.random.default_rng(seed)
    maps = [cv2.GaussianBlur(rng.normal(size=(cells, cells)), (0, 0), 1.5) for _ in range(number)]
    return np.stack(maps) * rng.uniform(0.1, 50, (number, 1, 1)) + rng.normal(size=(number, 1, 1))


def pixel_boxes(seed, maps, width=500, height=375):
    """For each map one box of whole pixels (x0, y0, x1, y1) near one of its own, and up to two anywhere."""
    rng = np.random.default_rng(seed)
    images = []
    for raw in maps:
        own = np.array(boxes_one_by_one(prepared(raw), rng.uniform(0.2, 0.8, 1), all_contours=True)[0])
        near = rng.permutation(own)[:1] * rng.uniform(0.85, 1.15, 4) * (np.array([width, height] * 2) / 224)
        anywhere = np.sort(rng.integers(0, [width, height], (rng.integers(3), 2, 2)), axis=1).reshape(-1, 4)
        boxes = np.concatenate([near.astype(int), anywhere])
        low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
        images.append(np.concatenate([low, np.minimum(high, [width, height])], axis=1))
    return images


def shares(boxes, width=500, height=375):
    """Pixel boxes (n, 4) x0, y0, x1, y1 as [ymin, xmin, ymax, xmax] in 0..1."""
    return [(np.float32(of)[:, [1, 0, 3, 2]] / np.float32([height, width] * 2)) for of in boxes]


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    intersection = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return intersection / (sum(areas) - intersection)


def prepared(raw):
    resized = cv2.resize(raw.astype(np.float64), (224, 224), interpolation=cv2.INTER_CUBIC)
    if np.isnan(resized).any() or resized.min() == resized.max():
        return np.zeros((224, 224))
    resized = resized - resized.min()
    return resized / resized.max()


def rates_one_by_one(maps, boxes, thresholds, iou_thresholds, all_contours, width=500, height=375):
    """(number of IoU thresholds, T) in percent, from pixel boxes x0, y0, x1, y1."""
    hits = np.zeros((len(iou_thresholds), len(thresholds)))
    for raw, true_boxes in zip(maps, boxes, strict=True):
        true_boxes = [
            (int(x0 * 224 / width), int(y0 * 224 / height), int(x1 * 224 / width), int(y1 * 224 / height))
            for x0, y0, x1, y1 in true_boxes.tolist()
        ]
        for t, found in enumerate(boxes_one_by_one(prepared(raw), thresholds, all_contours)):
            best = max(iou(box, true_box) for box in found for true_box in true_boxes)
            for i, iou_threshold in enumerate(iou_thresholds):
                hits[i, t] += best >= iou_threshold
    return hits * 100.0 / len(maps)


@pytest.mark.parametrize("cells", [7, 14])
def test_maxboxacc_is_that_of_the_loops(cells):
    maps = raw_maps(cells, 12, cells)
    boxes = pixel_boxes(cells, maps)
    metric = MaxBoxAcc(version=1)
    metric.update(maps, shares(boxes))
    expected = rates_one_by_one(maps, boxes, HUNDRED, [0.5], all_contours=False)
    assert 30 < expected.max() < 100 and expected.min() < 30
    assert metric.compute() == {"MaxBoxAcc": expected.max(), "optimal_threshold": HUNDRED[expected.argmax()]}
    assert np.array_equal(metric.curve()["MaxBoxAcc_50"], expected[0])


@pytest.mark.parametrize("thresholds", [None, np.arange(0, 1, 0.001)])
def test_maxboxaccv2_is_that_of_the_loops(thresholds):
    maps = raw_maps(3, 6)
    boxes = pixel_boxes(3, maps)
    metric = MaxBoxAcc(version=2, thresholds=thresholds)
    metric.update(maps, shares(boxes))
    expected = rates_one_by_one(maps, boxes, metric.thresholds, [0.3, 0.5, 0.7], all_contours=True)
    best = expected.max(1)
    assert 0 < best[2] < best[0]
    results = metric.compute()
    assert [results[f"MaxBoxAccV2_{percent}"] for percent in (30, 50, 70)] == best.tolist()
    assert results["MaxBoxAccV2"] == np.average(best)
    chosen = metric.thresholds[expected.argmax(1)]
    assert [results[f"optimal_threshold_{percent}"] for percent in (30, 50, 70)] == chosen.tolist()
    curve = metric.curve()
    assert np.array_equal([curve[f"MaxBoxAccV2_{percent}"] for percent in (30, 50, 70)], expected)
    assert np.array_equal(curve["thresholds"], metric.thresholds)


def test_default_thresholds_are_the_evaluators():
    assert np.array_equal(MaxBoxAcc().thresholds, np.arange(0, 1, 0.01))
    assert np.array_equal(PxAP().thresholds, np.arange(0, 1, 0.01))


def square(y0, x0, y1, x1, size=224):
    """A score map that is 1 on rows y0..y1-1 and columns x0..x1-1: its box is x0, y0, x1, y1."""
    score = np.zeros((size, size))
    score[y0:y1, x0:x1] = 1
    return score


def test_iou_of_exactly_one_half_counts():
    # Sides count one pixel more: 20 x 20 within 20 x 40.
    score = square(10, 10, 29, 29)
    for xmax, expected in ((49, 100.0), (50, 0.0)):
        metric = MaxBoxAcc(version=1)
        metric.update(score[None], np.array([[10, 10, 29, xmax]]) / 224)
        assert metric.compute()["MaxBoxAcc"] == expected


def test_any_true_box_will_do_and_the_other_contours_count_in_version_2_only():
    score = np.maximum(square(10, 10, 90, 90), square(150, 150, 190, 190))
    small, large, elsewhere = np.array([[150, 150, 190, 190], [10, 10, 90, 90], [0, 200, 20, 220]]) / 224
    for version, boxes, expected in (
        (1, [elsewhere, large], 100.0),
        (1, [small], 0.0),
        (2, [elsewhere, small], 100.0),
        (2, [elsewhere], 0.0),
    ):
        metric = MaxBoxAcc(version)
        metric.update(score[None], [np.array(boxes)])
        assert metric.compute()["MaxBoxAcc" if version == 1 else "MaxBoxAccV2"] == expected


def test_the_best_threshold_is_one_for_the_whole_data_set():
    high, low = square(10, 10, 60, 60), square(10, 10, 110, 110)
    maps = np.stack([np.maximum(high, 0.5 * low)] * 3)
    true_boxes = np.array([[10, 10, 60, 60], [10, 10, 60, 60], [10, 10, 110, 110]]) / 224
    metric = MaxBoxAcc()
    metric.update(maps, true_boxes)
    # q is 127 on the large square: the level passes it where int(t * 255) >= 127, first at 0.5.
    assert metric.compute() == {"MaxBoxAcc": 100 * 2.0 / 3.0, "optimal_threshold": 0.5}
    assert np.array_equal(metric.curve()["MaxBoxAcc_50"], np.where(HUNDRED < 0.5, 100 * 1.0 / 3, 100 * 2.0 / 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shares_give_the_integer_grid_of_pixel_boxes(dtype):
    for width in (*range(1, 2001, 7), 224, 375, 448, 500, 1000, 1333, 1999, 2000):
        x = np.arange(width + 1)
        share = x.astype(dtype) / dtype(width)
        found = _grid_boxes(np.stack([share * 0, share, share, share], axis=1), 0, (224, 224))
        expected = [int(value * 224.0 / width) for value in x.tolist()]
        assert found.T.tolist() == [expected, [0] * len(x), expected, expected]


def test_the_grid_may_be_oblong():
    found = _grid_boxes([[0.1, 0.2, 0.5, 1.0]], 0, (100, 300))
    assert found.tolist() == [[60, 10, 300, 50]]


def test_maps_are_resized_before_they_are_scaled():
    raw = np.array([[0.0, 1.0], [3.0, 2.0]])
    found = score_map(raw)
    assert found.shape == (224, 224) and found.dtype == np.float64
    assert found.min() == 0 and found.max() == 1
    assert np.array_equal(found, prepared(raw))
    # The cubic kernel overshoots, so that scaling first would not reach from 0 to 1 after.
    assert not np.array_equal(found, cv2.resize(raw / 3, (224, 224), interpolation=cv2.INTER_CUBIC))


def test_score_maps_stay_as_they_are():
    score = blobs(2)
    assert np.array_equal(score_map(score), score)
    assert score_map(score, (100, 150)).shape == (100, 150)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, -3.5, np.nan, np.inf, -np.inf])
def test_maps_without_a_scale_become_zeros(value):
    raw = np.full((14, 14), value)
    assert not score_map(raw).any()
    if not np.isfinite(value):
        raw = raw_maps(0)[0]
        raw[3, 4] = value
        assert not score_map(raw).any()


def test_a_map_without_a_scale_is_a_miss_that_counts():
    metric = MaxBoxAcc()
    metric.update(
        np.stack([square(10, 10, 90, 90), np.full((224, 224), np.nan)]), np.array([[10, 10, 90, 90]] * 2) / 224
    )
    assert metric.compute()["MaxBoxAcc"] == 50.0


def test_images_without_boxes_are_counted_apart():
    metric = MaxBoxAcc(version=2)
    boxes = [np.array([[10, 10, 90, 90]]) / 224, np.zeros((0, 4)), []]
    metric.update(np.stack([square(10, 10, 90, 90)] * 3), boxes)
    assert (metric.num_images, metric.num_without_boxes) == (3, 2)
    assert metric.compute()["MaxBoxAccV2"] == 100.0


def test_without_an_image_there_is_no_rate():
    metric = MaxBoxAcc(version=2)
    metric.update(np.zeros((1, 7, 7)), [[]])
    for result in (metric.compute, metric.curve):
        with pytest.raises(ValueError, match="MaxBoxAccV2 of no image"):
            result()


@pytest.mark.parametrize(
    ("maps", "boxes", "message"),
    [
        (np.zeros((2, 7)), [[], []], r"maps of shape \(2, 7\) and true_boxes of 2 images"),
        (np.zeros((2, 7, 7)), [[]], r"maps of shape \(2, 7, 7\) and true_boxes of 1 images"),
        (np.zeros((2, 7, 7)), [[], [[0, 0, 1]]], r"true_boxes of row 1 have shape \(1, 3\)"),
        (np.zeros((2, 7, 7)), [[], [[0, 0, 1.2, 1]]], "true_boxes of row 1"),
        (np.zeros((2, 7, 7)), [[[0.5, 0, 0.2, 1]], []], "true_boxes of row 0"),
        (np.zeros((2, 7, 7)), [[[np.nan, 0, 0.2, 1]], []], "true_boxes of row 0"),
    ],
)
def test_wrong_boxes_and_shapes_are_errors_that_add_nothing(maps, boxes, message):
    metric = MaxBoxAcc()
    before = metric.state()
    with pytest.raises(ValueError, match=message):
        metric.update(maps, boxes)
    assert metric.state() == before


@pytest.mark.parametrize("make", [MaxBoxAcc, MaxBoxAccV2])
def test_threads_change_nothing(make):
    maps = raw_maps(1, 7)
    boxes = shares(pixel_boxes(1, maps))
    one, three = make(num_threads=1), make(num_threads=3)
    one.update(maps, boxes)
    three.update(maps, boxes)
    assert one.state() == three.state() and one.compute() == three.compute()


def test_there_are_two_versions():
    with pytest.raises(ValueError, match="version=3: expected 1"):
        MaxBoxAcc(version=3)


# PxAP


def test_pxap_by_hand():
    # Scores 1, 0.8, 0.6, 0.4, 0.2, 0 in the bins of 0, 0.25, 0.5, 0.75 and 1.
    score = np.array([[1.0, 0.8, 0.6], [0.4, 0.2, 0.0]])
    mask = np.array([[1, 0, 1], [1, 0, 255]], np.uint8)
    metric = PxAP([0, 0.25, 0.5, 0.75], size=(2, 3))
    metric.update(score[None], [mask])
    # From the highest bin down: precision 1, 1/2, 2/3, 3/4, 3/5; recall 1/3, 1/3, 2/3, 1, 1.
    expected = 100 * (1 * (1 / 3) + (2 / 3) * (1 / 3) + (3 / 4) * (1 / 3))
    assert metric.compute()["PxAP"] == pytest.approx(expected, abs=1e-10)
    curve = metric.curve()
    assert curve["precision"] == pytest.approx([60, 75, 200 / 3, 50])
    assert curve["recall"] == pytest.approx([100, 100, 200 / 3, 100 / 3])


def areas_by_sorting(scores, positive, thresholds):
    """The area from sorted scores: at each threshold, which pixels are at or above it."""
    order = np.argsort(scores)
    scores, positive = scores[order], positive[order]
    total, area, recall = positive.sum(), 0.0, 0.0
    for threshold in [1.0, *reversed(thresholds)]:
        chosen = positive[np.searchsorted(scores, threshold) :]
        if len(chosen):
            area += chosen.mean() * (chosen.sum() / total - recall)
            recall = chosen.sum() / total
    return 100 * area


@pytest.mark.parametrize("thresholds", [None, np.arange(0, 1, 0.001)])
def test_pxap_is_the_area_from_sorted_scores(thresholds):
    maps = raw_maps(5, 4)
    rng = np.random.default_rng(5)
    masks = [rng.choice(np.uint8([0, 1, 255]), shape) for shape in ((224, 224), (300, 400), (100, 90), (1024, 683))]
    metric = PxAP(thresholds)
    metric.update(maps, masks)
    scores = np.stack([prepared(raw) for raw in maps])
    # As the benchmark resizes: the float32 values, by nearest neighbor.
    resized = np.stack([cv2.resize(np.float32(m), (224, 224), interpolation=cv2.INTER_NEAREST) for m in masks])
    known = resized != 255
    expected = areas_by_sorting(scores[known], resized[known] == 1, metric.thresholds)
    assert metric.compute()["PxAP"] == pytest.approx(expected, abs=1e-9)


def pxap_of_histograms(scores, masks, thresholds):
    """The evaluator's sums, one image after another, to the last digit."""
    edges = np.append(thresholds, [1.0, 2.0, 3.0])
    true, false = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for score, mask in zip(scores, masks, strict=True):
        true += np.histogram(score[mask == 1], bins=edges)[0].astype(float)
        false += np.histogram(score[mask == 0], bins=edges)[0].astype(float)
    true_positives, false_positives = np.cumsum(true[::-1]), np.cumsum(false[::-1])
    any_predicted = true_positives + false_positives != 0
    with np.errstate(invalid="ignore"):
        precision = true_positives / (true_positives + false_positives)
    recall = true_positives / true.sum()
    return (precision[1:] * np.diff(recall))[any_predicted[1:]].sum() * 100


def test_pxap_is_that_of_the_histograms_to_the_last_digit():
    maps = raw_maps(6, 12)
    masks = np.random.default_rng(6).choice(np.uint8([0, 1, 255]), (12, 224, 224))
    metric = PxAP()
    metric.update(maps, masks)
    assert metric.compute()["PxAP"] == pxap_of_histograms([prepared(raw) for raw in maps], masks, HUNDRED)


def test_pxap_of_the_mask_itself_is_100_whatever_the_ignored_pixels():
    mask = np.zeros((224, 224), np.uint8)
    mask[50:100, 60:200] = 1
    mask[0:30] = 255
    for ignored in (0.0, 1.0):
        metric = PxAP()
        metric.update(np.where(mask == 255, ignored, mask == 1)[None], [mask])
        assert metric.compute()["PxAP"] == 100.0


def test_pxap_of_a_constant_map_is_the_share_of_object_pixels():
    mask = np.zeros((224, 224), np.uint8)
    mask[:56] = 1
    metric = PxAP()
    metric.update(np.full((1, 14, 14), 3.0), mask[None])
    assert metric.compute()["PxAP"] == 25.0


def test_threads_do_not_change_pxap():
    maps = raw_maps(7, 5)
    masks = list(np.random.default_rng(7).choice(np.uint8([0, 1, 255]), (5, 60, 80)))
    one, two = PxAP(num_threads=1), PxAP(num_threads=2)
    one.update(maps, masks)
    two.update(maps, masks)
    assert one.state() == two.state()


def test_pxap_without_an_object_is_an_error():
    metric = PxAP()
    metric.update(raw_maps(0, 2), np.zeros((2, 10, 10), np.uint8))
    assert metric.num_images == 2
    for result in (metric.compute, metric.curve):
        with pytest.raises(ValueError, match="without a pixel of an object"):
            result()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((9, 9), 2, np.uint8), "mask of row 1 has the value 2: expected 1, 0, and 255"),
        (np.zeros((9, 9)), "mask of row 1, shape .* dtype float64"),
        (np.zeros((9, 9, 1), np.uint8), "mask of row 1"),
    ],
)
def test_what_is_no_mask_is_an_error_that_adds_nothing(mask, message):
    metric = PxAP()
    before = metric.state()
    with pytest.raises(ValueError, match=message):
        metric.update(raw_maps(0, 2), [np.zeros((9, 9), np.uint8), mask])
    assert metric.state() == before


@pytest.mark.parametrize("thresholds", [[0.1, 0.5], [0, 0.5, 0.5], [0, 0.5, 1.0], [0, 0.6, 0.5]])
def test_bins_that_leave_scores_out_are_an_error(thresholds):
    with pytest.raises(ValueError, match="rising from 0, below 1"):
        PxAP(thresholds)
