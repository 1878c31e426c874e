"""Principal components: maps of one direction by hand, others against NumPy's SVD, and signs that are not chance."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camjax.attribution import METHODS, eigen_cam, eigen_grad_cam, explainer, hires_cam
from camjax.attribution.decomposition import kernel_component, principal_component

rng = np.random.default_rng(0)
KERNEL = rng.normal(size=(6, 4)).astype(np.float32)
FEATURES = rng.normal(size=(3, 2, 3, 6)).astype(np.float32) ** 2
IDS = np.array([[3, 0], [1, 1], [0, 2]])


def head_fn(features):
    return jnp.tanh(features).mean((1, 2)) @ KERNEL


def by_svd(terms):
    """(h, w, K) -> (h, w): the first principal component, of positive covariance with the sum over the channels."""
    cells = terms.reshape(-1, terms.shape[-1]).astype(np.float64)
    centered = cells - cells.mean(0)
    component = centered @ np.linalg.svd(centered)[2][0]
    component *= np.sign(component @ cells.sum(1))
    return component.reshape(terms.shape[:2])


def test_of_one_direction_by_hand():
    # Channels (1, 3, 4) + a (0, 3, 4) with a = 0, 1, 2, 5, whose mean is 2: a length of 5 a step. Then its opposite,
    # where the sums of channels rise with -a.
    steps = np.array([[0.0, 1], [2, 5]])
    terms = np.array([1.0, 3, 4]) + steps[..., None] * np.array([0.0, 3, 4])
    expected = 5 * (steps - 2)
    for wide in (terms, np.concatenate([terms, np.zeros((2, 2, 5))], -1)):
        np.testing.assert_allclose(principal_component(wide), expected, atol=1e-5)
        np.testing.assert_allclose(principal_component(-wide), -expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 6), (3, 4, 5), (1, 4, 9), (5, 5, 2)])
def test_is_that_of_numpy_s_svd(shape):
    terms = rng.normal(size=(2, 4, *shape)) ** 3
    found = np.asarray(principal_component(terms))
    assert found.shape == (2, 4, *shape[:2]) and found.dtype == np.float32
    expected = np.array([[by_svd(t) for t in image] for image in terms])
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.mean((-2, -1)), 0, atol=1e-5)


def test_lapack_gets_one_matrix_at_a_time():
    """Of a batch it waits for threads of the pool that it runs on: two such calls at a time never end on two cores."""
    terms = np.ones((2, 3, 2, 3, 6), np.float32)
    both = jax.jit(lambda terms: (principal_component(terms), kernel_component(terms)))
    program = both.trace(terms).lower(lowering_platforms=("cpu",)).as_text()
    matrices = re.findall(r"@lapack_ssyevd_ffi.*?: \(tensor<([\dx]+)xf32>\)", program)
    assert {*matrices} == {"6x6"}, program


def test_where_channels_sum_to_nothing_the_furthest_cell_is_positive():
    # As behind a layer normalization. One cell of four stands out, either way.
    first = np.array([[0.0, 0], [0, 1]])
    terms = np.stack([first, -first], -1)
    expected = np.sqrt(2) * (first - 0.25)
    np.testing.assert_allclose(principal_component(terms), expected, atol=1e-6)
    np.testing.assert_allclose(principal_component(-terms), expected, atol=1e-6)
    random = rng.normal(size=(4, 4, 32)).astype(np.float32)
    random[2, 1] += 3 * rng.normal(size=32)
    normalized = (random - random.mean(-1, keepdims=True)) / random.std(-1, keepdims=True)
    for sign in (1, -1):
        found = np.asarray(principal_component(sign * normalized))
        assert found.flat[np.abs(found).argmax()] > 0


@pytest.mark.parametrize("channels", [3, 300])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_constant_terms_give_zeros(value, channels):
    # A mean of equal numbers is not one of them but for rounding.
    terms = np.full((7, 7, channels), value) * np.linspace(0.1, 1, channels)
    np.testing.assert_array_equal(principal_component(terms), np.zeros((7, 7)))


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_squares_out_of_the_range_of_float32(scale):
    expected = np.asarray(principal_component(FEATURES))
    np.testing.assert_allclose(principal_component(FEATURES * np.float32(scale)), expected * scale, rtol=1e-4)


def test_nan_is_that_of_its_own_image():
    features = FEATURES.copy()
    features[1, 0, 2, 3] = np.nan
    for method in (eigen_cam, eigen_grad_cam):
        maps, expected = np.asarray(method(head_fn, features, IDS)), np.asarray(method(head_fn, FEATURES, IDS))
        assert np.isnan(maps[1]).all()
        np.testing.assert_array_equal(maps[[0, 2]], expected[[0, 2]])


def test_eigen_cam_is_one_map_for_all_targets():
    maps = eigen_cam(head_fn, FEATURES, IDS)
    assert maps.shape == (3, 2, 2, 3) and maps.dtype == jnp.float32
    expected = np.array([by_svd(image) for image in FEATURES])
    np.testing.assert_allclose(maps, np.stack([expected, expected], 1), atol=1e-5)
    np.testing.assert_array_equal(eigen_cam(head_fn, FEATURES, IDS[:, 0]), maps[:, :1])


def test_eigen_cam_takes_no_gradient():
    def without_derivative(features):
        return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((3, 4), np.float32), features.mean((1, 2)) @ KERNEL)

    np.testing.assert_array_equal(eigen_cam(without_derivative, FEATURES, IDS), eigen_cam(head_fn, FEATURES, IDS))


def test_eigen_grad_cam_is_of_features_times_gradients_and_agrees_with_hires_cam():
    maps = np.asarray(eigen_grad_cam(head_fn, FEATURES, IDS))
    gradients = (1 - np.tanh(FEATURES) ** 2)[:, None] * KERNEL.T[IDS][:, :, None, None] / 6
    expected = np.array([[by_svd(f * g) for g in one] for f, one in zip(FEATURES, gradients, strict=True)])
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    hires = np.asarray(hires_cam(head_fn, FEATURES, IDS))
    assert ((maps * (hires - hires.mean((2, 3), keepdims=True))).sum((2, 3)) > 0).all()


@pytest.mark.parametrize(("name", "method"), [("eigencam", eigen_cam), ("eigengradcam", eigen_grad_cam)])
def test_by_name_in_a_jit_and_in_bfloat16(name, method):
    expected = np.asarray(method(head_fn, FEATURES, IDS))
    explain = explainer(lambda images: images, head_fn)
    np.testing.assert_allclose(explain(FEATURES, IDS, name).maps, expected, atol=1e-6)
    assert METHODS[name].options == ()
    compiled = jax.jit(lambda features, targets: method(head_fn, features, targets))
    for _ in range(3):
        np.testing.assert_allclose(compiled(FEATURES, IDS), expected, atol=1e-6)
    assert compiled._cache_size() == 1
    low = jnp.asarray(FEATURES, jnp.bfloat16)
    maps = method(head_fn, low, IDS)
    assert maps.dtype == jnp.float32
    np.testing.assert_array_equal(maps, method(head_fn, low.astype(jnp.float32), IDS))


@pytest.mark.parametrize("method", [eigen_cam, eigen_grad_cam])
def test_what_does_not_fit(method):
    with pytest.raises(ValueError, match=r"features of shape \(2, 3, 6\)"):
        method(head_fn, FEATURES[0], [0])
    with pytest.raises(ValueError, match="for 3 images"):
        method(head_fn, FEATURES, [0])
    with pytest.raises(ValueError, match=r"class_ids \[4\] out of range"):
        method(head_fn, FEATURES, [0, 1, 4])
