"""Methods of the whole network on changed images: Integrated Gradients, SmoothGrad, occlusion and RISE."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import camjax
from camjax.attribution import (
    METHODS,
    explain_nnx,
    image_gradient,
    integrated_gradients,
    occlusion,
    rise,
    smooth_grad,
    targets,
)
from camjax.attribution.averaged_gradients import noisy
from camjax.attribution.methods import Needs
from camjax.attribution.random_masks import _drawn, rise_masks

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)
IDS = np.array([[1, 0], [2, 1], [0, 2]])
WEIGHTS = (rng.normal(size=(6 * 8 * 3, 3)) / 20).astype(np.float32)
FEW = {
    "integrated_gradients": {"num_steps": 4},
    "smoothgrad": {"num_samples": 3},
    "occlusion": {"window": 3},
    "rise": {"num_masks": 5, "cells": 3},
}
FUNCTIONS = {
    "integrated_gradients": integrated_gradients,
    "smoothgrad": smooth_grad,
    "occlusion": occlusion,
    "rise": rise,
}

every_method = pytest.mark.parametrize("name", FEW)


def linear(weights, images):
    return images.reshape(len(images), -1) @ weights


@jax.jit
def curved(weights, images):
    return jnp.tanh(linear(weights, images) / 20) + (linear(weights, images) / 50) ** 2


masks_of = jax.jit(rise_masks, static_argnums=(1, 2, 3, 4))


def test_every_method_is_here():
    assert set(FEW) == {name for name, row in METHODS.items() if row.needs is Needs.WHOLE_NETWORK}


# Integrated Gradients


@pytest.mark.parametrize("baseline", [0, (10.0, 120.0, 240.0), rng.uniform(0, 255, (3, 6, 8, 3))])
def test_integrated_gradients_sum_to_the_difference_of_the_scores(baseline):
    network = Partial(curved, WEIGHTS)
    maps = integrated_gradients(network, IMAGES, IDS, baseline=baseline, num_steps=30)
    whole, unseen = (network(np.broadcast_to(np.float32(x), IMAGES.shape)) for x in (IMAGES, baseline))
    expected = np.take_along_axis(np.asarray(whole) - np.asarray(unseen), IDS, axis=1)
    assert maps.shape == (3, 2, 6, 8) and (np.abs(expected) > 0.1).any()
    np.testing.assert_allclose(np.asarray(maps).sum((2, 3)), expected, atol=1e-3)


def test_integrated_gradients_by_hand():
    """A product of two pixels is shared between them; a third color has no part in it."""
    images = np.zeros((1, 1, 2, 3))
    images[0, 0, 0, 0], images[0, 0, 1, 1], images[0, 0, 1, 2] = 3, 5, 100
    maps = integrated_gradients(lambda x: (x[:, 0, 0, 0] * x[:, 0, 1, 1])[:, None], images, [0], num_steps=1)
    np.testing.assert_allclose(maps, [[[[7.5, 7.5]]]], rtol=1e-6)
    squares = integrated_gradients(lambda x: (x**2).sum((1, 2, 3))[:, None], images, [0], baseline=1.0, num_steps=2)
    # (x + x_0) (x - x_0), summed over colors.
    np.testing.assert_allclose(squares, [[[[8 - 1 - 1, -1 + 24 + 9999]]]], rtol=1e-5)


# SmoothGrad


def test_smoothgrad_without_noise_is_the_image_gradient_and_with_it_a_mean():
    network = Partial(curved, WEIGHTS)
    plain = smooth_grad(network, IMAGES, IDS, noise=0, num_samples=2)
    np.testing.assert_allclose(plain, jax.jit(image_gradient)(network, IMAGES, IDS), rtol=1e-5)
    # The gradient of sum a x^3 is 3 a x^2, whose mean over noise of deviation s is 3 a (x^2 + s^2).
    image = np.full((1, 16, 16, 1), 2.0)
    image[0, 0, 0] = 12
    found = smooth_grad(lambda x: (x**3).sum((1, 2, 3))[:, None], image, [0], noise=0.3, num_samples=400)
    found = np.asarray(found)[0, 0, 1:]
    assert float(found.mean()) == pytest.approx(3 * (4 + 9), rel=0.02)
    assert float(found.std()) == pytest.approx(3 * np.sqrt(4 * 4 * 9 + 2 * 81) / 20, rel=0.2)


def test_smoothgrad_s_noise_by_hand():
    """Of the image's range, the mean of signed gradients, and then the largest color."""
    key = jax.random.key(5)
    found = smooth_grad(Partial(curved, WEIGHTS), IMAGES, IDS, num_samples=2, noise=0.5, key=key)
    rows = np.array([[image, 0, sample] for image in range(3) for sample in range(2)])
    copies = np.asarray(jax.jit(noisy, static_argnums=1)(key, 0.5, IMAGES, rows[:, 0], rows))
    drawn = (copies - IMAGES[rows[:, 0]]).reshape(3, 2, -1).std(2)
    np.testing.assert_allclose(drawn, 0.5 * np.ptp(IMAGES, (1, 2, 3)).astype(float)[:, None] * np.ones(2), rtol=0.25)
    gradients = np.asarray(jax.jit(jax.vmap(jax.jacrev(lambda x: curved(WEIGHTS, x[None])[0])))(copies))
    expected = np.abs(gradients.reshape(3, 2, 3, 6, 8, 3).mean(1)).max(-1)
    np.testing.assert_allclose(found, np.take_along_axis(expected, IDS[..., None, None], 1), rtol=1e-4)


# Occlusion


def test_occlusion_by_hand():
    """A sum of the pixels, in windows of 2 with a step of 2, the last one cut off by the edge."""
    images = np.array([[[1, 2, 4, 8, 16]]]).transpose(0, 1, 2)[..., None].astype(float)
    network = lambda x: x.sum((1, 2, 3))[:, None]  # noqa: E731
    found = occlusion(network, images, [0], window=(1, 2), stride=(1, 2))
    np.testing.assert_allclose(found, [[[[3, 3, 12, 12, 16]]]])
    # With a step of 1 a pixel is in two windows, at the edges in one.
    found = occlusion(network, images, [0], window=(1, 2), stride=1, baseline=1.0)
    np.testing.assert_allclose(found, [[[[1, (1 + 4) / 2, (4 + 10) / 2, (10 + 22) / 2, 22]]]])
    # By default an eighth of the sides, here one pixel.
    np.testing.assert_allclose(occlusion(network, images, [0]), [[[[1, 2, 4, 8, 16]]]])


def test_occlusion_of_a_linear_network_is_the_mean_over_the_windows_of_a_pixel():
    found = occlusion(Partial(linear, WEIGHTS), IMAGES, IDS, window=(4, 3), stride=(3, 2), baseline=(9.0, 8.0, 7.0))
    shares = (IMAGES - np.array([9.0, 8, 7]))[..., None] * np.asarray(WEIGHTS).reshape(6, 8, 3, 3)
    shares, sums, counts = shares.sum(3), np.zeros((3, 6, 8, 3)), np.zeros((6, 8))
    for top in (0, 3):
        for left in (0, 2, 4, 6):
            place = slice(top, top + 4), slice(left, left + 3)
            sums[:, *place] += shares[:, *place].sum((1, 2))[:, None, None]
            counts[place] += 1
    expected = np.moveaxis(sums / counts[..., None], -1, 1)
    np.testing.assert_allclose(found, np.take_along_axis(expected, IDS[..., None, None], 1), rtol=1e-3, atol=1e-3)


# RISE


def test_rise_s_masks():
    key, size = jax.random.key(3), (9, 14)
    masks = np.asarray(masks_of(key, 40, 4, 0.3, size))
    grids, shifts = map(np.asarray, jax.jit(_drawn, static_argnums=(1, 2, 3, 4))(key, 40, 4, 0.3, size))
    assert {*np.unique(grids)} == {0, 1} and abs(grids.mean() - 0.3) < 0.06
    assert shifts.min() == 0 and shifts.max(0).tolist() == [2, 3]  # of cells of 3 x 4 pixels
    for mask, grid, (top, left) in zip(masks, grids, shifts, strict=True):
        large = cv2.resize(grid, (5 * 4, 5 * 3), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(mask, large[top : top + 9, left : left + 14], atol=1e-5)


def test_rise_is_the_sum_of_masks_by_their_scores():
    """The authors' definition, of probabilities and of other scores; all images have the same masks."""
    key, network = jax.random.key(1), Partial(curved, WEIGHTS)
    masks = np.asarray(masks_of(key, 7, 3, 0.4, (6, 8)))
    seen = 50 + masks[:, None, ..., None] * (IMAGES - 50.0)
    outputs = np.stack([curved(WEIGHTS, copies.astype(np.float32)) for copies in seen])
    options = {"num_masks": 7, "cells": 3, "probability": 0.4, "key": key, "baseline": 50.0}
    for target, scores in ((IDS, outputs), (targets.probabilities(IDS), jax.nn.softmax(outputs))):
        found = rise(network, IMAGES, target, chunk_size=4, **options)
        expected = np.einsum("kbc,khw->bchw", scores, masks) / (7 * 0.4)
        np.testing.assert_allclose(found, np.take_along_axis(expected, IDS[..., None, None], 1), rtol=1e-4, atol=1e-5)


def test_rise_with_masks_that_hide_nothing_is_the_score():
    found = rise(Partial(curved, WEIGHTS), IMAGES, IDS, num_masks=2, probability=1.0)
    scores = np.take_along_axis(np.asarray(curved(WEIGHTS, IMAGES.astype(np.float32))), IDS, 1)
    np.testing.assert_allclose(found, np.broadcast_to(scores[..., None, None], found.shape), rtol=1e-4)


class Colors(camjax.models.CamModel):
    """Its features are the colors of the image; an image has one label, or several."""

    def __init__(self, multi_label):
        super().__init__(input_size=(8, 8), stride=1, mean=(0,) * 3, std=(255,) * 3)
        self.multi_label = multi_label
        self.head = camjax.models.PooledHead(3, 4, rngs=nnx.Rngs(0))

    def backbone(self, x):
        return x


@pytest.mark.parametrize("multi_label", [False, True])
def test_as_a_row_rise_takes_the_probabilities_of_classes(multi_label):
    model, ids = Colors(multi_label), np.array([[3, 0], [1, 2], [0, 0]])
    masks = np.asarray(masks_of(jax.random.key(0), 3, 7, 0.5, (6, 8)))
    logits = np.stack([nnx.jit(Colors.__call__)(model, mask[..., None] * IMAGES) for mask in masks])
    scores = np.exp(logits) / ((1 + np.exp(logits)) if multi_label else np.exp(logits).sum(-1, keepdims=True))
    expected = np.take_along_axis(np.einsum("kbc,khw->bchw", scores, masks) / 1.5, ids[..., None, None], 1)
    cam_fn = camjax.make_cam_fn(model, "rise", num_masks=3)
    explain = camjax.explainer(model.features, model.head)
    for found in (cam_fn(IMAGES, ids), explain(IMAGES, ids, "rise", num_masks=3)):
        np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-4)


# All of them


@every_method
def test_the_same_for_the_same_key_and_whatever_the_chunks(name):
    method, network = FUNCTIONS[name], Partial(curved, WEIGHTS)
    seen = []
    found = np.asarray(method(network, IMAGES, IDS, **FEW[name], chunk_size=4, progress=lambda *at: seen.append(at)))
    assert seen[-1][0] == seen[-1][1] and len(seen) == -(-seen[-1][1] // 4)
    np.testing.assert_allclose(method(network, IMAGES, IDS, **FEW[name]), found, rtol=1e-4, atol=1e-5)
    alone = np.asarray(method(network, IMAGES, IDS[:, 1], **FEW[name]))
    np.testing.assert_allclose(alone[:, 0], found[:, 1], rtol=1e-4, atol=1e-5)
    if METHODS[name].accepted(key=None):
        same, other = (method(network, IMAGES, IDS, **FEW[name], key=jax.random.key(seed)) for seed in (0, 1))
        np.testing.assert_allclose(same, found, rtol=1e-4, atol=1e-5)
        assert np.abs(other - found).max() > 1e-3 * np.abs(found).max()


@every_method
def test_what_does_not_fit_is_an_error(name):
    method, network = FUNCTIONS[name], Partial(linear, WEIGHTS)
    for images, ids, message in (
        (IMAGES[0], IDS, r"images of shape \(6, 8, 3\): expected \(B, H, W, C\)"),
        (IMAGES, [0, 1], "for 3 images"),
        (IMAGES, [0, 1, 3], r"class_ids \[3\] out of range"),
        (IMAGES, lambda outputs: outputs[0], r"expected \(3, N\)"),
    ):
        with pytest.raises(ValueError, match=message):
            method(network, images, ids)
    wrong = {
        "integrated_gradients": [
            ({"num_steps": 0}, "num_steps=0"),
            ({"baseline": (1, 2)}, "expected a number, a color"),
        ],
        "smoothgrad": [({"num_samples": 0}, "num_samples=0"), ({"noise": -1}, "noise=-1")],
        "occlusion": [
            ({"window": 7}, "window=7 of images of 6 x 8 pixels"),
            ({"window": 2, "stride": 3}, "stride=3 of a window of 2 x 2"),
            ({"window": (2, 0)}, "at least 1"),
        ],
        "rise": [({"num_masks": 0}, "num_masks=0"), ({"probability": 0}, "probability=0"), ({"cells": 0}, "cells=0")],
    }
    for options, message in [*wrong[name], ({"chunk_size": 0}, "chunk_size=0")]:
        with pytest.raises(ValueError, match=message):
            method(network, IMAGES, IDS, **options)


class Layers(nnx.Module):
    def __init__(self):
        self.first, self.last = (nnx.Linear(3, 3, rngs=nnx.Rngs(i)) for i in range(2))

    def __call__(self, images):
        return self.last(nnx.tanh(self.first(images / 255))).mean((1, 2))


@pytest.mark.parametrize("name", ["integrated_gradients", "occlusion", "backprop"])
def test_it_does_not_matter_where_the_network_is_cut(name):
    found = [
        explain_nnx(Layers(), layers)(IMAGES, targets.probabilities(IDS), name, **FEW.get(name, {})).maps
        for layers in ("first", ["first", "last"])
    ]
    assert found[0].shape == (3, 2, 6, 8)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-7)
