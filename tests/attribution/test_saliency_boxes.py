from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos
from test_components import scipy_box

from camjax.attribution.saliency_boxes import object_mask, saliency_boxes

SIDE = 40
rng = np.random.default_rng(0)


def picture(*rectangles):
    """(40, 40, 3) uint8: red rectangles (y0, x0, y1, x1) on blue, both with some noise."""
    image = rng.normal((40, 60, 170), 8, (SIDE, SIDE, 3))
    for y0, x0, y1, x1 in rectangles:
        image[y0:y1, x0:x1] = rng.normal((200, 50, 30), 8, (y1 - y0, x1 - x0, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def rectangle_mask(y0, x0, y1, x1):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def saliency_of(marks, objects):
    """(40, 40) saliency: high in the marks, middling in the rest of the objects, low in the background."""
    saliency = rng.uniform(0, 0.1, (SIDE, SIDE))
    for rectangle in objects:
        saliency[rectangle_mask(*rectangle)] += 0.2
    for rectangle in marks:
        saliency[rectangle_mask(*rectangle)] = 1
    return saliency.astype(np.float32)


RED = (8, 10, 30, 26)
IMAGE = picture(RED)
SALIENCY = saliency_of([(16, 14, 24, 22)], [RED])  # 64 of 1600 pixels, in the middle of the red rectangle


def test_colors_carry_the_mark_from_a_part_to_the_whole_object():
    # The rectangle has 352 pixels; 80 are above the 95 % quantile of the saliency.
    np.testing.assert_array_equal(object_mask(IMAGE, SALIENCY), rectangle_mask(*RED))


def test_the_color_of_what_is_background_for_certain_is_not_carried():
    # Low saliency in the rectangle's lower half: red is a color of the background as well, and the cut stays close to
    # the mark.
    saliency = np.where(np.arange(SIDE)[:, None] < 24, SALIENCY, 0)
    mask = object_mask(IMAGE, saliency)
    assert not mask[24:].any() and mask[16:24, 14:22].all()


def test_certain_pixels_stay_as_they_are():
    image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    saliency = rng.uniform(size=(SIDE, SIDE))
    mask = object_mask(image, saliency)
    low, high = np.quantile(saliency, [0.3, 0.95])
    assert (saliency > high).sum() == 80 and mask[saliency > high].all()
    assert (saliency <= low).sum() == 480 and not mask[saliency <= low].any()


def test_boxes_are_those_of_the_largest_component():
    small, large = (3, 3, 9, 9), (15, 12, 36, 30)
    image = picture(small, large)
    saliency = saliency_of([(4, 4, 8, 8), (20, 16, 24, 26)], [small, large])
    mask = object_mask(image, saliency)
    assert mask[rectangle_mask(*small) | rectangle_mask(*large)].mean() > 0.99
    boxes, valid = saliency_boxes(image[None], saliency[None, None])
    assert valid.tolist() == [[True]]
    np.testing.assert_allclose(boxes[0, 0], scipy_box(mask), atol=1e-6)
    np.testing.assert_allclose(np.asarray(boxes[0, 0]) * SIDE, large, atol=1.01)


def test_a_map_that_marks_nothing_has_no_box():
    maps = np.stack([SALIENCY, np.zeros_like(SALIENCY), np.full_like(SALIENCY, 3), SALIENCY * np.nan, SALIENCY])
    maps[4, 0, 0] = np.inf
    boxes, valid = saliency_boxes(IMAGE[None], maps[None])
    assert valid.tolist() == [[True, False, False, False, False]]
    np.testing.assert_array_equal(boxes[0, 1:], 0)


def test_saliency_that_is_zero_almost_everywhere_marks_what_is_not():
    saliency = np.zeros((SIDE, SIDE), np.float32)
    saliency[18, 15] = 1.0  # one pixel alone, of which five colors have to be made
    mask = object_mask(IMAGE, saliency)
    assert mask[18, 15] and mask.sum() == 1  # all others are at the quantile of the background


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 30)])
def test_images_of_few_pixels(shape):
    saliency = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    mask = object_mask(np.full((*shape, 3), 77, np.uint8), saliency)
    assert mask.shape == shape and mask.any() == (saliency.size > 1)


def test_a_box_is_a_function_of_its_image_and_map_alone():
    # Photographs, on which the color models depend on where k-means begins.
    images = photos((96, 96))
    y, x = np.mgrid[:96, :96] - 48
    maps = rng.gamma(1, size=(2, 2, 96, 96)) + 2 * np.exp(-(y**2 + x**2) / 800)
    boxes, _ = saliency_boxes(images, maps)
    for i in range(2):
        alone, _ = saliency_boxes(images[i : i + 1], maps[i : i + 1, ::-1])
        np.testing.assert_array_equal(np.asarray(alone)[0, ::-1], np.asarray(boxes)[i])
    mask = object_mask(images[1], maps[1, 0])
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(lambda _: object_mask(images[1], maps[1, 0]), range(12)):
            np.testing.assert_array_equal(other, mask)


def test_float_images_are_rounded_and_results_lie_on_the_device_of_the_maps():
    maps = jnp.asarray(SALIENCY)[None, None]
    expected, _ = saliency_boxes(IMAGE[None], maps)
    boxes, valid = saliency_boxes(IMAGE[None] + np.float32(0.4), maps)
    np.testing.assert_array_equal(boxes, expected)
    assert boxes.devices() == valid.devices() == maps.devices() == {jax.devices()[0]}
    np.testing.assert_allclose(np.asarray(boxes[0, 0]) * SIDE, RED, atol=1e-5)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r"images of shape \(1, 40, 40, 3\) and saliency of shape \(2, 1, 40, 40\)"):
        saliency_boxes(IMAGE[None], np.zeros((2, 1, SIDE, SIDE)))
