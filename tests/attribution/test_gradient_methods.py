"""Methods that weigh by gradients: networks small enough for pencil and paper, and the identities of pooled ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camjax.attribution import grad_cam, grad_cam_plus_plus, hires_cam, layer_cam, xgrad_cam
from camjax.cam import class_activation_map

METHODS = [grad_cam, grad_cam_plus_plus, xgrad_cam, hires_cam, layer_cam]
RECTIFIED = [grad_cam, grad_cam_plus_plus, layer_cam]

F = jnp.array([[1.0, 2], [3, 4]])
G = jnp.array([[1.0, 0], [0, 1]])
FEATURES = jnp.stack([F, G], -1)[None]


def head_fn(features):
    """Two scores: dS_0/dF is [[2, 0], [0, -1]] and dS_0/dG is [[0, 3], [1, 0]]; S_1 is -S_0."""
    f, g = features[..., 0], features[..., 1]
    score = 2 * f[:, 0, 0] - f[:, 1, 1] + 3 * g[:, 0, 1] + g[:, 1, 0]
    return jnp.stack([score, -score], 1)


def both(method) -> np.ndarray:
    return np.asarray(method(head_fn, FEATURES, np.array([[0, 1]])))[0]


def test_grad_cam_by_hand():
    # a = (1/4, 1): F/4 + G, and its negative, rectified.
    np.testing.assert_allclose(both(grad_cam), [[[1.25, 0.5], [0.75, 2]], [[0, 0], [0, 0]]])


def test_grad_cam_plus_plus_by_hand():
    # Sums: F 10, G 2. Shares 1 / (2 + sum * g): F at g = 2: 1/22, at -1: 1/-8. G at 3: 1/8, at 1: 1/4.
    # Weights of relu(g): F 2/22, G 3/8 + 1/4. For -S_0: F at g = -2: 1/-18, at 1: 1/12; G at -3: 1/-4, at -1: infinite;
    # relu leaves F's 1/12 alone.
    first = np.asarray(F) / 11 + 0.625 * np.asarray(G)
    np.testing.assert_allclose(both(grad_cam_plus_plus), [first, np.asarray(F) / 12], rtol=1e-6)


def test_xgrad_cam_by_hand():
    # sum f g: F 2 - 4 = -2, over 10; G nothing.
    np.testing.assert_allclose(both(xgrad_cam), [-np.asarray(F) / 5, np.asarray(F) / 5], rtol=1e-6)


def test_hires_cam_by_hand_sums_to_the_score():
    expected = np.array([[2.0, 0], [0, -4]])
    np.testing.assert_allclose(both(hires_cam), [expected, -expected])
    np.testing.assert_allclose(both(hires_cam).sum((1, 2)), head_fn(FEATURES)[0])


def test_layer_cam_by_hand():
    np.testing.assert_allclose(both(layer_cam), [[[2, 0], [0, 0]], [[0, 0], [0, 4]]])


rng = np.random.default_rng(0)
KERNEL = rng.normal(size=(6, 4)).astype(np.float32)
RANDOM = rng.uniform(size=(3, 5, 7, 6)).astype(np.float32)
TARGETS = np.array([[3, 0], [1, 1], [0, 2]])


def gap_head(features):
    return features.mean((1, 2)) @ KERNEL + 1.0


@pytest.mark.parametrize("method", [xgrad_cam, hires_cam])
def test_after_average_pooling_they_are_the_class_activation_map_over_its_cells(method):
    cam = np.asarray(class_activation_map(RANDOM, KERNEL, TARGETS))
    maps = np.asarray(method(gap_head, RANDOM, TARGETS))
    np.testing.assert_allclose(maps, cam / (5 * 7), atol=1e-6)
    np.testing.assert_allclose(maps.sum((2, 3)) + 1, np.take_along_axis(gap_head(RANDOM), TARGETS, 1), atol=1e-5)


def test_layer_cam_after_average_pooling_is_the_map_of_the_positive_weights():
    expected = np.asarray(class_activation_map(RANDOM, np.maximum(KERNEL, 0), TARGETS)) / (5 * 7)
    np.testing.assert_allclose(layer_cam(gap_head, RANDOM, TARGETS), expected, atol=1e-6)


def test_xgrad_cam_sums_to_the_score_of_a_network_without_biases():
    first = rng.normal(size=(6, 8)).astype(np.float32)
    second = rng.normal(size=(8, 4)).astype(np.float32)

    def head(features):
        return jax.nn.relu(features @ first).mean((1, 2)) @ second

    maps = np.asarray(xgrad_cam(head, RANDOM, TARGETS))
    np.testing.assert_allclose(maps.sum((2, 3)), np.take_along_axis(head(RANDOM), TARGETS, 1), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_dead_and_constant_features_have_finite_maps(method):
    for value in (0.0, 2.0):
        maps = np.asarray(method(gap_head, np.full((3, 5, 7, 6), value, np.float32), TARGETS))
        assert np.isfinite(maps).all() and np.ptp(maps, (2, 3)).max() < 1e-6
        assert value or not maps.any()


@pytest.mark.parametrize("method", METHODS)
def test_not_a_number_stays_with_its_image(method):
    broken = RANDOM.copy()
    broken[1, 2, 3, 4] = np.nan
    maps, whole = np.asarray(method(gap_head, broken, TARGETS)), np.asarray(method(gap_head, RANDOM, TARGETS))
    assert np.isnan(maps[1]).any(axis=(1, 2)).all()
    np.testing.assert_allclose(maps[[0, 2]], whole[[0, 2]], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_maps_that_are_negative_everywhere(method):
    head = lambda features: -features.mean((1, 2))  # noqa: E731
    maps = np.asarray(method(head, RANDOM, np.array([0, 1, 2])))
    assert (maps == 0).all() if method in RECTIFIED else (maps < 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_small_gradients_are_not_lost(method):
    """Of a head whose scores are tiny: float32 has room for them, but not for their third power."""
    small = np.asarray(method(lambda features: 1e-14 * gap_head(features), RANDOM, TARGETS))
    large = np.asarray(method(lambda features: 1e-7 * gap_head(features), RANDOM, TARGETS))
    np.testing.assert_allclose(small * 1e14, large * 1e7, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_in_float32_out_and_one_program_for_all_targets(method):
    features = jnp.asarray(RANDOM, jnp.bfloat16)
    compiled = jax.jit(lambda features, targets: method(gap_head, features, targets))
    for targets in (TARGETS, TARGETS[::-1]):
        maps = compiled(features, targets)
        assert maps.dtype == jnp.float32 and maps.shape == (3, 2, 5, 7)
        np.testing.assert_allclose(maps, method(gap_head, np.asarray(features, np.float32), targets), atol=1e-5)
    assert compiled._cache_size() == 1


def test_wrong_shapes_are_said():
    with pytest.raises(ValueError, match=r"features of shape \(5, 7, 6\): expected \(B, h, w, K\)"):
        hires_cam(gap_head, RANDOM[0], [1])
    with pytest.raises(ValueError, match="for 3 images"):
        hires_cam(gap_head, RANDOM, [1, 2])
