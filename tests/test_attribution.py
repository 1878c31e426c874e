import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camjax.attribution import grad_cam, image_gradient, output_gradients
from camjax.cam import class_activation_map

rng = np.random.default_rng(0)
FEATURES = rng.normal(size=(3, 5, 7, 6)).astype(np.float32)
KERNEL = rng.normal(size=(6, 4)).astype(np.float32)
TARGETS = np.array([[3, 0], [1, 1], [0, 2]])


compiled_grad_cam = jax.jit(grad_cam, static_argnums=0)


def gap_head(features):
    return features.mean((1, 2)) @ KERNEL + 1.0


def gmp_head(features):
    return features.max((1, 2)) @ KERNEL + 1.0


@pytest.mark.parametrize("head_fn", [gap_head, gmp_head])
def test_with_pooling_and_a_dense_layer_it_is_the_rectified_cam_over_its_cells(head_fn):
    cam = np.asarray(class_activation_map(FEATURES, KERNEL, TARGETS))
    maps = compiled_grad_cam(head_fn, FEATURES, TARGETS)
    assert maps.dtype == jnp.float32 and (np.asarray(maps) > 0).any()
    np.testing.assert_allclose(maps, np.maximum(cam, 0) / (5 * 7), atol=1e-6)
    # Another number of targets is another program, which may round otherwise.
    of_one = compiled_grad_cam(head_fn, FEATURES, TARGETS[:, 0])
    np.testing.assert_allclose(of_one[:, 0], maps[:, 0], rtol=1e-5, atol=1e-7)


def test_grad_cam_by_hand():
    first, second = jnp.array([[1.0, 2], [3, 4]]), jnp.array([[1.0, 0], [0, 1]])

    def head_fn(features):
        f, g = features[..., 0], features[..., 1]
        # dS_0/df = f, whose mean is 2.5; dS_0/dg is -4 in one cell, with a mean of -1. S_1 falls with f everywhere.
        return jnp.stack([(f * f).sum((1, 2)) / 2 - 4 * g[:, 0, 0], -f.sum((1, 2))], axis=1)

    maps = grad_cam(head_fn, jnp.stack([first, second], -1)[None], np.array([[0, 1]]))
    np.testing.assert_allclose(maps[0], [[[1.5, 5], [7.5, 9]], [[0, 0], [0, 0]]])


def test_the_forward_pass_is_made_once_for_any_number_of_targets():
    calls = []

    def head_fn(features):
        calls.append(features.shape)
        return gap_head(features)

    grad_cam(head_fn, FEATURES, np.zeros((3, 9), int))
    assert calls == [FEATURES.shape]


def test_bfloat16_features_give_float32_maps():
    features = jnp.asarray(FEATURES, jnp.bfloat16)
    maps = grad_cam(gap_head, features, TARGETS)
    assert maps.dtype == jnp.float32
    np.testing.assert_array_equal(maps, grad_cam(gap_head, np.asarray(features, np.float32), TARGETS))
    np.testing.assert_allclose(maps, grad_cam(gap_head, FEATURES, TARGETS), atol=3e-3)


WEIGHTS = rng.normal(size=(4 * 3 * 3, 2)) / 50


def smooth_scores(images, xp):
    """(B, 4, 3, 3) -> (B, 2), by JAX or by NumPy in double precision."""
    flat = images.reshape(len(images), -1) / 25
    return xp.sin(flat @ WEIGHTS) + xp.tanh(flat**2 @ WEIGHTS / 5)


def test_the_image_gradient_is_that_of_finite_differences():
    images = rng.integers(0, 256, (2, 4, 3, 3)).astype(np.uint8)
    compiled = jax.jit(lambda images, ids: image_gradient(lambda x: smooth_scores(x, jnp), images, ids))
    maps = compiled(images, np.array([[1, 0], [0, 1]]))
    assert maps.shape == (2, 2, 4, 3) and maps.dtype == jnp.float32
    gradient = np.zeros((2, 2, 4, 3, 3))
    for place in np.ndindex(4, 3, 3):
        step = np.zeros((4, 3, 3))
        step[place] = 1e-4
        change = smooth_scores(images + step, np) - smooth_scores(images - step, np)
        gradient[(slice(None), slice(None), *place)] = change / 2e-4
    expected = np.abs(gradient).max(-1)
    np.testing.assert_allclose(maps[0], expected[0, [1, 0]], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(maps[1], expected[1, [0, 1]], rtol=1e-3, atol=1e-6)


def test_the_image_gradient_takes_the_color_of_largest_magnitude():
    weights = np.array([[[1.0, -5, 2], [0, 0, 0]]])  # (1, 2, 3)
    maps = image_gradient(lambda x: (x * weights).sum((1, 2, 3))[:, None], np.zeros((1, 1, 2, 3)), [0])
    np.testing.assert_array_equal(maps, [[[[5, 0]]]])


def test_scores_and_gradients_come_from_one_pass():
    calls = []

    def function(x):
        calls.append(1)
        return gap_head(x)

    outputs, gradients = output_gradients(function, FEATURES)
    np.testing.assert_allclose(outputs, gap_head(FEATURES), rtol=1e-5)
    found = gradients(jnp.argmax(outputs, axis=1))
    assert found.shape == (3, 1, 5, 7, 6) and calls == [1]
    for image, target in enumerate(np.argmax(outputs, axis=1)):
        np.testing.assert_allclose(found[image, 0], np.broadcast_to(KERNEL[:, target] / 35, (5, 7, 6)), rtol=1e-6)


def test_inside_a_jit_it_compiles_once_and_an_id_out_of_range_is_nan():
    compiled = jax.jit(lambda features, targets: grad_cam(gap_head, features, targets))
    found = compiled(FEATURES, TARGETS)
    np.testing.assert_allclose(found, grad_cam(gap_head, FEATURES, TARGETS), atol=1e-6)
    wrong = np.asarray(compiled(FEATURES + 1, np.array([[0, 4], [-1, 1], [2, 3]])))
    assert compiled._cache_size() == 1
    assert np.isnan(wrong).all((-2, -1)).tolist() == [[False, True], [True, False], [False, False]]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1], r"for 3 images: expected integers of shape \(3,\)"),
        ([[0], [1]], "for 3 images"),
        ([0, 1, 4], r"class_ids \[4\] out of range: the model has classes 0\.\.3"),
        ([[0], [-1], [1]], r"\[-1\] out of range"),
        ([0.0, 1.0, 2.0], "float64"),
        (0, r"shape \(\)"),
    ],
)
def test_bad_targets(targets, message):
    for call in (lambda t: grad_cam(gap_head, FEATURES, t), lambda t: output_gradients(gap_head, FEATURES)[1](t)):
        with pytest.raises(ValueError, match=message):
            call(targets)


def test_bad_arrays():
    with pytest.raises(ValueError, match=r"features of shape \(5, 7, 6\).*features\[None\]"):
        grad_cam(gap_head, FEATURES[0], [0])
    with pytest.raises(ValueError, match=r"images of shape \(4, 4, 3\)"):
        image_gradient(gap_head, np.zeros((4, 4, 3)), [0])
    with pytest.raises(ValueError, match=r"scores of shape \(3, 5, 7\) for 3 images: expected \(3, C\)"):
        grad_cam(lambda x: x.mean(-1), FEATURES, [0, 0, 0])
