"""Smoothing: the copies that maps are the mean of, each brought back to its image; components in place of sums."""

import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from camjax.attribution import (
    augmentation_smoothing,
    eigen_grad_cam,
    eigen_smoothing,
    explainer,
    grad_cam,
    hires_cam,
    output_gradients,
)
from camjax.attribution.decomposition import principal_component

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
COLOR = np.array([100.0, 120, 140])


def position_maps(images, targets):
    """(B, 2, h, w): brightness, and brightness times the column, which tells a mirrored image from its original."""
    gray = images.mean(-1)
    return jnp.stack([gray, gray * jnp.arange(images.shape[2])], 1)


def test_maps_of_mirrored_copies_are_turned_back():
    maps = augmentation_smoothing(position_maps, IMAGES, None, factors=[1.0])
    gray = IMAGES.mean(-1)
    # A column x is column 5 - x of the mirrored copy: their mean is 2.5 everywhere.
    np.testing.assert_allclose(maps, np.stack([gray, gray * 2.5], 1), rtol=1e-6)
    plain = augmentation_smoothing(position_maps, IMAGES, None, factors=[1.0], flip=False)
    np.testing.assert_allclose(plain, np.stack([gray, gray * np.arange(6)], 1), rtol=1e-6)


@pytest.mark.parametrize("baseline", [0.0, COLOR])
def test_factors_move_pixels_from_the_baseline(baseline):
    seen = []

    def squares(images, targets):
        seen.append(np.asarray(images))
        return (images**2).sum(-1)[:, None]

    factors = (0.5, 1.0, 2.0)
    maps = augmentation_smoothing(squares, IMAGES, None, factors=factors, flip=False, baseline=baseline)
    copies = [baseline + factor * (IMAGES - np.float64(baseline)) for factor in factors]
    np.testing.assert_allclose(seen, copies, atol=1e-4)
    np.testing.assert_allclose(maps[:, 0], np.mean([(c**2).sum(-1) for c in copies], 0), rtol=1e-5)
    assert seen[0].dtype == np.float32


def test_maps_of_scaled_copies_come_to_the_largest_of_their_sizes():
    shapes = []

    def gray(images, targets):
        shapes.append(images.shape)
        return images.mean(-1)[:, None]

    maps = augmentation_smoothing(gray, IMAGES, None, factors=[1.0], scales=[1, 2, 0.5], flip=False)
    assert shapes == [(2, 4, 6, 3), (2, 8, 12, 3), (2, 2, 3, 3)] and maps.shape == (2, 1, 8, 12)
    first = IMAGES[0].astype(np.float32)
    enlarged = cv2.resize(first, (12, 8), interpolation=cv2.INTER_LINEAR).mean(-1)
    reduced = np.asarray(jax.image.resize(first, (2, 3, 3), "linear")).mean(-1)
    expected = (2 * enlarged + cv2.resize(reduced, (12, 8), interpolation=cv2.INTER_LINEAR)) / 3
    np.testing.assert_allclose(maps[0, 0], expected, atol=1e-2)


def test_around_an_explainer():
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    explain = explainer(lambda x: jnp.tanh(x / 100), lambda f: (f.mean((1, 2)) + f[:, 0, 0]) @ kernel)
    ids, calls = np.array([[0, 1, 2], [3, 1, 0]]), []

    def maps_fn(images, targets):
        calls.append(targets)
        return explain(images, targets, "hirescam").maps

    maps = augmentation_smoothing(maps_fn, IMAGES, ids)
    assert maps.shape == (2, 3, 4, 6) and maps.dtype == jnp.float32 and len(calls) == 6
    assert all(targets is ids for targets in calls)
    expected = 0
    for factor, mirrored in itertools.product((0.9, 1, 1.1), (False, True)):
        copies = IMAGES * np.float32(factor)
        one = np.asarray(maps_fn(copies[:, :, ::-1] if mirrored else copies, ids))
        expected += (one[..., ::-1] if mirrored else one) / 6
    np.testing.assert_allclose(maps, expected, atol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda x: augmentation_smoothing(maps_fn, x, ids))(IMAGES), maps, atol=1e-6)


def test_eigen_smoothing():
    features = rng.normal(size=(2, 3, 4, 6)).astype(np.float32) ** 2
    kernel = rng.normal(size=(6, 4)).astype(np.float32)
    ids = np.array([[3, 0], [1, 2]])

    def head_fn(features):
        return jnp.tanh(features).mean((1, 2)) @ kernel

    gradients = output_gradients(head_fn, features)[1](ids)
    maps = np.asarray(eigen_smoothing(jnp.asarray(features, jnp.bfloat16), gradients.mean((2, 3))))
    assert maps.shape == (2, 2, 3, 4) and maps.dtype == np.float32
    maps = np.asarray(eigen_smoothing(features, gradients.mean((2, 3))))
    for image, target in np.ndindex(2, 2):
        weights = np.asarray(gradients[image, target].mean((0, 1)))
        np.testing.assert_allclose(maps[image, target], principal_component(features[image] * weights), atol=1e-6)
    sums = np.asarray(grad_cam(head_fn, features, ids) - grad_cam(lambda f: -head_fn(f), features, ids))
    assert ((maps * sums).sum((2, 3)) > 0).all()
    # Weights of each place: Eigen-Grad-CAM, whose sum is HiResCAM.
    np.testing.assert_allclose(eigen_smoothing(features, gradients), eigen_grad_cam(head_fn, features, ids), atol=1e-6)
    # Where one channel alone has a weight, its map without the mean.
    alone = np.zeros((2, 1, 6), np.float32)
    alone[..., 4] = 2
    expected = 2 * (features[..., 4] - features[..., 4].mean((1, 2), keepdims=True))
    np.testing.assert_allclose(eigen_smoothing(features, alone)[:, 0], expected, atol=1e-5)
    np.testing.assert_allclose(hires_cam(head_fn, features, ids), (features[:, None] * gradients).sum(-1), atol=1e-6)


def test_what_does_not_fit():
    for options in ({"factors": []}, {"scales": ()}, {"scales": [1.0, 0]}):
        with pytest.raises(ValueError, match="expected at least one, and scales > 0"):
            augmentation_smoothing(position_maps, IMAGES, None, **options)
    with pytest.raises(ValueError, match=r"images of shape \(4, 6, 3\)"):
        augmentation_smoothing(position_maps, IMAGES[0], None)
    features = np.zeros((2, 3, 4, 6))
    for shape in ((2, 6), (3, 1, 6), (2, 1, 5), (2, 1, 4, 3, 6)):
        with pytest.raises(ValueError, match=r"expected \(2, N, 6\) or \(2, N, 3, 4, 6\)"):
            eigen_smoothing(features, np.zeros(shape))
