import jax
import jax.numpy as jnp
import numpy as np
import pytest

import camjax


def test_class_activation_map_by_hand():
    features = np.array([[[1.0, 2.0], [3.0, -1.0]]])  # h = 1, w = 2, K = 2
    kernel = np.array([[1.0, 0.0, 2.0], [10.0, 1.0, 0.0]])
    expected = [[[21.0, -7.0]], [[2.0, -1.0]], [[2.0, 6.0]]]
    np.testing.assert_array_equal(camjax.class_activation_map(features, kernel), expected)
    np.testing.assert_array_equal(camjax.class_activation_map(features, kernel, [2]), expected[2:])


def test_ids_of_a_batch_select_each_images_own_maps():
    rng = np.random.default_rng(0)
    features, kernel = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(5, 40))
    every = camjax.class_activation_map(features, kernel)
    for ids in (np.array([[3], [39]]), rng.integers(0, 40, (2, 30))):
        maps = camjax.class_activation_map(features, kernel, ids)
        np.testing.assert_allclose(maps, np.take_along_axis(every, ids[..., None, None], 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("extra", [0, 30])
def test_traced_ids_out_of_range_give_nan_and_never_a_neighbors_map(extra):
    features, kernel = np.ones((1, 2, 2, 3)), np.ones((3, 10))
    ids = jnp.array([[0, 10, -1] + [1] * extra])
    maps = jax.jit(camjax.class_activation_map)(features, kernel, ids)
    assert np.isnan(maps[0, 1:3]).all() and np.isfinite(maps[0, 0]).all()


def test_shapes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="expected features"):
        camjax.class_activation_map(np.ones((2, 2, 3)), np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"write \[c\]"):
        camjax.class_activation_map(np.ones((2, 2, 3)), np.ones((3, 5)), 1)


def test_resize_has_half_pixel_centers():
    np.testing.assert_allclose(camjax.resize_map(np.array([[0.0, 4.0]]), (1, 4)), [[0.0, 1.0, 3.0, 4.0]], atol=1e-6)


def test_normalize_map():
    maps = np.array([[[1.0, 3.0]], [[5.0, 5.0]], [[-4.0, -2.0]], [[np.nan, 1.0]]])
    np.testing.assert_allclose(camjax.normalize_map(maps), [[[0, 1]], [[0, 0]], [[0, 1]], [[0, 0]]])
    expected = [[[1 / 3, 1]], [[0, 0]], [[0, 0]], [[0, 0]]]
    np.testing.assert_allclose(camjax.normalize_map(maps, "max"), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="minmax"):
        camjax.normalize_map(maps, "sum")


def test_labels_of_zeros_and_ones_are_no_class_ids():
    features, kernel = jnp.ones((2, 3, 3, 4)), jnp.ones((4, 5))
    with pytest.raises(ValueError, match="zeros and ones for 5 classes: they look like labels"):
        camjax.class_activation_map(features, kernel, [[0, 1, 0, 0, 1], [1, 0, 0, 0, 0]])
    assert camjax.class_activation_map(features, kernel[:, :2], [[0, 1], [1, 0]]).shape == (2, 2, 3, 3)
    assert camjax.class_activation_map(features, kernel, [[0, 1, 0], [1, 0, 0]]).shape == (2, 3, 3, 3)
