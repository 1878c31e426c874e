"""Insertion, deletion, drop, gain, sensitivity-n and sparsity, on networks whose answers are known in closed form."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from skimage import metrics as skimage_metrics

import camjax
from camjax.metrics import (
    FAITHFULNESS,
    arcc,
    confidence_change,
    deletion_curve,
    gini_index,
    insertion_curve,
    max_sensitivity,
    random_logit,
    relative_confidence_drop,
    road,
    sensitivity_n,
    structural_similarity,
)
from camjax.metrics.faithfulness.insertion_deletion import blurred

SIZE = (4, 6)
PIXELS = 24


def weighted_sums(weights, images):
    """Scores (B, C): sums of the red channel by weights (C, H, W)."""
    return jnp.einsum("bhw,chw->bc", images[..., 0], weights, precision="highest")


def brightness(images):
    """Probabilities of two classes: how bright the image is, and how dark."""
    bright = images.mean((1, 2, 3)) / 255
    return jnp.stack([bright, 1 - bright], axis=1)


def linear(weights):
    return Partial(weighted_sums, jnp.asarray(weights, jnp.float32))


def red_and_class(images, class_ids):
    """Maps (B, H, W): the red channel, from the other side for odd classes."""
    red = images[..., 0].astype(jnp.float32)
    return jnp.where((class_ids % 2 == 1)[:, None, None], red[:, :, ::-1], red)


def random_images(batch, size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (batch, *size, 3), dtype=np.uint8)


def random_maps(batch, size=SIZE, seed=1):
    return np.random.default_rng(seed).normal(size=(batch, *size)).astype(np.float32)


# Curves


@pytest.mark.parametrize("equal", [False, True])
def test_the_area_says_when_the_one_pixel_that_counts_is_deleted(equal):
    # The score is 1 as long as pixel (2, 1), of place r in the order, is there: the area is (r + 1/2) / N.
    weights = np.zeros((1, *SIZE))
    weights[0, 2, 1] = 1 / 200
    maps = np.zeros((1, *SIZE), np.float32) if equal else random_maps(1)
    place = 2 * SIZE[1] + 1 if equal else int((maps[0] > maps[0, 2, 1]).sum())  # raster order where all are equal
    images = np.full((1, *SIZE, 3), 200, np.uint8)
    curve = deletion_curve(linear(weights), images, maps, [0], baseline=0, step=1)
    np.testing.assert_allclose(curve.scores[0], np.arange(PIXELS + 1) <= place, rtol=1e-6)
    np.testing.assert_allclose(curve.area, (place + 0.5) / PIXELS, rtol=1e-6)


def test_a_score_that_is_the_mean_falls_along_a_line_whatever_the_map():
    weights = np.full((1, *SIZE), 1 / (100 * PIXELS))
    curve = deletion_curve(linear(weights), np.full((2, *SIZE, 3), 100.0), random_maps(2), [0, 0], baseline=0, step=5)
    np.testing.assert_allclose(curve.fractions, [0, 5 / 24, 10 / 24, 15 / 24, 20 / 24, 1])
    np.testing.assert_allclose(curve.scores, np.tile(1 - curve.fractions, (2, 1)), atol=1e-6)
    np.testing.assert_allclose(curve.area, [0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("step", [None, 7, PIXELS])
def test_curves_of_a_linear_network_are_cumulative_sums(step):
    images, maps, weights = random_images(3), random_maps(3), random_maps(2, seed=2)
    ids, color = np.array([1, 0, 1]), (10.0, 20.0, 30.0)
    inserted = insertion_curve(linear(weights), images, maps, ids, step=step, chunk_size=5)
    deleted = deletion_curve(linear(weights), images, maps, ids, step=step, baseline=color, chunk_size=4)
    levels = np.append(np.arange(0, PIXELS, step or SIZE[1]), PIXELS)
    for i in range(3):
        order = np.argsort(-maps[i].ravel(), kind="stable")
        seen = images[i, ..., 0].astype(np.float64)
        hidden = cv2.GaussianBlur(images[i].astype(np.float64), (11, 11), 5)[..., 0]
        for curve, start, end in ((inserted, hidden, seen), (deleted, seen, np.full(SIZE, color[0]))):
            contributions = (weights[ids[i]] * (end - start)).ravel()[order]
            scores = (weights[ids[i]] * start).sum() + np.append(0, np.cumsum(contributions))[levels]
            np.testing.assert_allclose(curve.scores[i], scores, rtol=1e-4, atol=0.02)
            np.testing.assert_allclose(curve.area[i], np.trapezoid(scores, levels / PIXELS), rtol=1e-4, atol=0.02)


def test_the_blur_is_opencv_s():
    images = random_images(1, (14, 9)).astype(np.float32)
    np.testing.assert_allclose(blurred(images)[0], cv2.GaussianBlur(images[0], (11, 11), 5), atol=1e-3)


def test_maps_are_resized_to_the_images():
    weights, images, maps = random_maps(1, seed=3), random_images(1), random_maps(1, (2, 3))
    whole = deletion_curve(linear(weights), images, np.asarray(camjax.resize_map(maps, SIZE)), [0])
    np.testing.assert_array_equal(deletion_curve(linear(weights), images, maps, [0]).scores, whole.scores)


# Drop, increase and gain


def test_drop_increase_and_gain_by_hand():
    # Half of the image is shown: the brightness of 0.5 falls to 0.25, the darkness rises to 0.75.
    half = np.zeros((1, *SIZE), np.float32)
    half[:, :, :3] = 5
    images = np.full((4, *SIZE, 3), 127.5, np.float32)
    images[2] = 0
    images[3] = 255
    maps, ids = np.repeat(half - 2, 4, axis=0), np.array([0, 1, 0, 0])
    change = confidence_change(brightness, images, maps, ids, baseline=0)
    np.testing.assert_allclose(change.before, [0.5, 0.5, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(change.after, [0.25, 0.75, 0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(change.drop, [0.5, 0, 0, 0.5], rtol=1e-6)  # 0 of 0 is no drop
    np.testing.assert_allclose(change.gain, [0, 0.5, 0, 0], rtol=1e-6)  # nor is a gain on 1
    assert change.increase.tolist() == [False, True, False, False]
    metric = FAITHFULNESS["confidence"](baseline=0)
    metric.update(brightness, images, maps, ids)
    expected = {"average_drop": 25, "increase_in_confidence": 25, "average_gain": 12.5}
    assert metric.compute() == pytest.approx(expected, rel=1e-6)


def test_a_constant_map_shows_nothing_and_logits_are_refused():
    images, maps = np.full((1, *SIZE, 3), 200, np.uint8), np.ones((1, *SIZE), np.float32)
    change = confidence_change(brightness, images, maps, [0], baseline=(51, 51, 51))
    np.testing.assert_allclose([change.before[0], change.after[0]], [200 / 255, 0.2], rtol=1e-5)
    with pytest.raises(ValueError, match=r"probabilities from .* expected 0\.\.1"):
        confidence_change(lambda images: 3 * brightness(images), images, maps, [0])


# Sensitivity-n


def test_sensitivity_of_linear_networks():
    # Red alone counts, and x_0 is 0: a pixel's contribution is w x. For sets of any size, sums of two quantities
    # correlate as the quantities themselves do, up to the number of sets.
    weights, images = random_maps(2, seed=4), random_images(2, seed=5)
    maps = weights * images[..., 0]

    def correlations(maps):
        options = {"baseline": 0, "fractions": (0.05, 0.5), "num_subsets": 1000, "chunk_size": 500}
        return sensitivity_n(linear(weights), images, maps, [0, 1], **options)

    np.testing.assert_allclose(correlations(maps), 1, atol=1e-4)
    np.testing.assert_allclose(correlations(3 - maps), -1, atol=1e-4)
    np.testing.assert_array_equal(correlations(0 * maps), 0)

    others = random_maps(2, seed=6) + maps / 200
    found = correlations(others)
    for of_image, own, other in zip(found, maps, others, strict=True):
        np.testing.assert_allclose(of_image, np.corrcoef(own.ravel(), other.ravel())[0, 1], atol=0.08)


# Relative confidence drop


def colors(images):
    """Probabilities of three classes: the mean red, green and blue of the left half, and of a fourth, the rest."""
    means = images[:, :, :3].mean((1, 2)) / 765
    return jnp.concatenate([means, 1 - means.sum(1, keepdims=True)], axis=1)


def test_relative_drop_by_hand():
    # Red 0.3, green 0.2, blue 0.1 of the left half; 3 of its 12 pixels lose their red, and one tenth of the green.
    images = np.broadcast_to(np.array([0.9, 0.6, 0.3]) * 255, (2, *SIZE, 3)).astype(np.float32)
    maps = np.zeros((2, *SIZE), np.float32)
    maps[:, 1, :3] = 3, 2, 1
    maps[1] = maps[1, :, ::-1]  # of the other half, where nothing counts
    drops = np.array([0.3, 0.2 - 0.18, 0, -0.3 - 0.02]) * 3 / 12
    options = {"fraction": 3 / 24, "baseline": (0, 0.54 * 255, 0.3 * 255)}

    def found(**given):
        return relative_confidence_drop(colors, images, maps, [0, 0], **options, **given)

    # The most probable other class is the fourth, of 0.4, then green.
    np.testing.assert_allclose(found(), [drops[0] - drops[3], 0], atol=1e-6)
    np.testing.assert_allclose(found(num_look_alikes=2), [drops[0] - drops[[1, 3]].mean(), 0], atol=1e-6)
    np.testing.assert_allclose(found(look_alikes=[[1, 2], [3, 1]]), [drops[0] - drops[1:3].mean(), 0], atol=1e-6)


# ARCC


def test_arcc_by_hand():
    """Of a map that shows the left half: brightness falls to a half, and the map of what is seen is the red."""
    images = np.full((1, *SIZE, 3), 200, np.float32)
    images[0, :2, :, 0] = 100
    maps = np.zeros((1, *SIZE), np.float32)
    maps[:, :, :2] = 7  # a third
    options = {"fractions": (0.25, 0.5), "noise": 0, "baseline": 0}
    found = arcc(brightness, images, maps, [0], red_and_class, **options)
    seen = np.where(maps > 0, images[..., 0], 0)
    coherency = (np.corrcoef(maps.ravel(), seen.ravel())[0, 1] + 1) / 2
    kept = 1 - (images.mean() - (images * (maps > 0)[..., None]).mean()) / images.mean()
    removed = float(2 * road(brightness, images, maps, [0], fractions=(0.25, 0.5), noise=0).combined[0])
    np.testing.assert_allclose(found.coherency, coherency, rtol=1e-5)
    np.testing.assert_allclose(found.complexity, 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(found.adcc, 3 / (1 / coherency + 1 / (2 / 3) + 1 / kept), rtol=1e-5)
    expected = 3 / (1 / coherency + 1 / (2 / 3) + 1 / removed) if removed > 0 else 0
    np.testing.assert_allclose(found.arcc, expected, rtol=1e-4)
    # A map of everything has no color left to tell apart: nothing is seen, and a part is 0.
    constant = arcc(brightness, images, 0 * maps + 1, [0], red_and_class, **options)
    assert constant.adcc.tolist() == [0] and constant.coherency.tolist() == [0.5]


# Max-sensitivity


def test_max_sensitivity_by_hand():
    """Maps that are the red channel change by the noise itself."""
    images = np.full((2, *SIZE, 3), 100, np.float32)
    maps = images[..., 0]
    found = max_sensitivity(brightness, images, maps, [0, 0], red_and_class, radius=30, num_samples=3)
    assert found[0] == found[1]  # the noise is the same
    # The root of the mean square of uniform noise is radius / sqrt(3); 24 pixels, the largest of three.
    np.testing.assert_allclose(found, 30 / np.sqrt(3) / 100, rtol=0.3)
    np.testing.assert_allclose(
        max_sensitivity(brightness, images, maps, [0, 0], red_and_class, radius=15, num_samples=3), found / 2, rtol=1e-4
    )
    steady = max_sensitivity(brightness, images, maps, [0, 0], lambda images, ids: jnp.asarray(maps))
    assert steady.tolist() == [0, 0]
    metric = FAITHFULNESS["max_sensitivity"]()
    with pytest.raises(ValueError, match=r"max_sensitivity of rows \[0, 1\] is not a finite number"):
        metric.update(brightness, images, 0 * maps, [0, 0], maps_fn=red_and_class)
    with pytest.raises(ValueError, match="needs maps of changed images or other classes: expected maps_fn"):
        metric.update(brightness, images, maps, [0, 0])
    assert metric.num_images == 0


# Random logit


@pytest.mark.parametrize("size", [(20, 24), (5, 4)])
def test_structural_similarity_is_scikit_image_s(size):
    maps, others = random_maps(3, size), random_maps(3, size, seed=2)
    others[1] = maps[1] + others[1] / 5
    others[2] = 0
    expected = [
        skimage_metrics.structural_similarity(
            a,
            b,
            win_size=min(7, *size) - 1 + min(7, *size) % 2,
            data_range=max(a.max(), b.max()) - min(a.min(), b.min()),
        )
        for a, b in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(maps, others), expected, atol=1e-4)
    np.testing.assert_allclose(structural_similarity(maps, maps), 1, atol=1e-5)
    assert structural_similarity(0 * maps, 0 * maps).tolist() == [1, 1, 1]


def test_random_logit_of_two_classes_is_the_other_one():
    images = random_images(3)
    maps = np.asarray(red_and_class(images, np.array([1, 0, 1])))
    found = random_logit(brightness, images, maps, [1, 0, 1], red_and_class)
    scaled = maps / maps.max((1, 2), keepdims=True)
    np.testing.assert_allclose(found, structural_similarity(scaled, scaled[:, :, ::-1]), atol=1e-4)
    # Maps that do not look at the class stay as they are.
    np.testing.assert_allclose(random_logit(brightness, images, maps, [1, 0, 1], lambda *_: maps), 1, atol=1e-5)
    with pytest.raises(ValueError, match="1 class: expected at least 2"):
        random_logit(lambda images: brightness(images)[:, :1], images, maps, [0, 0, 0], red_and_class)


def test_random_logit_draws_other_classes_alike_for_all_images_of_a_class():
    asked = []

    def maps_fn(images, class_ids):
        asked.append(np.asarray(class_ids))
        return red_and_class(images, class_ids)

    ids = np.array([2, 0, 1, 2, 0, 1])
    for seed in range(6):
        random_logit(network(), random_images(6), random_maps(6), ids, maps_fn, key=jax.random.key(seed))
    others = np.array(asked)
    assert (others != ids).all() and (others[:, :3] == others[:, 3:]).all() and ((others >= 0) & (others < 3)).all()
    assert all(len({*column}) == 2 for column in others.T)


# Sparsity


def test_the_gini_index_by_hand_and_by_its_formula():
    one, equal, ramp = [[0, 0], [-7, 0]], [[-2, 2], [2, 2]], [[1, 2], [3, 4]]
    maps = np.array([one, equal, ramp, np.zeros((2, 2))])
    # 1 - 2 (1 * 3.5 + 2 * 2.5 + 3 * 1.5 + 4 * 0.5) / (10 * 4)
    np.testing.assert_allclose(gini_index(maps), [0.75, 0, 0.25, 0], atol=1e-6)
    maps = random_maps(5, (7, 9)).astype(np.float64)
    values = np.sort(np.abs(maps.reshape(5, -1)), axis=1)
    expected = 1 - 2 * (values / values.sum(1, keepdims=True) * (63 - np.arange(1, 64) + 0.5) / 63).sum(1)
    np.testing.assert_allclose(gini_index(maps), expected, rtol=1e-5)
    np.testing.assert_allclose(gini_index(1e30 * maps), expected, rtol=1e-5)


# All of them, by name

SMALL = {
    "insertion": {"step": 9},
    "deletion": {"step": 9, "baseline": 50},
    "confidence": {},
    "road": {"fractions": (0.3, 0.6)},
    "sensitivity_n": {"fractions": (0.2, 0.5), "num_subsets": 4},
    "sparsity": {},
    "arcc": {"fractions": (0.3, 0.6)},
    "relative_drop": {"num_look_alikes": 2},
    "max_sensitivity": {"num_samples": 2},
    "random_logit": {},
}


def softmax_of(weights, images):
    return jax.nn.softmax(weighted_sums(weights, images))


def network(seed=7):
    return Partial(softmax_of, jnp.asarray(random_maps(3, seed=seed) / 300))


@pytest.mark.parametrize("name", sorted(FAITHFULNESS.keys() - {"sparsity", "max_sensitivity", "random_logit"}))
def test_chunks_do_not_matter(name):
    images, maps, ids = random_images(2), random_maps(2), np.array([0, 2])
    whole, chunks = FAITHFULNESS[name](**SMALL[name]), FAITHFULNESS[name](**SMALL[name], chunk_size=3)
    for metric in (whole, chunks):
        metric.update(network(), images, maps, ids, maps_fn=red_and_class)
    assert chunks.compute() == pytest.approx(whole.compute(), rel=1e-4, abs=1e-5)
    assert chunks.options == whole.options


@pytest.mark.parametrize(
    "change, message",
    [
        ({"maps": np.full((2, *SIZE), np.nan, np.float32)}, r"maps of rows \[0, 1\] hold NaN or infinity"),
        ({"maps": random_maps(3)}, r"expected floats of shape \(2, h, w\)"),
        ({"maps": random_maps(2)[0]}, r"expected floats of shape \(2, h, w\)"),
        ({"maps": np.ones((2, *SIZE), int)}, "expected floats"),
        ({"images": random_images(2).transpose(0, 3, 1, 2)}, "Channels come last"),
        ({"class_ids": [0, 3]}, r"class_ids \[3\] out of range"),
        ({"class_ids": [-1, 0]}, r"class_ids \[-1\] out of range"),
        ({"class_ids": [[0], [1]]}, r"expected \(2,\), one class an image"),
        ({"class_ids": [0.0, 1.0]}, "integers"),
        ({"class_ids": [0]}, "for 2 images"),
        ({"probabilities_fn": lambda images: images[:, 0, 0, 0]}, r"expected \(2, C\)"),
        ({"mask": [True]}, r"expected \(2,\) bool"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_added(change, message):
    metric = FAITHFULNESS["sparsity"]()
    before = metric.state()
    arguments = {
        "probabilities_fn": network(),
        "images": random_images(2),
        "maps": random_maps(2),
        "class_ids": [0, 1],
    }
    with pytest.raises(ValueError, match=message):
        metric.update(**arguments | change)
    assert metric.state() == before
    with pytest.raises(ValueError, match="has seen no image"):
        metric.compute()


@pytest.mark.parametrize("name", sorted(FAITHFULNESS))
def test_every_metric_looks_at_class_ids_and_scores(name):
    metric = FAITHFULNESS[name](**SMALL[name])
    with pytest.raises(ValueError, match=r"class_ids \[3\] out of range"):
        metric.update(network(), random_images(2), random_maps(2), [0, 3], maps_fn=red_and_class)
    with pytest.raises(ValueError, match=r"expected \(2, C\)"):
        metric.update(
            lambda images: images[:, 0, 0, 0], random_images(2), random_maps(2), [0, 1], maps_fn=red_and_class
        )
    assert metric.num_images == 0


@pytest.mark.parametrize(
    "function, options, message",
    [
        (insertion_curve, {"step": 0}, r"step=0: expected pixels at a time, 1\.\.24"),
        (insertion_curve, {"step": 25}, r"1\.\.24"),
        (insertion_curve, {"chunk_size": 0}, "at least 1"),
        (deletion_curve, {"baseline": (1, 2)}, r"baseline of shape \(2,\)"),
        (deletion_curve, {"baseline": np.nan}, "expected a finite number"),
        (sensitivity_n, {"fractions": (1.0,)}, "above 0 and below 1"),
        (sensitivity_n, {"fractions": ()}, "above 0 and below 1"),
        (sensitivity_n, {"num_subsets": 1}, "2 or more"),
        (relative_confidence_drop, {"fraction": 0}, "above 0 and below"),
        (relative_confidence_drop, {"look_alikes": [[0]]}, r"in 0\.\.2, classes other than the image's own"),
        (relative_confidence_drop, {"look_alikes": [1]}, r"expected \(1, M\) integers"),
        (max_sensitivity, {"maps_fn": red_and_class, "radius": 0}, "radius=0"),
        (max_sensitivity, {"maps_fn": lambda images, ids: images}, r"maps_fn gives maps of shape \(1, 4, 6, 3\)"),
    ],
)
def test_options_out_of_range(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(network(), random_images(1), random_maps(1), [0], **options)


def test_a_metric_s_baseline_is_a_number_or_a_color():
    for name in ("deletion", "confidence", "sensitivity_n"):
        with pytest.raises(ValueError, match="expected a number or a color"):
            FAITHFULNESS[name](baseline=np.zeros((4, 4, 3)))
