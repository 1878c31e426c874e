import pickle
from collections import Counter

import numpy as np
import pytest
from conftest import photos

from camjax.data.images import resize_image
from camjax.data.transforms import (
    compose,
    random_horizontal_flip,
    random_resized_crop,
    random_translation,
    resize_then_random_crop,
)


def test_translation_moves_the_image_by_up_to_max_shift():
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    allowed = {padded[y : y + 9, x : x + 12].tobytes() for y in range(5) for x in range(5)}
    rng = np.random.default_rng(1)
    seen = {random_translation(image, rng, max_shift=2).tobytes() for _ in range(400)}
    assert seen == allowed


def test_flip_mirrors_half_of_the_images():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    rng = np.random.default_rng(0)
    flipped = [random_horizontal_flip(image, rng) for _ in range(200)]
    mirrored = sum(np.array_equal(result, image[:, [3, 2, 1, 0]]) for result in flipped)
    assert mirrored + sum(np.array_equal(result, image) for result in flipped) == 200
    assert 70 < mirrored < 130


class FixedDraws:
    """A generator whose uniform draws, and places of a crop as shares of the room, are given."""

    def __init__(self, *uniform, place=(0.0, 0.0)):
        self._uniform, self._place = list(uniform), list(place)

    def uniform(self, low, high):
        value = self._uniform.pop(0)
        assert low - 1e-9 <= value <= high + 1e-9
        return value

    def integers(self, room):
        return round(self._place.pop(0) * (room - 1))


def test_a_crop_has_the_drawn_area_and_aspect():
    # 0.5 of 100 x 200 pixels is 10,000; at width / height 4/3 that is 86.6 x 115.5.
    crop = random_resized_crop(32)
    rng = FixedDraws(0.5, np.log(4 / 3), place=(0.5, 1.0))
    assert crop.draw((100, 200), rng) == (6, 200 - 115, 87, 115)


def test_a_crop_that_does_not_fit_is_drawn_again():
    # All of 100 x 200 pixels as a square has a side of 141; a quarter of it fits, with 71.
    crop = random_resized_crop(32)
    assert crop.draw((100, 200), FixedDraws(1.0, 0.0, 0.25, 0.0)) == (0, 0, 71, 71)


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        ((100, 400), (0, 133, 100, 133)),  # too wide: 4/3 of the height, in the middle
        ((400, 100), (133, 0, 133, 100)),  # too tall: 4/3 of the width
        ((1, 400), (0, 199, 1, 1)),
    ],
)
def test_after_ten_draws_the_center_is_taken(image_size, expected):
    crop = random_resized_crop(32, scale=(0.9, 1.0))
    rng = FixedDraws(*[1.0, 0.0] * 10)
    assert crop.draw(image_size, rng) == expected
    assert rng._uniform == []


def test_crops_stay_inside_and_in_their_ranges():
    crop = random_resized_crop(32, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    rng = np.random.default_rng(0)
    y, x, height, width = np.transpose([crop.draw((300, 400), rng) for _ in range(2000)])
    assert y.min() == 0 and x.min() == 0 and (y + height).max() == 300 and (x + width).max() == 400
    share, aspect = height * width / 120_000, width / height
    assert 0.198 < share.min() < 0.203 and 0.495 < share.max() < 0.502
    assert 0.495 < aspect.min() < 0.52 and 1.9 < aspect.max() < 2.02
    # The logarithm of the aspect is uniform, but for the wide and tall ones that do not fit.
    assert abs(np.mean(aspect < 1) - 0.5) < 0.06


def test_a_crop_of_the_whole_image_is_the_image_resized():
    image = photos()[0]
    same = random_resized_crop((224, 224), scale=(1, 1), ratio=(1, 1))(image, np.random.default_rng(0))
    np.testing.assert_array_equal(same, image)
    # Half the size: the mean of 2 x 2 pixels, rounded.
    half = random_resized_crop(112, scale=(1, 1), ratio=(1, 1))(image, np.random.default_rng(0))
    expected = image.reshape(112, 2, 112, 2, 3).mean((1, 3))
    assert abs(half - expected).max() <= 0.5


def test_an_image_that_grows_is_interpolated_linearly():
    image = photos((50, 60))[1]
    large = random_resized_crop((110, 144), scale=(1, 1), ratio=(1.2, 1.2))(image, np.random.default_rng(0))
    assert abs(large.astype(int) - resize_image(image, (110, 144))).max() <= 1


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0])
def test_shrinking_is_antialiased(scale):
    # Stripes of one pixel have a mean of 127.5; a filter that skips pixels shows stripes.
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    image = random_resized_crop(64, scale=(scale, scale))(stripes, np.random.default_rng(0))
    assert abs(image - 127.5).max() < 45 and image.std() < 25
    image = np.mean(photos((600, 600)), axis=0).astype(np.uint8)
    crop = random_resized_crop(96, scale=(scale, scale))
    y, x, height, width = crop.draw((600, 600), np.random.default_rng(1))
    difference = crop(image, np.random.default_rng(1)) - resize_image(image[y : y + height, x : x + width], 96) * 1.0
    assert np.sqrt(np.mean(difference**2)) < 3


def test_squash_then_crop_is_a_window_of_the_squashed_image():
    image = photos((300, 400))[0]
    squashed = resize_image(image, (64, 80))
    transform = resize_then_random_crop((64, 80), (60, 70))
    windows = {squashed[y : y + 60, x : x + 70].tobytes(): (y, x) for y in range(5) for x in range(11)}
    rng = np.random.default_rng(0)
    seen = Counter(windows[transform(image, rng).tobytes()] for _ in range(600))
    assert len(seen) == 55 and max(seen.values()) < 30


def test_squash_then_crop_of_the_recipes():
    image = photos((375, 500))[1]
    result = resize_then_random_crop()(image, np.random.default_rng(3))
    squashed = resize_image(image, 256)
    assert result.shape == (224, 224, 3) and result.dtype == np.uint8
    assert any(np.array_equal(result, squashed[y : y + 224, x : x + 224]) for y in range(33) for x in range(33))


def test_transforms_in_a_row():
    image = photos((40, 50))[0]
    both = compose(random_resized_crop(16), random_horizontal_flip)
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(5):
        expected = random_horizontal_flip(random_resized_crop(16)(image, other), other)
        np.testing.assert_array_equal(both(image, rng), expected)
    assert compose()(image, rng) is image


def test_transforms_can_be_pickled_and_printed():
    augment = compose(random_resized_crop(16, ratio=(1, 2)), resize_then_random_crop(12, 10), random_horizontal_flip)
    assert repr(augment) == (
        "compose(random_resized_crop((16, 16), scale=(0.08, 1.0), ratio=(1.0, 2.0)), "
        "resize_then_random_crop((12, 12), (10, 10)), random_horizontal_flip)"
    )
    copy = pickle.loads(pickle.dumps(augment))
    assert copy == augment and repr(copy) == repr(augment)
    image = photos((40, 50))[0]
    results = [transform(image, np.random.default_rng(0)) for transform in (augment, copy)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_resized_crop(0), r"size is 0; height and width must be at least 1"),
        (lambda: random_resized_crop("big"), r"size is 'big'; expected \(H, W\)"),
        (
            lambda: random_resized_crop(8, scale=(0.5, 0.1)),
            r"scale is \(0.5, 0.1\); expected 0 < least <= greatest <= 1",
        ),
        (lambda: random_resized_crop(8, scale=(0, 1)), r"scale is \(0, 1\)"),
        (lambda: random_resized_crop(8, scale=(0.5, 1.5)), r"scale is \(0.5, 1.5\)"),
        (lambda: random_resized_crop(8, ratio=(-1, 1)), r"ratio is \(-1, 1\); expected 0 < least <= greatest$"),
        (lambda: resize_then_random_crop(100, 101), r"size is 101, and resize 100; expected a size that fits"),
        (lambda: resize_then_random_crop((100, 0), 10), r"resize is \(100, 0\)"),
    ],
)
def test_what_a_transform_cannot_be_made_of(make, message):
    with pytest.raises(ValueError, match=message):
        make()
