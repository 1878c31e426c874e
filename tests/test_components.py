import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from camjax.boxes import (
    box_iou,
    boxes_from_maps,
    component_boxes_from_maps,
    largest_component_box,
    scored_box_from_maps,
)
from camjax.cam import resize_map
from camjax.components import largest_component

largest = jax.jit(largest_component)
box_of = jax.jit(largest_component_box)


def scipy_largest(mask):
    labels, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    if count == 0:
        return np.zeros_like(mask)
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


def scipy_box(mask):
    if not mask.any():
        return [0.0, 0.0, 0.0, 0.0]
    rows, columns = scipy.ndimage.find_objects(scipy_largest(mask).astype(int))[0]
    height, width = mask.shape
    return [rows.start / height, columns.start / width, rows.stop / height, columns.stop / width]


def spiral(side):
    """One path, a pixel wide, that winds inward with a pixel between its turns."""
    mask = np.zeros((side, side), bool)
    y, x, dy, dx, length = 0, 0, 0, 1, side - 1
    mask[0, 0] = True
    for turn in range(side):
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
        if turn >= 2 and turn % 2 == 0:
            length -= 2
        if length <= 0:
            break
    return mask


def check(masks):
    found = np.asarray(largest(masks))
    boxes, valid = box_of(masks)
    for mask, component, box, ok in zip(masks, found, np.asarray(boxes), np.asarray(valid), strict=True):
        np.testing.assert_array_equal(component, scipy_largest(mask))
        np.testing.assert_array_equal(box, np.float32(scipy_box(mask)))
        assert ok == mask.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (5, 7), (16, 16), (33, 20)])
@pytest.mark.parametrize("density", [0.1, 0.3, 0.4, 0.5, 0.7])
def test_random_masks_equal_scipy(shape, density):
    rng = np.random.default_rng(0)
    check(rng.random((100, *shape)) < density)


def test_maps_like_those_of_networks_equal_scipy():
    rng = np.random.default_rng(1)
    maps = np.asarray(jax.image.resize(rng.normal(size=(64, 7, 7)), (64, 224, 224), "bilinear"))
    check(maps > 0.2 * maps.max((1, 2), keepdims=True))


def test_spiral_empty_and_full_alone_and_in_a_batch():
    masks = np.stack([spiral(64), np.zeros((64, 64), bool), np.ones((64, 64), bool)])
    assert scipy.ndimage.label(masks[0], np.ones((3, 3)))[1] == 1
    check(masks)
    for mask in masks:
        check(mask[None])


def test_of_equal_components_the_first_in_raster_order():
    mask = np.zeros((4, 8), bool)
    mask[1, 0] = mask[0, 5] = True
    assert np.argwhere(largest(mask)).tolist() == [[0, 5]]


def test_leading_dimensions_are_kept_and_vmap_agrees():
    masks = np.random.default_rng(2).random((2, 3, 12, 10)) < 0.5
    boxes, valid = box_of(masks)
    assert boxes.shape == (2, 3, 4) and valid.shape == (2, 3)
    mapped = jax.jit(jax.vmap(jax.vmap(largest_component_box)))
    np.testing.assert_array_equal(boxes, mapped(masks)[0])


def test_what_is_no_mask_is_an_error():
    with pytest.raises(ValueError, match="bool"):
        largest_component(np.ones((4, 4)))
    with pytest.raises(ValueError, match="expected"):
        largest_component_box(np.ones(4, bool))


def test_box_iou_by_hand():
    a = jnp.array([0.0, 0.0, 1.0, 1.0])
    b = jnp.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 1.5, 1.5], [2.0, 2.0, 3.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(box_iou(a, b), [0.5, 0.25 / 1.75, 0.0, 0.0], atol=1e-7)
    assert box_iou(jnp.zeros(4), jnp.zeros(4)) == 0


@pytest.mark.parametrize("size", [41, 47, 83])
def test_edges_are_exact_shares(size):
    """A division by these sizes is off by a bit where a compiler multiplies by the inverse."""
    boxes, _ = box_of(jnp.ones((size, size), bool))
    np.testing.assert_array_equal(boxes, [0, 0, 1, 1])
    for end in range(1, size):
        boxes, _ = box_of(jnp.arange(size)[None] < jnp.full((size, 1), end))
        assert boxes[3] == np.float32(end / size)


def scipy_components(heat, threshold, least):
    """(peak, box) of each component of a resized map (H, W), by falling peak."""
    found = []
    if heat.max() > 0:
        labels, _ = scipy.ndimage.label(heat > np.float32(threshold) * heat.max(), np.ones((3, 3)))
        for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), 1):
            own = labels == number
            if own.mean() >= least:
                edges = np.array([rows.start, columns.start, rows.stop, columns.stop]) / np.tile(heat.shape, 2)
                found.append((heat[own].max() / heat.max(), *edges))
    return np.array(sorted(found, reverse=True)).reshape(-1, 5)


@pytest.mark.parametrize(
    "shape, size, most, least",
    [((7, 7), (56, 40), 4, 0.0), ((6, 9), (6, 9), 20, 0.02), ((3, 4), (1, 1), 20, 0.0)],
)
def test_boxes_of_all_components_equal_scipy(shape, size, most, least):
    maps = np.random.default_rng(0).normal(size=(12, 2, 1, *shape)).astype(np.float32)
    thresholds = np.float32([0.2, 0.6])
    every = jax.jit(component_boxes_from_maps, static_argnums=1, static_argnames="max_boxes")
    found = jax.device_get(every(maps, size, thresholds, max_boxes=most, min_area=least))
    largest_ones = jax.device_get(jax.jit(scored_box_from_maps, static_argnums=1)(maps, size, thresholds))
    boxes, valid = jax.device_get(jax.jit(boxes_from_maps, static_argnums=1)(maps, size, thresholds))
    np.testing.assert_array_equal(largest_ones.boxes[..., 0, :], boxes)
    np.testing.assert_array_equal(largest_ones.valid[..., 0], valid)
    counts = []
    for place in np.ndindex(12, 2, 2):
        heat = np.asarray(resize_map(maps[*place[:2], 0], size))
        expected = scipy_components(heat, thresholds[place[2]], least)
        counts.append(len(expected))
        own = found.valid[place]
        got = np.concatenate([found.peaks[place][:, None], found.boxes[place]], axis=1)
        np.testing.assert_allclose(got[own], expected[:most], rtol=1e-5, atol=1e-7)
        assert not got[~own].any() and own.tolist() == sorted(own, reverse=True)
        if valid[place]:  # the largest component is one of all, with the same peak
            of_all = scipy_components(heat, thresholds[place[2]], 0)
            (same,) = np.flatnonzero(np.isclose(of_all[:, 1:], boxes[place]).all(1))[:1]
            np.testing.assert_allclose(largest_ones.peaks[place], of_all[same, 0], rtol=1e-5)
    assert max(counts) > 2 or 1 in (shape[0], size[0])


def test_maps_without_a_region_have_no_components():
    maps = np.stack([np.zeros((4, 4)), -np.ones((4, 4)), np.full((4, 4), np.nan), np.eye(4)])
    found = jax.jit(component_boxes_from_maps, static_argnums=1)(maps, (8, 8), 0.2)
    assert found.valid.sum(-1).tolist() == [0, 0, 0, 1] and not found.peaks[:3].any() and not found.boxes[:3].any()
    with pytest.raises(ValueError, match="max_boxes=0: expected at least 1"):
        component_boxes_from_maps(maps, (8, 8), 0.2, max_boxes=0)
