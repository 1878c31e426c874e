"""Methods that perturb: by hand, against loops in NumPy with OpenCV's resize, and what chunks may not change."""

import functools
import inspect

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

from camjax.attribution import METHODS, ablation_cam, explainer, is_cam, score_cam, ss_cam, targets
from camjax.attribution.perturbation import with_noise
from camjax.attribution.perturbation_chunks import _add_values, _scores

MASKING = [score_cam, ss_cam, is_cam]

# One image of one color, as large as its features, so that masks are [[0, 1/3], [2/3, 1]] and G itself.
F = np.array([[1.0, 2], [3, 4]])
G = np.array([[1.0, 0], [0, 1]])
FEATURES = np.stack([F, G], -1)[None]
IMAGE = np.array([[0.6, 0.3], [0.3, 0.9]])[None, ..., None]


def pixels(images):
    return images


def two_sums(features):
    """(B, h, w, 1) -> the sum, and minus the first pixel."""
    return jnp.stack([features.sum((1, 2, 3)), -features[:, 0, 0, 0]], 1)


def softmax(scores):
    powers = np.exp(scores)
    return powers / powers.sum()


@pytest.mark.parametrize(
    ("baseline", "sums", "firsts"),
    [(0.0, (0.1 + 0.2 + 0.9, 0.6 + 0.9), (0.0, -0.6)), ((0.3,), (0.3 * 3 + 0.9, 0.6 + 0.3 * 2 + 0.9), (-0.3, -0.6))],
)
def test_score_cam_by_hand(baseline, sums, firsts):
    maps = score_cam(two_sums, FEATURES, [[0, 1]], features_fn=pixels, images=IMAGE, baseline=baseline)
    expected = [a * F + b * G for a, b in (softmax(sums), softmax(firsts))]
    np.testing.assert_allclose(maps[0], expected, rtol=1e-6)


def test_is_cam_by_hand():
    # Two steps, of 1/2 and of 1/2 + 2/2: scores 1.2 and 1.5 times their mean of 1.
    maps = is_cam(two_sums, FEATURES, [0], features_fn=pixels, images=IMAGE, num_samples=2)
    a, b = softmax(np.array([1.2, 1.5]) * (0.5 + 1.5) / 2)
    np.testing.assert_allclose(maps[0, 0], a * F + b * G, rtol=1e-6)


def test_ablation_cam_by_hand():
    def head_fn(features):
        f, g = features[..., 0], features[..., 1]
        score = f.sum((1, 2)) + 2 * g.sum((1, 2)) - f[:, 1, 1] * g[:, 1, 1]
        return jnp.stack([score, -score, score - 10], 1)

    # y = 10 + 4 - 4 = 10; without F 4, without G 10. The second score is its negative, the third is 0: drops 6 and 0.
    maps = ablation_cam(head_fn, FEATURES, [[0, 1, 2]])
    np.testing.assert_allclose(maps[0], [0.6 * F, 0.6 * F, 6 * F], rtol=1e-6)
    # F's sum less 6 times G's, plus 20: y = 18, without F 8, without G 30.
    maps = ablation_cam(lambda f: f.sum((1, 2)) @ jnp.array([[1.0], [-6]]) + 20, FEATURES, [0])
    np.testing.assert_allclose(maps[0, 0], np.array([[0, 20], [30, 28]]) / 18, rtol=1e-6)


rng = np.random.default_rng(0)
WEIGHTS = rng.normal(size=(3, 6)).astype(np.float32)
KERNEL = rng.normal(size=(6, 4)).astype(np.float32)
IMAGES = rng.integers(0, 256, (3, 12, 20, 3)).astype(np.uint8)
IDS = np.array([[3, 0], [1, 1], [0, 2]])
COLOR = np.array([100.0, 120, 140])
NUM_CHANNELS = 6


def features_fn(images):
    cells = (images.astype(jnp.float32) / 255).reshape(images.shape[0], 4, 3, 5, 4, 3).mean((2, 4))
    return jax.nn.relu(jnp.tanh((cells - 0.5) @ WEIGHTS * 4) + 0.2)


def head_fn(features):
    return jnp.tanh(features.mean((1, 2)) @ KERNEL) + features.max((1, 2)) @ KERNEL


def some_dead() -> np.ndarray:
    """The features of the images, whose second channel is dead in one of them and constant in another."""
    features = np.array(features_fn(IMAGES))
    features[0, ..., 1], features[1, ..., 1] = 0, 0.1
    assert (np.ptp(features, (1, 2)) > 0).sum() == NUM_SCORED
    return features


NUM_SCORED = 3 * NUM_CHANNELS - 2


def masks_by_loop(features, steps, baseline=0.0):
    """Maps of methods that mask, one copy at a time, with OpenCV's resize."""
    maps = np.zeros((3, 2, 4, 5))
    for b, image in enumerate(IMAGES.astype(np.float32)):
        scores = np.zeros((NUM_CHANNELS, 2))
        for k in range(NUM_CHANNELS):
            mask = np.zeros((12, 20))
            if np.ptp(features[b, ..., k]) > 0:
                mask = cv2.resize(features[b, ..., k], (20, 12), interpolation=cv2.INTER_LINEAR)
                mask = (mask - mask.min()) / np.ptp(mask)
            for step in steps:
                masked = baseline + step * mask[..., None] * (image - baseline)
                scores[k] += np.asarray(head_fn(features_fn(masked[None])))[0, IDS[b]] / len(steps)
        for n in range(2):
            maps[b, n] = np.maximum(features[b] @ softmax(scores[:, n]), 0)
    return maps


@pytest.mark.parametrize(
    ("method", "options", "steps", "chunk_size"),
    [
        (score_cam, {}, [1], 1),
        (score_cam, {}, [1], 5),
        (score_cam, {}, [1], 1000),
        (is_cam, {"num_samples": 3}, [1 / 3, 1, 2], 8),
    ],
)
def test_masks_by_loop_in_any_chunks(method, options, steps, chunk_size):
    features, calls = some_dead(), []
    maps = method(
        *(head_fn, features, IDS),
        **{"features_fn": features_fn, "images": IMAGES, "baseline": COLOR, "chunk_size": chunk_size, **options},
        progress=lambda *numbers: calls.append(numbers),
    )
    assert maps.shape == (3, 2, 4, 5) and maps.dtype == jnp.float32 and isinstance(maps, jax.Array)
    np.testing.assert_allclose(maps, masks_by_loop(features, steps, COLOR), rtol=2e-5)
    # One copy for each channel with a mask, and one of each image's baseline for all others.
    total = (NUM_SCORED + 3) * options.get("num_samples", 1)
    assert calls == [(min(done, total), total) for done in range(chunk_size, total + chunk_size, chunk_size)]


@pytest.mark.parametrize("chunk_size", [1, 5, 1000])
def test_ablation_by_loop_in_any_chunks(chunk_size):
    features, calls = some_dead(), []
    maps = ablation_cam(head_fn, features, IDS, chunk_size=chunk_size, progress=lambda *n: calls.append(n))
    expected = np.zeros((3, 2, 4, 5))
    scores = np.take_along_axis(np.asarray(head_fn(features)), IDS, 1)
    for k in range(NUM_CHANNELS):
        ablated = features.copy()
        ablated[..., k] = 0
        weights = 1 - np.take_along_axis(np.asarray(head_fn(ablated)), IDS, 1) / scores
        expected += weights[..., None, None] * features[:, None, ..., k]
    np.testing.assert_allclose(maps, np.maximum(expected, 0), atol=1e-5)
    total = NUM_SCORED + 1 + 3
    assert calls[-1] == (total, total) and len(calls) == -(-total // chunk_size)


def test_a_copy_is_made_once_for_all_targets_and_no_more_than_a_chunk_of_them_at_a_time():
    seen = []

    def counting(images):
        jax.debug.callback(lambda array: seen.append(array.shape[0]), images)
        return features_fn(images)

    score_cam(head_fn, some_dead(), np.tile(IDS, 5), features_fn=counting, images=IMAGES, chunk_size=4)
    jax.effects_barrier()
    assert seen == [4] * -(-(NUM_SCORED + 3) // 4)


def test_memory_is_that_of_a_chunk_whatever_the_number_of_channels():
    def temporary(method_name, channels, chunk_size):
        """Bytes beside arguments and results, of the one program that runs perturbed copies."""
        from camjax.attribution import perturbation

        features, images = jnp.zeros((2, 4, 4, channels)), jnp.zeros((2, 64, 64, 3))
        head = Partial(lambda features, images: features.mean((1, 2)))
        network = Partial(lambda images: images.mean((1, 2)))
        outputs_of, of_images = {
            "scorecam": (
                Partial(perturbation._masked_outputs, network, Partial(lambda m, r: m)),
                (images, features, jnp.ones((2, channels), bool), jnp.zeros((2, 1, 1, 1))),
            ),
            "ablationcam": (Partial(perturbation._ablated_outputs, head), (images, features)),
        }[method_name]
        target, rows = Partial(lambda outputs: outputs[:, :1]), np.zeros((chunk_size, 3), np.int32)
        lowered = _add_values.lower(jnp.zeros((2, channels + 1, 1)), outputs_of, of_images, target, rows, None, _scores)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    copy = 64 * 64 * 3 * 4
    assert temporary("scorecam", 1024, 4) < 4 * 4 * copy
    assert temporary("ablationcam", 1024, 4) < 3 * 4 * (4 * 4 * 1024 * 4)


def masked(method, features, ids=IDS, **options):
    samples = {} if method is score_cam else {"num_samples": 2}
    return method(head_fn, features, ids, features_fn=features_fn, images=IMAGES, **samples, **options)


def test_ss_cam_takes_the_mean_over_its_samples_of_noise():
    features = np.asarray(features_fn(IMAGES))
    maps = np.asarray(masked(ss_cam, features))
    np.testing.assert_allclose(masked(ss_cam, features, chunk_size=7), maps, rtol=1e-5)
    other = masked(ss_cam, features, key=jax.random.key(1))
    assert np.abs(other - maps).max() > 1e-3 * maps.max()

    rows = np.array([*np.ndindex(3, NUM_CHANNELS, 2)])
    resized = np.stack([cv2.resize(features[b, ..., k], (20, 12), interpolation=cv2.INTER_LINEAR) for b, k, _ in rows])
    low, high = resized.min((1, 2), keepdims=True), resized.max((1, 2), keepdims=True)
    masks = (resized - low) / (high - low)
    make = jax.jit(functools.partial(with_noise, jax.random.key(0), 2.0))
    noise = np.asarray(make(masks, rows) - masks).reshape(len(rows), -1)
    # Normal, another for each row, and that of the row wherever it stands.
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 2], atol=0.1)
    assert np.abs(np.corrcoef(noise) - np.eye(len(rows))).max() < 0.4
    np.testing.assert_allclose(make(masks, rows[::-1]) - masks, noise[::-1].reshape(masks.shape), atol=1e-5)

    masks = np.asarray(make(masks, rows))
    outputs = np.asarray(head_fn(features_fn(IMAGES[rows[:, 0]] * masks[..., None])))
    scores = np.take_along_axis(outputs, IDS[rows[:, 0]], 1).reshape(3, NUM_CHANNELS, 2, 2).mean(2)
    expected = [[np.maximum(features[b] @ softmax(scores[b, :, n]), 0) for n in range(2)] for b in range(3)]
    np.testing.assert_allclose(maps, expected, rtol=2e-5)


@pytest.mark.parametrize("method", MASKING)
def test_features_that_say_nothing(method):
    assert not np.asarray(masked(method, np.zeros((3, 4, 5, 6)))).any()
    # Weights are equal: the mean of the channels. Its resized maps are constant but for rounding, and no masks.
    constant = np.broadcast_to(np.arange(1, 7) / 10, (3, 4, 5, 6))
    if method is not ss_cam:
        np.testing.assert_allclose(masked(method, constant), 0.35, rtol=1e-6)
    assert not np.asarray(masked(method, -np.abs(rng.normal(size=(3, 4, 5, 6))))).any()


def test_ablation_of_features_that_say_nothing():
    calls = []
    maps = ablation_cam(head_fn, np.zeros((3, 4, 5, 6)), IDS, progress=lambda *numbers: calls.append(numbers))
    assert not np.asarray(maps).any() and calls == [(3, 3)]
    maps = ablation_cam(lambda f: f.mean((1, 2)) @ np.ones((6, 1), np.float32), -np.ones((3, 4, 5, 6)), [0, 0, 0])
    assert not np.asarray(maps).any()


@pytest.mark.parametrize("method", MASKING)
def test_nan_in_features_is_nan_in_maps_at_its_place_alone(method):
    features = some_dead()
    features[2, 1, 3, 4] = np.nan
    maps = np.asarray(masked(method, features))
    assert np.argwhere(np.isnan(maps)).tolist() == [[2, 0, 1, 3], [2, 1, 1, 3]]
    # The channel has no mask, as if it were dead.
    features[2, ..., 4] = 0
    weights_kept = np.asarray(masked(method, features))
    np.testing.assert_allclose(maps[:2], weights_kept[:2], rtol=1e-6)


def test_ablation_with_nan_in_features_is_nan_for_that_image_alone():
    features = some_dead()
    features[2, 1, 3, 4] = np.nan
    maps = np.asarray(ablation_cam(head_fn, features, IDS))
    assert np.isnan(maps[2]).all()
    np.testing.assert_allclose(maps[:2], ablation_cam(head_fn, some_dead(), IDS)[:2], rtol=1e-5)


@pytest.mark.parametrize("name", ["scorecam", "sscam", "iscam", "ablationcam"])
def test_by_name_it_is_the_same(name):
    function = {"scorecam": score_cam, "sscam": ss_cam, "iscam": is_cam, "ablationcam": ablation_cam}[name]
    explain = explainer(features_fn, head_fn)
    options = {"num_samples": 2} if name in ("sscam", "iscam") else {}
    inputs = {} if name == "ablationcam" else {"features_fn": features_fn, "images": IMAGES}
    found = explain(IMAGES, IDS, name, **options)
    assert found.maps.dtype == jnp.float32
    np.testing.assert_allclose(
        found.maps, function(head_fn, features_fn(IMAGES), IDS, **inputs, **options), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("function", [*MASKING, ablation_cam])
def test_by_name_it_has_the_options_and_defaults_of_the_function(function):
    def defaults(function):
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    method = METHODS[function.__name__.replace("_", "")]
    assert defaults(method.function) == defaults(function)
    assert method.options == tuple(defaults(function))


@pytest.mark.parametrize("method", [score_cam, ablation_cam])
def test_bfloat16_features_give_float32_maps(method):
    features = jnp.asarray(features_fn(IMAGES), jnp.bfloat16)

    def maps_of(features):
        return ablation_cam(head_fn, features, IDS) if method is ablation_cam else masked(method, features)

    assert maps_of(features).dtype == jnp.float32
    np.testing.assert_array_equal(maps_of(features), maps_of(features.astype(jnp.float32)))


def test_each_image_is_asked_for_its_own_targets():
    features = features_fn(IMAGES)
    mixed = targets.per_image([targets.classes([[3, 0]]), targets.classes([[1, 1]]), targets.classes([[0, 2]])])
    np.testing.assert_allclose(ablation_cam(head_fn, features, mixed), ablation_cam(head_fn, features, IDS), rtol=1e-6)

    # A segmentation: outputs are places, and each image has a region of its own.
    regions = rng.integers(0, 2, (3, 4, 5)).astype(bool)
    target = targets.region(regions, [0, 3, 1])
    maps = ablation_cam(lambda f: f @ KERNEL, features, target)
    scores = np.asarray(features) * np.moveaxis(KERNEL[:, [0, 3, 1]], -1, 0)[:, None, None]
    drops = (scores * regions[..., None]).sum((1, 2)) / regions.sum((1, 2))[:, None]
    weights = drops / drops.sum(1, keepdims=True)
    np.testing.assert_allclose(maps[:, 0], np.maximum(np.einsum("bhwk,bk->bhw", features, weights), 0), atol=1e-5)


def test_no_gradient_is_taken_and_the_network_stays_as_it_was():
    class Dense(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
            self.dropout = nnx.Dropout(0.5, deterministic=True)

        def __call__(self, features):
            means = self.dropout(self.linear(features.mean((1, 2))))
            # No derivative is known of it.
            return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(means.shape, means.dtype), means)

    head = Dense()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(head)))
    assert np.isfinite(score_cam(head, features_fn(IMAGES), IDS, features_fn=features_fn, images=IMAGES)).all()
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(head)))


def test_other_weights_of_a_partial_compile_nothing():
    def dense(kernel, features):
        return features.mean((1, 2)) @ kernel

    features = features_fn(IMAGES)
    first = ablation_cam(Partial(dense, KERNEL), features, IDS)
    compiled = _add_values._cache_size()
    second = ablation_cam(Partial(dense, KERNEL[:, ::-1].copy()), features, 3 - IDS)
    assert _add_values._cache_size() == compiled
    np.testing.assert_allclose(first, second, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [0, 1]}, r"for 3 images: expected integers of shape \(3,\)"),
        ({"targets": [0, 1, 4]}, r"class_ids \[4\] out of range"),
        ({"features": np.zeros((4, 5, 6))}, r"features of shape \(4, 5, 6\)"),
        ({"images": IMAGES[0]}, r"images of shape \(12, 20, 3\)"),
        ({"images": IMAGES[:2]}, r"images of shape \(2, 12, 20, 3\) and features of shape \(3, 4, 5, 6\)"),
        ({"baseline": np.zeros((2, 1, 1, 3))}, r"baseline of shape \(2, 1, 1, 3\)"),
        ({"baseline": np.zeros((4, 3, 12, 20, 3))}, r"baseline of shape \(4, 3, 12, 20, 3\)"),
        ({"chunk_size": 0}, r"chunk_size=0: expected .* at least 1"),
        ({"num_samples": 0}, r"num_samples=0: expected .* at least 1"),
    ],
)
def test_what_does_not_fit(change, message):
    arguments = {"features": features_fn(IMAGES), "targets": [0, 1, 2], "features_fn": features_fn, "images": IMAGES}
    with pytest.raises(ValueError, match=message):
        ss_cam(head_fn, **(arguments | change))
