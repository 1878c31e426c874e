"""Loading image files: which file an error names, and how resizing and crops place things."""

import jax
import numpy as np
import pytest
from photographs import BLUE, PHOTOS, RED, encode, photo, with_orientation
from PIL import Image

from camjax.data.decoding import ImageError
from camjax.data.images import CropTransform, load_image, load_images, resize_image
from camjax.data.loader import eval_batches

# Errors


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"Dear reader, this is no image.", "not an image.*Dear reader"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "header cannot be read.*complete copy"),
        (b"\xff\xd8\xff\xe0", "not an image"),
        (encode(photo(), "JPEG")[:1000], "cut off"),
    ],
)
def test_errors_name_the_file(tmp_path, content, message):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"holiday\.jpg: .*{message}"):
        load_images([path], 8)


def test_a_directory_and_a_missing_file(tmp_path):
    with pytest.raises(ImageError, match="is a directory; give the image files"):
        load_image(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg does not exist"):
        load_image(tmp_path / "nowhere.jpg")


# Resizing


def rgb(rows):
    """A one-channel picture repeated in three channels."""
    return np.repeat(np.asarray(rows, np.uint8)[..., None], 3, -1)


def test_enlarging_is_linear_between_half_pixel_centers():
    # Centers of 4 pixels over 2: -0.25, 0.25, 0.75, 1.25 in units of the old ones' distance.
    np.testing.assert_array_equal(resize_image(rgb([[0, 200]]), (1, 4)), rgb([[0, 50, 150, 200]]))


def test_shrinking_filters_with_a_triangle():
    # Factor 2: weights 1, 3, 3, 1 (eighths) around each new center.
    impulse = rgb([[0, 0, 0, 240, 0, 0, 0, 0]])
    np.testing.assert_array_equal(resize_image(impulse, (1, 4)), rgb([[0, 90, 30, 0]]))


def test_shrinking_one_axis_while_the_other_grows_does_not_alias():
    stripes = rgb(np.tile([0, 0, 255, 255], (4, 64)))
    resized = resize_image(stripes, (8, 32))
    assert np.ptp(resized[:, 2:-2].astype(int)) <= 16
    assert abs(resized.mean() - 127.5) < 1


@pytest.mark.parametrize("size", [(100, 301), (427, 700)])
def test_agrees_with_jax_antialiased_resize(size):
    image = load_image(PHOTOS[0])
    expected = jax.image.resize(image.astype(np.float32), (*size, 3), "linear", antialias=True)
    assert np.abs(resize_image(image, size) - np.asarray(expected)).max() < 1.6


def test_a_box_is_cut_out():
    image = np.asarray(photo(64, 48))
    np.testing.assert_array_equal(resize_image(image, (12, 32), box=(0.25, 0.5, 0.5, 1)), image[12:24, 32:])


@pytest.mark.parametrize("size", [0, (4,), (4, -1), (4, 4, 3), 3.5, "22", None])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="size is"):
        resize_image(rgb([[0]]), size)


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_bad_images(image):
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        resize_image(image, 2)


@pytest.mark.parametrize("box", [(0, 0, 1.1, 1), (0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, np.nan, 1)])
def test_bad_boxes(box):
    with pytest.raises(ValueError, match="box is"):
        resize_image(rgb([[0]]), 2, box=box)


# Batches and crops


@pytest.fixture
def turned_photo(tmp_path):
    """A portrait as a phone stores it: 60 x 40 (H x W) to see, stored lying, with a red 10 x 8 patch at (20, 12)."""
    upright = np.full((60, 40, 3), 20, np.uint8)
    upright[20:30, 12:20] = RED
    path = tmp_path / "portrait.png"
    stored = np.rot90(upright)
    path.write_bytes(encode(stored, "PNG", exif=with_orientation(6)))
    return path, upright


def test_a_batch_is_squashed_in_order(tmp_path, turned_photo):
    path, upright = turned_photo
    other = tmp_path / "other.png"
    Image.new("RGB", (7, 5), BLUE).save(other)
    batch = load_images([path, str(other)], (30, 20))
    assert batch.shape == (2, 30, 20, 3) and batch.dtype == np.uint8
    np.testing.assert_array_equal(batch[0], resize_image(upright, (30, 20)))
    np.testing.assert_array_equal(batch[1], np.full((30, 20, 3), BLUE))
    np.testing.assert_array_equal(load_images((p for p in [path, other]), [30, 20]), batch)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_single_path_is_a_batch_of_one(turned_photo, kind):
    path, upright = turned_photo
    np.testing.assert_array_equal(load_image(kind(path)), upright)
    assert load_images(kind(path), 16).shape == (1, 16, 16, 3)


def test_no_paths_and_an_unknown_crop():
    with pytest.raises(ValueError, match="paths is empty"):
        load_images([], 8)
    with pytest.raises(ValueError, match="crop is 'middle'"):
        load_images(["x.jpg"], 8, crop="middle")


def test_center_crop_without_a_change_of_scale_copies_pixels(turned_photo):
    path, upright = turned_photo
    batch, (transform,) = load_images(path, 40, crop="center")
    np.testing.assert_array_equal(batch[0], upright[10:50])
    assert transform.box == (10 / 60, 0, 50 / 60, 1)


def test_a_share_of_the_center_crop_is_what_torchvision_and_timm_cut_out(tmp_path):
    """`crop_pct` 0.875: the shorter side to 28 / 0.875 pixels by the filter, then the central 28."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    options = {"crop_share": 0.875, "interpolation": "bicubic"}
    (found,), (transform,) = load_images(tmp_path / "image.png", 28, crop="center", **options)
    whole = np.asarray(Image.fromarray(picture).resize((48, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found, whole[2:30, 10:38])
    assert transform.box == (4 / 64, 20 / 96, 60 / 64, 76 / 96)
    source = [{"image": picture, "label": 0}]
    (batch,) = eval_batches(source, batch_size=1, size=28, crop="center", **options)
    np.testing.assert_array_equal(batch["image"][0], found)
    (squashed,) = eval_batches(source, batch_size=1, size=28, **options)
    np.testing.assert_array_equal(squashed["image"], load_images(tmp_path / "image.png", 28))
    for wrong in ({"crop_share": 0}, {"interpolation": "cubic"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            load_images(tmp_path / "image.png", 28, crop="center", **wrong)
    with pytest.raises(ValueError, match=r'those of crop="center"'):
        load_images(tmp_path / "image.png", 28, **options)


@pytest.mark.parametrize("size", [(24, 24), (20, 40), (48, 16)])
def test_center_crop_is_resize_then_crop(tmp_path, size):
    image = photo(96, 48)
    image.save(tmp_path / "image.png")
    (cropped,), _ = load_images(tmp_path / "image.png", size, crop="center")
    scale = max(size[0] / 48, size[1] / 96)
    rows, columns = round(48 * scale), round(96 * scale)
    whole = np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR)).astype(int)
    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    assert np.abs(cropped - whole[top : top + size[0], left : left + size[1]]).max() <= 1


def test_an_extreme_aspect_still_has_a_crop(tmp_path):
    Image.new("RGB", (1, 500), RED).save(tmp_path / "line.png")
    batch, _ = load_images(tmp_path / "line.png", (2, 200), crop="center")
    np.testing.assert_array_equal(batch, np.full((1, 2, 200, 3), RED))


def test_transform_carries_boxes_both_ways():
    transform = CropTransform((0.0, 0.25, 1.0, 0.75))
    boxes = np.array([[[0, 0, 1, 1], [0.5, 0.5, 0.75, 1.0]]])
    expected = [[[0, 0.25, 1, 0.75], [0.5, 0.5, 0.75, 0.75]]]
    np.testing.assert_allclose(transform.boxes_to_original(boxes), expected, atol=1e-12)
    np.testing.assert_allclose(transform.boxes_from_original(np.array(expected)), boxes, atol=1e-12)
    np.testing.assert_allclose(transform.boxes_from_original([0, 0, 1, 1]), [0, -0.5, 1, 1.5])
    with pytest.raises(ValueError, match=r"shape \(3,\); expected \(\.\.\., 4\)"):
        transform.boxes_to_original([0, 0, 1])


def test_a_box_found_in_the_crop_lies_on_the_object_in_the_photo(turned_photo):
    path, _ = turned_photo
    (view,), (transform,) = load_images(path, 80, crop="center")
    rows, columns = np.nonzero(view[..., 0] > 137)
    box = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / 80
    found = transform.boxes_to_original(box) * [60, 40, 60, 40]
    np.testing.assert_allclose(found, [20, 12, 30, 20], atol=0.51)
