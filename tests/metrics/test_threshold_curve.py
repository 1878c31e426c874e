"""Curves over the threshold of the paper's box rule, against SciPy's components and plain loops."""

import jax
import numpy as np
import pytest
import scipy.ndimage

import camjax
from camjax.boxes import boxes_from_maps
from camjax.metrics.localization.box_overlap import iou_matrix
from camjax.metrics.localization.threshold_curve import DEFAULT_THRESHOLDS, Curve, ThresholdCurve, boxes_at_thresholds

WHOLE = [0.0, 0.0, 1.0, 1.0]
LEFT = [0.0, 0.0, 1.0, 0.5]  # IoU 0.5 with WHOLE
TOP_LEFT = [0.0, 0.0, 0.5, 0.5]  # IoU 0.25 with WHOLE
NONE = [0.0, 0.0, 0.0, 0.0]
SIZE = (40, 56)


def test_by_hand():
    metric = ThresholdCurve((0.1, 0.2, 0.5))
    metric.update(
        [[WHOLE, LEFT, TOP_LEFT], [LEFT, LEFT, NONE]],
        [[True, True, True], [True, True, False]],
        [np.array([WHOLE]), np.array([TOP_LEFT, LEFT])],
    )
    curve = metric.curve()
    assert curve.thresholds.tolist() == [0.1, 0.2, 0.5]
    assert curve.gt_known_localization.tolist() == [100, 100, 0]
    np.testing.assert_allclose(curve.mean_iou, [100, 75, 12.5], atol=1e-8)
    # Of equal values the lowest threshold.
    assert metric.compute() == {
        "best_gt_known_localization": 100,
        "best_gt_known_localization_threshold": 0.1,
        "best_mean_iou": pytest.approx(100, abs=1e-8),
        "best_mean_iou_threshold": 0.1,
    }


def test_the_threshold_of_the_iou():
    boxes, valid = [[LEFT]], [[True]]
    for iou_threshold, expected in ((0.3, 100), (0.5, 100), (0.51, 0)):
        metric = ThresholdCurve((0.2,), iou_threshold)
        metric.update(boxes, valid, [[WHOLE]])
        assert metric.compute()["best_gt_known_localization"] == expected


def test_images_without_true_boxes_and_padding():
    metric = ThresholdCurve((0.2,))
    boxes, valid = [[WHOLE], [WHOLE], [[np.nan] * 4]], [[True]] * 3
    metric.update(boxes, valid, [np.array([WHOLE]), [], np.array([[9, 9, 9, 9]])], mask=[True, True, False])
    assert (metric.num_images, metric.num_without_boxes) == (2, 1)
    assert metric.compute()["best_mean_iou"] == 100
    with pytest.raises(ValueError, match="boxes of row 2"):
        metric.update(boxes, valid, [[WHOLE]] * 3)


def test_what_is_not_valid_is_no_box():
    metric = ThresholdCurve((0.2, 0.4))
    metric.update([[WHOLE, [np.nan] * 4]], [[False, False]], [[WHOLE]])
    assert metric.curve().mean_iou.tolist() == [0, 0]
    assert metric.curve().gt_known_localization.tolist() == [0, 0]


# The boxes


def scipy_box(resized, threshold):
    """The paper's box of one map of the image's size, and whether there is one."""
    size = resized.shape
    labels, count = scipy.ndimage.label(resized > np.float32(threshold) * resized.max(), np.ones((3, 3)))
    if resized.max() <= 0 or count == 0:
        return NONE, False
    rows, columns = scipy.ndimage.find_objects(labels)[np.bincount(labels.ravel())[1:].argmax()]
    return [rows.start / size[0], columns.start / size[1], rows.stop / size[0], columns.stop / size[1]], True


def drawn(maps):
    """The boxes of 25 maps of one shape, so that all tests share one compilation."""
    assert maps.shape == (25, 5, 7)
    boxes, valid = boxes_at_thresholds(maps, SIZE)
    return np.asarray(boxes), np.asarray(valid)


def test_boxes_equal_those_of_scipy_at_every_threshold():
    maps = np.random.default_rng(0).normal(size=(25, 5, 7)).astype(np.float32)
    maps[5] -= 10  # nowhere above 0
    boxes, valid = drawn(maps)
    for i, resized in enumerate(np.asarray(camjax.resize_map(maps, SIZE))):
        for t, threshold in enumerate(DEFAULT_THRESHOLDS):
            box, ok = scipy_box(resized, threshold)
            np.testing.assert_allclose(boxes[i, t], box, atol=1e-6)
            assert valid[i, t] == ok
    assert not valid[5].any() and valid[6].all()


def test_the_box_at_a_threshold_is_the_box_of_the_method_at_that_threshold():
    maps = np.random.default_rng(1).normal(size=(25, 5, 7)).astype(np.float32)
    boxes, valid = drawn(maps)
    assert DEFAULT_THRESHOLDS[4] == 0.2
    single = jax.jit(boxes_from_maps, static_argnums=1)
    for t in (0, 4, 7, 19):
        expected, ok = single(maps, SIZE, DEFAULT_THRESHOLDS[t])
        np.testing.assert_array_equal(boxes[:, t], expected)
        np.testing.assert_array_equal(valid[:, t], ok)


def test_leading_dimensions_are_kept():
    maps = jax.ShapeDtypeStruct((3, 2, 7, 7), np.float32)
    boxes, valid = jax.eval_shape(lambda maps: boxes_at_thresholds(maps, (64, 64), (0.1, 0.2, 0.3)), maps)
    assert boxes.shape == (3, 2, 3, 4) and valid.shape == (3, 2, 3)


def test_the_region_of_a_bump_shrinks_as_the_threshold_rises():
    y, x = np.mgrid[-1:1:5j, -1:1:7j]
    bump = np.exp(-3 * (y**2 + x**2)).astype(np.float32)
    boxes, valid = drawn(np.stack([bump] * 25))
    assert valid.all()
    assert (np.diff(boxes[0, :, :2], axis=0) >= 0).all() and (np.diff(boxes[0, :, 2:], axis=0) <= 0).all()
    assert boxes[0, 0].tolist() == WHOLE


# The metric against a plain loop


def random_batch(seed):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(25, 5, 7)).astype(np.float32)
    maps[3] = np.nan
    corners = np.sort(rng.integers(0, 9, (25, 3, 2, 2)) / 8, axis=2).reshape(25, 3, 4).astype(np.float32)
    corners[..., 2:] = np.minimum(corners[..., 2:] + 0.125, 1)
    corners[..., :2] = np.minimum(corners[..., :2], 0.875)
    true_boxes = [own[: rng.integers(0, 4)] for own in corners]
    return *drawn(maps), true_boxes


def test_random_batches_equal_a_plain_loop():
    boxes, valid, true_boxes = random_batch(0)
    metric = ThresholdCurve()
    metric.update(boxes, valid, true_boxes)
    ious = np.array(
        [
            [max(iou_matrix([boxes[i, t]], [own]).item() for own in truths) * valid[i, t] for t in range(20)]
            for i, truths in enumerate(true_boxes)
            if len(truths)
        ]
    )
    curve = metric.curve()
    assert isinstance(curve, Curve)
    np.testing.assert_allclose(curve.mean_iou, 100 * ious.mean(0), atol=1e-8)
    np.testing.assert_allclose(curve.gt_known_localization, 100 * (ious >= 0.5 - 1e-6).mean(0), atol=1e-12)
    results = metric.compute()
    assert results["best_mean_iou"] == curve.mean_iou.max()
    assert results["best_mean_iou_threshold"] == DEFAULT_THRESHOLDS[ious.mean(0).argmax()]
    assert 0 < results["best_gt_known_localization"] < 100


# Errors


@pytest.mark.parametrize(
    "boxes, valid, true_boxes, message",
    [
        ([[WHOLE]], [[True]], [[WHOLE]], r"expected \(B, 2, 4\)"),
        ([[WHOLE, LEFT]], [[True]], [[WHOLE]], "one box for each of the 2 thresholds"),
        ([[WHOLE, [0.5, 0, 0.4, 1]]], [[True, True]], [[WHOLE]], "boxes of row 0"),
        ([[WHOLE, LEFT]], [[True, True]], [[WHOLE, NONE]], "true_boxes of row 0: .* is empty"),
        ([[WHOLE, LEFT]], [[True, True]], [], "true_boxes of 0 images: expected those of 1"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_added(boxes, valid, true_boxes, message):
    metric = ThresholdCurve((0.2, 0.4))
    before = metric.state()
    with pytest.raises(ValueError, match=message):
        metric.update(boxes, valid, true_boxes)
    assert metric.state() == before
    with pytest.raises(ValueError, match="has seen no image with a true box"):
        metric.compute()


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.2), (0.2, 0.2), (-0.1, 0.5), (0.5, 1.0), (np.nan,), (0.1, np.nan)])
def test_thresholds_out_of_range(thresholds):
    with pytest.raises(ValueError, match="expected rising shares"):
        ThresholdCurve(thresholds)
    with pytest.raises(ValueError, match="expected rising shares"):
        boxes_at_thresholds(np.zeros((1, 2, 2), np.float32), (4, 4), thresholds)
    with pytest.raises(ValueError, match="iou_threshold"):
        ThresholdCurve(iou_threshold=1.5)
