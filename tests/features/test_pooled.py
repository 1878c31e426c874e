"""Pooled features, of whole images and of crops, and networks with a linear classifier for a head."""

import contextlib

import jax
import numpy as np
import pytest
from conftest import STRICT, random_network
from flax import nnx

import camjax
from camjax.data.images import resize_image
from camjax.features import Crops, extract_features, gap_features, map_images, receptive_fields, with_linear_classifier
from camjax.viz import overlay
from tests.experiments.colors import SIDE, TINY, Colors, Identity, painted


def noise(count):
    """Images of several sizes."""
    rng = np.random.default_rng(0)
    shapes = [(20 + 3 * (i % 3), 30 - 2 * (i % 4), 3) for i in range(count)]
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    return Colors(images, [i % 3 for i in range(count)], [[0, 0, 1, 1]] * count)


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_features_are_the_mean_colors_in_the_order_of_the_images(batch_size):
    source = noise(11)
    found = gap_features(Identity(), source, batch_size=batch_size)
    expected = [resize_image(image, (SIDE, SIDE)).mean((0, 1)) / 255 for image in source.images]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float32


def test_features_are_the_average_whatever_the_head():
    model = random_network("small_gap", 5, pool="gmp")
    source = noise(3)
    images = np.stack([resize_image(image, model.input_size) for image in source.images])
    inference = nnx.view(model, use_running_average=True, raise_if_not_found=False)
    expected = np.asarray(jax.jit(lambda model, x: model.features(x))(inference, images)).mean((1, 2))
    np.testing.assert_allclose(gap_features(model, source, batch_size=2), expected, rtol=1e-4, atol=1e-6)


def test_features_of_crops_are_those_of_the_pixels_in_the_box():
    images = [painted((0, 255, 2, 4, 10, 12)), painted((1, 100, 0, 0, 10, 40), size=(20, 40))]
    boxes = np.array([[2 / 16, 4 / 16, 10 / 16, 12 / 16], [0.25, 0.5, 0.75, 1]])
    source = Colors(images, [0, 1], boxes)
    found = gap_features(Identity(), source, boxes=boxes)
    # The first box is the red part. Of the second, rows 5 to 14 of 20, the upper half is green.
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 50 / 255, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ([0, 0, 1, 1], (0, 10), (0, 20)),
        ([0.14, 0.1, 0.46, 0.87], (1, 5), (2, 17)),  # the nearest of 1.4, 4.6 and of 2.0, 17.4
        ([0.31, 0.31, 0.32, 0.32], (3, 4), (6, 7)),  # no edge of a pixel: one pixel
        ([0.99, 0.99, 1, 1], (9, 10), (19, 20)),
        (np.float32([0.1, 0.3, 0.7, 0.9]), (1, 7), (6, 18)),
    ],
)
def test_crops(box, rows, columns):
    image = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    crops = Crops(Colors([image], [2], [box]), np.array([box]))
    np.testing.assert_array_equal(crops[0]["image"], image[slice(*rows), slice(*columns)])
    assert crops[0]["label"] == 2 and len(crops) == 1


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [0.5, 0, 0.4, 1], [-0.1, 0, 1, 1], [0, 0, 1, 1.1], [0, 0, 1, np.nan]])
def test_a_box_that_is_none_is_an_error(box):
    with pytest.raises(ValueError, match="box of image 1"):
        Crops(noise(2), np.array([[0, 0, 1, 1], box]))


def test_a_box_for_each_image():
    with pytest.raises(ValueError, match=r"\(2, 4\) for 3 images"):
        gap_features(Identity(), noise(3), boxes=np.array([[0, 0, 1, 1]] * 2))


def test_map_images_gives_the_function_each_image_with_its_index_once():
    source = Colors([painted((0, i, 0, 0, SIDE, SIDE)) for i in range(7)], [0] * 7, [[0, 0, 1, 1]] * 7)
    done = []
    values, indices = map_images(
        lambda images, indices: (images[:, 0, 0, 0], jax.numpy.asarray(indices)),
        source,
        (SIDE, SIDE),
        batch_size=3,
        progress=lambda *numbers: done.append(numbers),
    )
    assert values.tolist() == indices.tolist() == list(range(7))
    assert done == [(3, 7), (6, 7), (7, 7)]


def test_a_network_with_a_linear_classifier_has_its_decisions_and_maps():
    trained = random_network("small_gap", 10, pool="gmp")
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(128, 7)).astype(np.float32), rng.normal(size=7).astype(np.float32)
    model = with_linear_classifier(trained, kernel, bias)
    source = noise(4)
    images = np.stack([resize_image(image, model.input_size) for image in source.images])
    expected = gap_features(trained, source) @ kernel + bias
    out = camjax.make_cam_fn(model, top_k=None)(images)
    np.testing.assert_allclose(out.logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(out.maps).mean((2, 3)) + bias, expected, rtol=1e-4, atol=1e-4)
    assert model.exact_cam and trained.head.num_classes == 10 and trained.head.pool == "gmp"


def test_a_classifier_of_other_features_is_an_error():
    with pytest.raises(ValueError, match="3 channels"):
        with_linear_classifier(Identity(), np.zeros((4, 7)), np.zeros(7))
    with pytest.raises(ValueError, match=r"bias of shape \(6,\)"):
        with_linear_classifier(Identity(), np.zeros((3, 7)), np.zeros(6))
    with pytest.raises(ValueError, match="bias has numbers that are not finite"):
        with_linear_classifier(Identity(), np.zeros((3, 2)), np.array([0, np.nan]))


@pytest.mark.parametrize(
    ("options", "network"),
    [
        pytest.param(STRICT, lambda: random_network(TINY, 3), id="strict"),
        pytest.param({"jax_disable_jit": True}, Identity, id="without jit"),
        pytest.param(
            {"jax_disable_jit": True},
            lambda: random_network("small_gap", 3),
            id="without jit, a network that compiles each of its operations",
            marks=pytest.mark.long,
        ),
    ],
)
def test_the_same_numbers_whatever_jax_is_set_to(options, network, tmp_path):
    model, source = network(), noise(3)
    kernel, bias = np.random.default_rng(0).normal(size=(model.head.kernel.shape[0], 2)), np.array([0.5, -1])
    images = np.stack([resize_image(image, model.input_size) for image in source.images])

    def found(directory):
        store = extract_features(model, source, directory, batch_size=2)
        classifier = with_linear_classifier(model, kernel, bias)
        return {
            "features": gap_features(model, source, batch_size=2),
            "of boxes": gap_features(model, source, boxes=np.tile([0, 0, 0.5, 0.5], (3, 1)), batch_size=2),
            "stored": store[:],
            "logits": np.asarray(jax.jit(lambda model, images: model(images))(classifier, images[:1])),
            "receptive fields": receptive_fields(model, (16, 12)).boxes(),
            "overlay": overlay(images, np.random.default_rng(1).random((3, 7, 7))),
            "overlay of NaN": overlay(images[0], np.full((7, 7), np.nan)),
        }

    expected = found(tmp_path / "expected")
    with contextlib.ExitStack() as stack:
        for option, value in options.items():
            stack.callback(jax.config.update, option, getattr(jax.config, option))
            jax.config.update(option, value)
        got = found(tmp_path / "got")
    for name, numbers in expected.items():
        assert got[name].dtype == numbers.dtype, name
        np.testing.assert_allclose(got[name], numbers, rtol=1e-5, atol=1e-5, err_msg=name)
