"""The pointing game: the maximum of the resized map, and whether it lies on the object, by plain loops."""

import numpy as np
import pytest

import camjax
from camjax.metrics.localization.pointing import PointingGame

WHOLE = [0.0, 0.0, 1.0, 1.0]


def peak(size, y, x, value=1.0):
    """A map (H, W) of zeros with one maximum."""
    cam = np.zeros(size, np.float32)
    cam[y, x] = value
    return cam


def accuracy(cam, tolerance=0, **objects):
    metric = PointingGame(tolerance)
    metric.update(cam[None], **objects)
    return metric.compute()["pointing_game"]


def box_of_pixels(y0, x0, y1, x1, size):
    """[y0, x0, y1, x1) in pixels, as float32 shares."""
    return (np.array([y0, x0, y1, x1]) / np.tile(size, 2)).astype(np.float32)


@pytest.mark.parametrize("y, x, hit", [(2, 3, 1), (4, 6, 1), (1, 3, 0), (5, 3, 0), (2, 2, 0), (4, 7, 0)])
def test_boxes_are_half_open(y, x, hit):
    size = (10, 12)
    box = box_of_pixels(2, 3, 5, 7, size)
    assert accuracy(peak(size, y, x), true_boxes=[[box]], image_sizes=size) == 100 * hit


def test_any_true_box_will_do():
    size = (10, 10)
    boxes = [box_of_pixels(0, 0, 2, 2, size), box_of_pixels(6, 6, 9, 9, size)]
    assert accuracy(peak(size, 1, 1), true_boxes=[boxes], image_sizes=size) == 100
    assert accuracy(peak(size, 7, 8), true_boxes=[boxes], image_sizes=size) == 100
    # Between them, in the box of both.
    assert accuracy(peak(size, 4, 4), true_boxes=[boxes], image_sizes=size) == 0


def test_a_box_given_in_float32_is_its_pixels_in_images_of_every_size():
    for side in range(1, 400):
        for start in {0, side // 3, side - 1}:
            stop = min(start + 1 + side // 5, side)
            inside = {start, stop - 1}
            outside = {start - 1, stop} - {-1, side}
            box = box_of_pixels(0, start, 1, stop, (1, side))
            for x in inside | outside:
                if side > 1:
                    found = accuracy(peak((1, side), 0, x), true_boxes=[[box]], image_sizes=(1, side))
                    assert found == 100 * (x in inside), (side, start, stop, x)


def test_a_box_between_the_centers_of_pixels_is_the_pixel_around_it():
    size = (4, 4)
    box = [0.30, 0.55, 0.35, 0.60]  # rows 1.2 to 1.4, columns 2.2 to 2.4
    found = [[accuracy(peak(size, y, x), true_boxes=[[box]], image_sizes=size) for x in range(4)] for y in range(4)]
    assert np.argwhere(found).tolist() == [[1, 2]]
    corner = [0.99, 0.99, 1.0, 1.0]
    assert accuracy(peak(size, 3, 3), true_boxes=[[corner]], image_sizes=size) == 100


@pytest.mark.parametrize(
    "y, x, tolerance, hit",
    [
        (50, 66, 15, 1),  # 15 columns right of column 51, the box's last
        (50, 67, 15, 0),
        (42, 63, 15, 1),  # 9 rows and 12 columns away: 15 exactly
        (41, 63, 15, 0),
        (52, 51, 1, 1),
        (52, 52, 1, 0),
        (52, 52, 1.5, 1),
        (51, 51, 0, 1),
        (52, 51, 0, 0),
    ],
)
def test_tolerance_is_the_distance_between_pixels(y, x, tolerance, hit):
    size = (100, 120)
    # Row 51 alone, or, for what lies beside it, rows 40 to 59; columns 30 to 51.
    box = box_of_pixels(40, 30, 60, 52, size) if y == 50 else box_of_pixels(51, 30, 52, 52, size)
    assert accuracy(peak(size, y, x), tolerance, true_boxes=[[box]], image_sizes=size) == 100 * hit


def test_the_maximum_is_that_of_the_map_resized_to_the_image():
    # Upsampled twofold, no pixel has a cell's center: the maximum goes to the side of the larger neighbor.
    cam = np.zeros((3, 3), np.float32)
    cam[1, 1], cam[1, 2], cam[0, 1] = 1.0, 0.5, 0.4
    size = (6, 6)
    resized = np.asarray(camjax.resize_map(cam, size))
    assert np.argwhere(resized == resized.max()).tolist() == [[2, 3]]
    for y in range(6):
        for x in range(6):
            box = box_of_pixels(y, x, y + 1, x + 1, size)
            assert accuracy(cam, true_boxes=[[box]], image_sizes=size) == 100 * ((y, x) == (2, 3))


def test_of_equal_maxima_the_first_in_raster_order():
    cam = np.array([[0, 0, 0], [0, 0, 2], [2, 0, 0]], np.float32)
    masks = [cam * 0]
    masks[0][1, 2] = 1
    assert accuracy(cam, masks=masks) == 100
    # The map keeps its value beyond the outermost centers: the maximum in a corner begins at the corner itself.
    masks = [np.zeros((24, 24), np.uint8)]
    masks[0][0, 0] = 1
    assert accuracy(peak((3, 3), 0, 0), masks=masks) == 100


@pytest.mark.parametrize("cam", [np.zeros((3, 3)), np.full((3, 3), 7.0), peak((3, 3), 1, 1, np.nan)])
def test_a_map_without_a_maximum_is_a_miss_and_counted(cam):
    metric = PointingGame()
    metric.update(np.stack([cam, peak((3, 3), 1, 1, np.inf), peak((3, 3), 1, 1)]), [[WHOLE]] * 3, image_sizes=(9, 9))
    assert metric.compute() == {"pointing_game": pytest.approx(100 / 3)}
    assert (metric.num_images, metric.num_without_maximum) == (3, 2)


def test_a_map_below_zero_has_a_maximum():
    assert accuracy(peak((3, 3), 1, 1) - 5, true_boxes=[[WHOLE]], image_sizes=(9, 9)) == 100
    box = [[0.0, 0.0, 0.3, 0.3]]
    assert accuracy(peak((3, 3), 1, 1) - 5, true_boxes=[box], image_sizes=(9, 9)) == 0


def test_pixels_to_ignore_are_neither_object_nor_maximum():
    cam = np.array([[9, 5, 0], [0, 0, 0]], np.float32)
    assert accuracy(cam, masks=[np.array([[255, 1, 0], [0, 0, 0]], np.uint8)]) == 100
    assert accuracy(cam, masks=[np.array([[255, 0, 1], [0, 0, 0]], np.uint8)]) == 0
    metric = PointingGame()
    metric.update(cam[None], masks=[np.full((2, 3), 255, np.uint8)])
    assert (metric.num_images, metric.num_without_objects) == (1, 1)


def test_images_without_an_object_are_counted_apart():
    metric = PointingGame()
    metric.update(np.stack([peak((3, 3), 1, 1)] * 3), [[WHOLE], [], np.zeros((0, 4))], image_sizes=(5, 5))
    metric.update(peak((3, 3), 1, 1)[None], masks=[np.zeros((5, 5), bool)])
    assert metric.compute() == {"pointing_game": 100.0}
    assert (metric.num_images, metric.num_without_objects) == (4, 3)


# Against plain loops


def random_batch(seed, size=30):
    """Maps, masks of random rectangles in images of several sizes, and the boxes of those rectangles."""
    rng = np.random.default_rng(seed)
    masks, boxes, sizes = [], [], rng.integers(20, 70, (size, 2))
    for height, width in sizes:
        mask = np.zeros((height, width), bool)
        own = []
        for _ in range(rng.integers(0, 4)):
            (y0, y1), (x0, x1) = (np.sort(rng.choice(side, 2, replace=False)) for side in (height, width))
            mask[y0:y1, x0:x1] = True
            own.append(box_of_pixels(y0, x0, y1, x1, (height, width)))
        masks.append(mask)
        boxes.append(np.array(own).reshape(-1, 4))
    return rng.normal(size=(size, 5, 6)).astype(np.float32), masks, boxes, sizes


def bilinear(cells, pixels):
    """(pixels, cells) float64 weights of a line of cells in a line of pixels, with half-pixel centers."""
    weights = np.zeros((pixels, cells))
    for pixel in range(pixels):
        place = np.clip((pixel + 0.5) * cells / pixels - 0.5, 0, cells - 1)
        below = int(place)
        weights[pixel, below] = 1 - (place - below)
        if place > below:
            weights[pixel, below + 1] = place - below
    return weights


def plain_loop(maps, masks, tolerance):
    hits, images = 0, 0
    for cam, mask in zip(maps, masks, strict=True):
        if not mask.any():
            continue
        images += 1
        rows, columns = (bilinear(cells, pixels) for cells, pixels in zip(cam.shape, mask.shape, strict=True))
        point = np.unravel_index((rows @ cam.astype(np.float64) @ columns.T).argmax(), mask.shape)
        hits += any(np.hypot(*(np.array(point) - pixel)) <= tolerance for pixel in np.argwhere(mask))
    return 100 * hits / images


@pytest.mark.parametrize("tolerance", [0, 1, 4.5, 15])
def test_random_batches_equal_a_plain_loop(tolerance):
    maps, masks, boxes, sizes = random_batch(0)
    with_masks, with_boxes = PointingGame(tolerance), PointingGame(tolerance)
    with_masks.update(maps, masks=masks)
    with_boxes.update(maps, boxes, image_sizes=sizes)
    assert with_masks.compute()["pointing_game"] == plain_loop(maps, masks, tolerance)
    assert with_boxes.state() == with_masks.state()
    assert 0 < with_masks.num_without_objects < 30


# Errors


@pytest.mark.parametrize(
    "change, message",
    [
        ({"true_boxes": None, "image_sizes": None}, "either as true_boxes or as masks"),
        ({"masks": [np.ones((4, 4), bool)] * 2}, "either as true_boxes or as masks"),
        ({"image_sizes": None}, "image_sizes=None: expected heights and widths in pixels"),
        ({"image_sizes": [(4, 4)]}, r"expected heights and widths in pixels, \(2, 2\) or \(2,\)"),
        ({"image_sizes": (4, 0)}, "expected heights and widths"),
        ({"image_sizes": (4.5, 4.5)}, "integers"),
        ({"true_boxes": [[WHOLE], [[0, 0, 4, 4]]]}, "true_boxes of row 1"),
        ({"true_boxes": [[WHOLE]]}, "true_boxes of 1 images: expected those of 2"),
        ({"maps": np.zeros((2, 4))}, r"expected \(B, h, w\) floats"),
        ({"maps": np.zeros((2, 4, 4), int)}, r"expected \(B, h, w\) floats"),
        ({"mask": [True]}, r"expected \(2,\) bool"),
        ({"true_boxes": None, "masks": [np.ones((4, 4))] * 2}, "image_sizes with masks: expected none"),
        ({"true_boxes": None, "image_sizes": None, "masks": [np.ones((4, 4))]}, "masks of 1 images"),
        (
            {"true_boxes": None, "image_sizes": None, "masks": [np.ones((4, 4)), np.full((4, 4), 7)]},
            r"masks of row 1: .* values \[7\]",
        ),
        (
            {"true_boxes": None, "image_sizes": None, "masks": [np.ones((4, 4)), np.ones((4, 4, 3))]},
            r"masks of row 1: shape \(4, 4, 3\)",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_added(change, message):
    metric = PointingGame()
    before = metric.state()
    arguments = {"maps": np.stack([peak((2, 2), 0, 1)] * 2), "true_boxes": [[WHOLE]] * 2, "image_sizes": (4, 4)}
    with pytest.raises(ValueError, match=message):
        metric.update(**arguments | change)
    assert metric.state() == before
    with pytest.raises(ValueError, match="has seen no image with an object"):
        metric.compute()


@pytest.mark.parametrize("tolerance", [-1, np.nan, np.inf])
def test_tolerance_out_of_range(tolerance):
    with pytest.raises(ValueError, match="expected pixels, 0 or more"):
        PointingGame(tolerance)
