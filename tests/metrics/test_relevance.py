"""Relevance mass and rank accuracy, by hand."""

import numpy as np
import pytest

from camjax.metrics import MaskRelevance, PointingGame, Relevance

#  The object is the first column.
MAP = np.float32([[3, 1, -5], [0, 2, 2]])
BOX = [[0.0, 0.0, 1.0, 1 / 3]]


def found(cam, kind=Relevance, **objects):
    metric = kind()
    metric.update(np.asarray(cam, np.float32)[None], **objects)
    return [*metric.compute().values()]


def test_mass_is_a_share_of_the_positive_values_and_rank_of_the_largest():
    # 3 of 3 + 1 + 2 + 2; of the two largest, 3 and the 2 that comes first, one lies in the column.
    assert found(MAP, true_boxes=[BOX], image_sizes=(2, 3)) == pytest.approx([100 * 3 / 8, 50])
    # Several boxes are one object.
    assert found(MAP, true_boxes=[[*BOX, [0, 2 / 3, 1, 1]]], image_sizes=(2, 3)) == pytest.approx([100 * 5 / 8, 50])


def test_masks_and_their_pixels_to_ignore():
    mask = np.uint8([[1, 255, 0], [1, 0, 1]])
    assert found(MAP, MaskRelevance, masks=[mask]) == pytest.approx([100 * 5 / 7, 200 / 3])
    assert found(MAP, MaskRelevance, masks=[mask == 1]) == pytest.approx([100 * 5 / 8, 200 / 3])
    names = MaskRelevance(), Relevance()
    for metric, prefix in zip(names, ("mask_relevance", "relevance"), strict=True):
        metric.update(MAP[None], masks=[mask])
        assert [*metric.compute()] == [f"{prefix}_mass", f"{prefix}_rank"]


def test_maps_are_resized_to_the_image():
    cam = np.float32([[0, 4]])
    # Of 4 pixels 0, 1, 3, 4, the last two are the object.
    assert found(cam, true_boxes=[[[0, 0.5, 1, 1]]], image_sizes=(1, 4)) == pytest.approx([100 * 7 / 8, 100])


def test_maps_without_positive_values_or_not_finite():
    assert found(-MAP.clip(0), true_boxes=[BOX], image_sizes=(2, 3)) == pytest.approx([0, 50])
    assert found(MAP * np.nan, true_boxes=[BOX], image_sizes=(2, 3)) == [0, 0]


def test_images_without_objects_are_left_out():
    metric = Relevance()
    metric.update(np.stack([MAP] * 3), [BOX, [], BOX], image_sizes=(2, 3), mask=[True, True, False])
    assert metric.num_images == 2 and metric.sums["images_with_objects"] == 1
    assert metric.compute() == pytest.approx({"relevance_mass": 100 * 3 / 8, "relevance_rank": 50})


@pytest.mark.parametrize("kind", [Relevance, PointingGame])
def test_objects_are_either_boxes_or_masks(kind):
    for wrong in ({}, {"true_boxes": [BOX], "masks": [MAP]}):
        with pytest.raises(ValueError, match="either as true_boxes or as masks"):
            kind().update(MAP[None], **wrong)
    with pytest.raises(ValueError, match="image_sizes=None"):
        kind().update(MAP[None], [BOX])
