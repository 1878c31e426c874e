import numpy as np
import scipy.special
from PIL import Image

from camjax.attribution.ten_crop import mean_score_logits, merge_ten_crops, ten_crop_size, ten_crops

rng = np.random.default_rng(0)


def test_sizes():
    # The release: crops of 224 (GoogLeNet, VGG) and of 227 (AlexNet) from 256.
    assert ten_crop_size((224, 224)) == ten_crop_size((227, 227)) == (256, 256)
    assert ten_crop_size((299, 64)) == (336, 72)
    assert all(ten_crop_size((side, side))[0] >= side for side in range(1, 600))


def corners(crops_of, height, width):
    """The five crops of (..., 9, 12) images of `height` x `width`, written out."""
    return [
        crops_of[:, :height, :width],
        crops_of[:, :height, -width:],
        crops_of[:, -height:, :width],
        crops_of[:, -height:, -width:],
        crops_of[:, (9 - height) // 2 : (9 - height) // 2 + height, (12 - width) // 2 : (12 - width) // 2 + width],
    ]


def test_corners_center_and_their_mirror_images():
    images = rng.integers(0, 256, (2, 9, 12, 3), np.uint8)
    crops = np.asarray(ten_crops(images, (6, 7)))
    assert crops.dtype == np.uint8
    for i, crop in enumerate(corners(images, 6, 7)):
        np.testing.assert_array_equal(crops[:, i], crop)
        np.testing.assert_array_equal(crops[:, i + 5], crop[:, :, ::-1])


def test_crops_as_large_as_the_image():
    images = rng.integers(0, 256, (1, 4, 5, 3), np.uint8)
    crops = np.asarray(ten_crops(images, (4, 5)))
    np.testing.assert_array_equal(crops[0, :5], np.repeat(images, 5, 0))


def test_magnitudes_are_added_where_the_crops_lay():
    maps = rng.normal(size=(2, 10, 3, 2, 3)).astype(np.float32)
    merged = merge_ten_crops(maps, (6, 7), (9, 12))
    total = np.zeros((2, 9, 12))
    for image in range(2):
        for crop in range(10):
            # Pillow's bicubic filter is Keys' kernel with a = -0.5, as MATLAB's.
            large = np.abs(Image.fromarray(maps[image, crop, 1]).resize((7, 6), Image.Resampling.BICUBIC))
            corners(total[image : image + 1], 6, 7)[crop % 5][0] += large[:, ::-1] if crop >= 5 else large
    np.testing.assert_allclose(merged[:, 1], total / total.max((1, 2), keepdims=True), atol=1e-5)


def test_a_map_of_one_cell_and_those_that_cannot_be_scaled():
    maps = np.stack([np.full((10, 1, 1), -2.0), np.zeros((10, 1, 1)), np.full((10, 1, 1), np.nan)], axis=1)[None]
    merged = np.asarray(merge_ten_crops(maps, (4, 4), (4, 4)))
    np.testing.assert_array_equal(merged[0, 0], 1)
    np.testing.assert_array_equal(merged[0, 1:], 0)


def test_scores_are_the_mean_of_the_softmax():
    logits = rng.normal(0, 5, (2, 10, 6)).astype(np.float32)
    logits[0, :, 3] = -2000.0  # a score that underflows in every crop keeps a finite logit
    found = np.asarray(mean_score_logits(logits))
    assert np.isfinite(found).all()
    expected = scipy.special.softmax(logits.astype(np.float64), axis=-1).mean(1)
    np.testing.assert_allclose(scipy.special.softmax(found, axis=-1), expected, atol=1e-6)
