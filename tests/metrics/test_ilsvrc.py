"""ILSVRC's errors: IoU at the threshold in exact arithmetic, hand-made cases, and a plain loop as the oracle."""

from fractions import Fraction

import numpy as np
import pytest

import camjax
from camjax.metrics.localization.box_overlap import IOU_UNIT, best_iou_units, iou_matrix, pad_true_boxes, reaches_iou
from camjax.metrics.localization.ilsvrc import LocalizationError

WHOLE = [0.0, 0.0, 1.0, 1.0]
LEFT = [0.0, 0.0, 1.0, 0.5]  # IoU 0.5 with WHOLE
TOP_LEFT = [0.0, 0.0, 0.5, 0.5]  # IoU 0.25 with WHOLE, 0.5 with LEFT
RIGHT = [0.0, 0.5, 1.0, 1.0]


def exact_iou(a, b):
    """IoU of two boxes of fractions."""
    height, width = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return Fraction(height * width) / (areas - height * width)


def pixel_boxes(rng, count, height, width):
    """(count, 4) half-open integer boxes [y0, x0, y1, x1] of one pixel or more."""
    y, x = (np.sort(rng.integers(0, side, (count, 2)), axis=1) for side in (height, width))
    return np.stack([y[:, 0], x[:, 0], y[:, 1] + 1, x[:, 1] + 1], axis=1)


def shares(boxes, height, width):
    """Pixel boxes as they are stored: float32 shares of the image."""
    return (boxes / np.array([height, width, height, width])).astype(np.float32)


# IoU


def test_iou_by_hand():
    found = iou_matrix([WHOLE, LEFT, [0, 0, 0, 0]], [WHOLE, TOP_LEFT, RIGHT, [0, 0, 0, 0]])
    np.testing.assert_array_equal(found, [[1, 0.25, 0.5, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]])
    assert found.dtype == np.float64


def test_iou_equals_that_of_the_device():
    rng = np.random.default_rng(0)
    a, b = (shares(pixel_boxes(rng, 200, 50, 70), 50, 70) for _ in range(2))
    np.testing.assert_allclose(iou_matrix(a, b), camjax.box_iou(a[:, None], b[None]), atol=1e-6)
    pairs = iou_matrix(a[:, None], b[:, None])
    np.testing.assert_array_equal(pairs[:, 0, 0], np.diag(iou_matrix(a, b)))


def test_an_iou_of_exactly_the_threshold_counts_whatever_float32_makes_of_it():
    lost = 0
    for width in range(2, 500, 7):
        for start in range(0, width - 1, 5):
            for length in {1, (width - start) // 4, (width - start) // 2} - {0}:
                half, whole = shares(
                    np.array([[0, start, 3, start + length], [0, start, 3, start + 2 * length]]), 3, width
                )
                lost += iou_matrix(half[None], whole[None]).item() < 0.5
                assert reaches_iou(half[None], whole[None], 0.5).item()
    assert lost > 1000  # so that the comparison of the rounded IoU itself would be wrong


@pytest.mark.parametrize("threshold", [Fraction(3, 10), Fraction(1, 2), Fraction(7, 10)])
def test_the_decision_is_that_of_exact_arithmetic(threshold):
    rng = np.random.default_rng(1)
    close = 0
    for largest in (20, 600) * 750:
        height, width = rng.integers(2, largest, 2)
        a = pixel_boxes(rng, 1, height, width)[0]
        # A box of nearly the same edges, so that the IoU is often near the threshold.
        moved = a + rng.integers(-largest // 6, largest // 6 + 1, 4)
        b = np.sort(np.clip(moved, 0, [height, width, height, width]).reshape(2, 2), axis=0).ravel()
        if (b[:2] == b[2:]).any():
            continue
        exact = exact_iou([int(v) for v in a], [int(v) for v in b])
        close += abs(exact - threshold) < 0.03
        found = reaches_iou(shares(a[None], height, width), shares(b[None], height, width), float(threshold))
        assert found.item() == (exact >= threshold)
    assert close > 10


@pytest.mark.parametrize("height, width", [(375, 500), (500, 333), (225, 223), (480, 640)])
def test_half_a_pixel_less_than_half_does_not_count(height, width):
    # A box of odd area, and one inside it of half that, rounded down: the nearest below 0.5 that IoU comes there.
    found = 0
    for h in range(height - 20, height + 1):
        for w in range(width - 20, width + 1):
            area = h * w // 2
            inner = next((rows for rows in range(h, area // w, -1) if area % rows == 0), None)
            if h * w % 2 and inner:
                found += 1
                boxes = shares(np.array([[0, 0, h, w], [0, w - area // inner, inner, w]]), height, width)
                assert 0.4999 < iou_matrix(boxes[:1], boxes[1:]).item() < 0.5
                assert not reaches_iou(boxes[:1], boxes[1:], 0.5).item()
    assert found > 10


def test_boxes_that_do_not_meet_never_count():
    nothing = np.zeros((1, 4))
    tiny = [[0.0, 0.0, 1e-9, 1e-9]]
    assert not reaches_iou(nothing, nothing, 0.5).item()
    assert not reaches_iou(nothing, tiny, 0.5).item()
    assert not reaches_iou([LEFT], [RIGHT], 1e-9).item()


def test_pixels_counted_as_ilsvrc_does_have_the_same_iou():
    rng = np.random.default_rng(2)
    height, width = 375, 500
    a, b = pixel_boxes(rng, 300, height, width), pixel_boxes(rng, 300, height, width)
    # As in its files: y0, x0, y1, x1 of the first and the last pixel; widths are one more than the difference.
    (ay0, ax0, ay1, ax1), (by0, bx0, by1, bx1) = (np.moveaxis(box - [0, 0, 1, 1], 1, 0) for box in (a, b))
    shared_h = np.maximum(np.minimum(ay1, by1) - np.maximum(ay0, by0) + 1, 0)
    shared_w = np.maximum(np.minimum(ax1, bx1) - np.maximum(ax0, bx0) + 1, 0)
    area_a, area_b = (ay1 - ay0 + 1) * (ax1 - ax0 + 1), (by1 - by0 + 1) * (bx1 - bx0 + 1)
    inclusive = shared_h * shared_w / (area_a + area_b - shared_h * shared_w)
    scale = np.array([height, width, height, width])
    found = iou_matrix((a / scale)[:, None], (b / scale)[:, None])[:, 0, 0]
    np.testing.assert_allclose(found, inclusive, rtol=1e-12)
    assert (inclusive > 0).sum() > 100


def test_best_iou_is_that_of_the_best_true_box():
    true_boxes, counts = pad_true_boxes([[TOP_LEFT, WHOLE], [], [RIGHT]], 3, np.arange(3))
    assert counts.tolist() == [2, 0, 1]
    best = best_iou_units([[LEFT, RIGHT]] * 3, true_boxes)
    assert best.dtype == np.int64 and (best * IOU_UNIT).tolist() == [[0.5, 0.5], [0, 0], [0, 1]]
    assert best_iou_units(np.zeros((2, 3, 4)), np.zeros((2, 0, 4))).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("form", [np.array([LEFT, WHOLE]), np.array([[LEFT], [WHOLE]]), [[LEFT], np.array([WHOLE])]])
def test_true_boxes_in_each_form(form):
    boxes, counts = pad_true_boxes(form, 2, np.arange(2))
    assert boxes.tolist() == [[LEFT], [WHOLE]]
    assert counts.tolist() == [1, 1]


# The metric


def update(metric, class_ids, boxes, label, true_boxes, **more):
    """One image."""
    more = {name: [value] for name, value in more.items()}
    metric.update([class_ids], [boxes], [label], [np.array(true_boxes)], **more)
    return metric


def test_by_hand():
    metric = LocalizationError()
    # Right class first, IoU exactly 0.5.
    update(metric, [3, 1, 2, 4, 5], [LEFT] * 5, 3, [WHOLE], label_boxes=WHOLE)
    # Right class first, with IoU 0.25: another class's box does not help.
    update(metric, [3, 1, 2, 4, 5], [TOP_LEFT] + [WHOLE] * 4, 3, [WHOLE], label_boxes=TOP_LEFT)
    # Right class fifth, and the second of its true boxes met.
    update(metric, [1, 2, 4, 5, 3], [WHOLE] * 4 + [RIGHT], 3, [TOP_LEFT, RIGHT], label_boxes=RIGHT)
    # Right class not among five.
    update(metric, [1, 2, 4, 5, 6], [WHOLE] * 5, 3, [WHOLE], label_boxes=LEFT)
    results = metric.compute()
    assert results == {
        "top1_classification_error": 50.0,
        "top5_classification_error": 25.0,
        "top1_localization_error": 75.0,
        "top5_localization_error": 50.0,
        "gt_known_localization": 75.0,
        "gt_known_mean_iou": pytest.approx(100 * (1 + 0.25 + 1 + 0.5) / 4),
    }
    assert (metric.num_images, metric.num_without_boxes) == (4, 0)


def test_a_box_that_is_not_valid_never_counts():
    metric = LocalizationError(top_k=(1,))
    update(metric, [3], [WHOLE], 3, [WHOLE], valid=[False], label_boxes=WHOLE, label_valid=False)
    # What is not valid is not looked at: NaN, as of a map of NaN.
    update(metric, [3], [[np.nan] * 4], 3, [WHOLE], valid=[False], label_boxes=[7.0] * 4, label_valid=False)
    assert metric.compute() == {
        "top1_classification_error": 0.0,
        "top1_localization_error": 100.0,
        "gt_known_localization": 0.0,
        "gt_known_mean_iou": 0.0,
    }


def test_the_papers_heuristic_of_two_boxes_for_a_class():
    boxes = [TOP_LEFT, LEFT, TOP_LEFT, LEFT, LEFT]
    metric = LocalizationError()
    # The loose box of the first class is right: among the first five entries, not the first one.
    update(metric, [1, 1, 2, 2, 3], boxes, 1, [WHOLE], ranking=[1, 2, 3, 4, 5])
    # The fourth class has no box; its classification counts all the same.
    update(metric, [1, 1, 2, 2, 3], boxes, 4, [WHOLE], ranking=[1, 2, 3, 4, 5])
    assert metric.compute() == {
        "top1_classification_error": 50.0,
        "top5_classification_error": 0.0,
        "top1_localization_error": 100.0,
        "top5_localization_error": 50.0,
    }
    with pytest.raises(ValueError, match=r"class_ids of row 0: \[1, 1, 2, 2, 3\] name a class twice"):
        update(metric, [1, 1, 2, 2, 3], boxes, 1, [WHOLE])
    assert metric.num_images == 2


def test_images_without_true_boxes_are_counted_apart():
    metric = LocalizationError(top_k=(1, 2))
    update(metric, [1, 2], [WHOLE, WHOLE], 1, np.zeros((0, 4)), label_boxes=WHOLE)
    assert metric.compute() == {"top1_classification_error": 0.0, "top2_classification_error": 0.0}
    update(metric, [1, 2], [WHOLE, LEFT], 2, [LEFT], label_boxes=LEFT)
    update(metric, [1, 2], [WHOLE, LEFT], 3, [], label_boxes=LEFT)
    assert (metric.num_images, metric.num_without_boxes) == (3, 2)
    results = metric.compute()
    assert results["top1_classification_error"] == pytest.approx(200 / 3)
    assert results["top2_classification_error"] == pytest.approx(100 / 3)
    assert results["top1_localization_error"] == 100
    assert results["top2_localization_error"] == 0
    assert results["gt_known_localization"] == 100


# Against a plain loop


def random_batch(seed, size=40):
    rng = np.random.default_rng(seed)
    side = (90, 120)

    def boxes(count):
        # Few places, so that IoU of 0.5 and more comes up, and exactly 0.5 too.
        return (
            shares(pixel_boxes(rng, count, 4, 4), 4, 4)
            if rng.random() < 0.7
            else shares(pixel_boxes(rng, count, *side), *side)
        )

    return {
        "class_ids": np.stack([rng.permutation(8)[:6] for _ in range(size)]),
        "boxes": np.stack([boxes(6) for _ in range(size)]),
        "labels": rng.integers(0, 8, size),
        "true_boxes": [boxes(rng.integers(0, 4)) for _ in range(size)],
        "valid": rng.random((size, 6)) < 0.9,
        "label_boxes": np.concatenate([boxes(1) for _ in range(size)]),
        "label_valid": rng.random(size) < 0.9,
    }


def plain_loop(batch):
    """The definitions, image by image."""

    def right(box, ok, truths):
        return ok and any(iou_matrix([box], [truth]).item() >= 0.5 - 1e-6 for truth in truths)

    hits = dict.fromkeys(["top1c", "top5c", "top1l", "top5l", "gt"], 0)
    with_boxes = 0
    for i, label in enumerate(batch["labels"]):
        truths = batch["true_boxes"][i]
        with_boxes += len(truths) > 0
        for k in (1, 5):
            entries = range(k)
            hits[f"top{k}c"] += any(batch["class_ids"][i, j] == label for j in entries)
            hits[f"top{k}l"] += any(
                batch["class_ids"][i, j] == label and right(batch["boxes"][i, j], batch["valid"][i, j], truths)
                for j in entries
            )
        hits["gt"] += right(batch["label_boxes"][i], batch["label_valid"][i], truths)
    images = len(batch["labels"])
    return {
        "top1_classification_error": 100 - 100 * hits["top1c"] / images,
        "top5_classification_error": 100 - 100 * hits["top5c"] / images,
        "top1_localization_error": 100 - 100 * hits["top1l"] / with_boxes,
        "top5_localization_error": 100 - 100 * hits["top5l"] / with_boxes,
        "gt_known_localization": 100 * hits["gt"] / with_boxes,
    }


@pytest.mark.parametrize("seed", range(5))
def test_random_batches_equal_a_plain_loop(seed):
    batch = random_batch(seed)
    metric = LocalizationError()
    metric.update(**batch)
    results = metric.compute()
    ious = [
        max([iou_matrix([box], [truth]).item() for truth in truths], default=0) if ok else 0
        for box, ok, truths in zip(batch["label_boxes"], batch["label_valid"], batch["true_boxes"], strict=True)
    ]
    with_boxes = metric.num_images - metric.num_without_boxes
    assert results.pop("gt_known_mean_iou") == pytest.approx(100 * sum(ious) / with_boxes, abs=1e-8)
    assert results == pytest.approx(plain_loop(batch))
    assert 0 < results["gt_known_localization"] < 100


# Errors


def good(**change):
    batch = {
        "class_ids": np.array([[0, 1], [1, 0], [2, 0]]),
        "boxes": np.tile(np.array(LEFT, np.float32), (3, 2, 1)),
        "labels": np.array([0, 0, 1]),
        "true_boxes": [np.array([WHOLE]), np.array([WHOLE, LEFT]), np.zeros((0, 4))],
        "label_boxes": np.tile(np.array(LEFT), (3, 1)),
    }
    return batch | change


def changed(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": [0, -1, 0]}, r"labels of row 1: \[-1\], expected classes from 0 on"),
        ({"labels": [0.0, 1.0, 0.0]}, "labels of shape .* and dtype float64: expected integers"),
        ({"labels": np.eye(3, dtype=int)}, r"labels of shape \(3, 3\): expected \(3,\), the id of one class an image"),
        ({"labels": [0, 1]}, "expected integers, 2 or more for each of 2 images"),
        ({"class_ids": [[0, 1], [1, 0], [2, -3]]}, r"class_ids of row 2: \[2, -3\]"),
        ({"class_ids": [[0], [1], [2]]}, "2 or more for each of 3 images"),
        ({"ranking": [[0, 1], [-1, 0], [2, 0]]}, "ranking of row 1"),
        (
            {"boxes": changed(good()["boxes"], (1, 0), [0, 0.6, 1, 0.5])},
            r"boxes of row 1: box \[0.0, 0.6.*xmin <= xmax",
        ),
        ({"boxes": changed(good()["boxes"], (2, 1), [0, 0, 1, 1.01])}, "boxes of row 2"),
        ({"boxes": changed(good()["boxes"], (0, 1), [np.nan, 0, 1, 1])}, "boxes of row 0"),
        ({"boxes": np.zeros((3, 4))}, "expected 2 or more boxes for each of 3 images"),
        ({"valid": [True, True, True]}, "expected one for each box"),
        ({"label_boxes": changed(good()["label_boxes"], 2, [-0.1, 0, 1, 1])}, "label_boxes of row 2"),
        ({"label_boxes": np.zeros((3, 2, 4))}, "label_boxes of shape"),
        ({"true_boxes": [[WHOLE], [WHOLE]]}, "true_boxes of 2 images: expected those of 3"),
        ({"true_boxes": [[WHOLE], [LEFT, [0, 0, 224, 224]], []]}, "true_boxes of row 1: box .* expected"),
        ({"true_boxes": [[WHOLE], [WHOLE], [[0.5, 0, 0.2, 1]]]}, "true_boxes of row 2"),
        ({"true_boxes": [[WHOLE], [WHOLE, [0, 0, 0, 0]], []]}, "true_boxes of row 1: .* is empty"),
        ({"true_boxes": [WHOLE, WHOLE, WHOLE]}, r"true_boxes of row 0 have shape \(4,\): expected \(n, 4\)"),
        ({"mask": [True, False]}, r"expected \(3,\) bool"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_added(change, message):
    metric = LocalizationError(top_k=(1, 2))
    before = metric.state()
    with pytest.raises(ValueError, match=message):
        metric.update(**good(**change))
    assert metric.state() == before


def test_rows_are_named_as_the_caller_counts_them():
    metric = LocalizationError(top_k=(1, 2))
    with pytest.raises(ValueError, match="labels of row 2"):
        metric.update(**good(labels=[-1, 0, -1]), mask=[False, True, True])
    for name in ("boxes", "label_boxes"):
        with pytest.raises(ValueError, match=f"^{name} of row 2"):
            metric.update(**good(**{name: changed(good()[name], 2, 7.0)}), mask=[False, True, True])
    with pytest.raises(ValueError, match="true_boxes of row 1"):
        metric.update(**good(true_boxes=[[], [[0, 0, 7, 7]], []]), mask=[False, True, True])
    metric.update(**good(labels=[-1, 0, 1]), mask=[False, True, True])
    assert metric.num_images == 2


def test_edges_may_be_off_by_rounding():
    metric = LocalizationError(top_k=(1,))
    update(metric, [0], [[-1e-7, 0, 1, 1 + 1e-7]], 0, [[0, 0, 1, np.nextafter(np.float32(1), np.float32(2))]])
    assert metric.compute()["top1_localization_error"] == 0


def test_label_boxes_for_some_images_only():
    metric = LocalizationError(top_k=(1, 2))
    metric.update(**good())
    metric.update(**good(label_boxes=None))
    with pytest.raises(ValueError, match="label_boxes were given for 2 of 4 images"):
        metric.compute()


def test_nothing_to_compute_from():
    metric = LocalizationError(top_k=(1, 2))
    metric.update(**good(), mask=[False] * 3)
    with pytest.raises(ValueError, match="has seen no images"):
        metric.compute()


@pytest.mark.parametrize("options", [{"top_k": ()}, {"top_k": (5, 1)}, {"top_k": (0, 1)}, {"iou_threshold": 0}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="expected"):
        LocalizationError(**options)
