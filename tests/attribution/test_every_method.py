"""What holds for every method that weighs a feature map: by hand where no other file has the case, and wrong use.

One small network serves most of it, in training mode, with dropout, BatchNorm and a count of its calls, cut by the
adapter at its feature map. A method that is added to `METHODS` has to be added to `FUNCTIONS` here, and is then tested.
What holds for all rows of the table, on models, is in `test_door.py`.
"""

import contextlib
import functools
import gc
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STRICT, shallow_gap
from flax import linen as nn
from flax import nnx
from jax.tree_util import Partial

from camjax import attribution
from camjax.attribution import METHODS, explain_linen, explain_nnx, explainer, targets
from camjax.attribution.methods import Needs
from camjax.inference import _ids_or_top, _maps, make_localize_fns
from tests.few_copies import FEW

FUNCTIONS = {
    "gradcam": attribution.grad_cam,
    "gradcam++": attribution.grad_cam_plus_plus,
    "xgradcam": attribution.xgrad_cam,
    "hirescam": attribution.hires_cam,
    "layercam": attribution.layer_cam,
    "eigencam": attribution.eigen_cam,
    "eigengradcam": attribution.eigen_grad_cam,
    "scorecam": attribution.score_cam,
    "sscam": attribution.ss_cam,
    "iscam": attribution.is_cam,
    "ablationcam": attribution.ablation_cam,
    "finercam": attribution.finer_cam,
    "finercam_mean": functools.partial(attribution.finer_cam, weights="mean", strength=0.6),
    "refinecam": attribution.refine_cam,
    "segeigencam": attribution.seg_eigen_cam,
    "kpcacam": attribution.kpca_cam,
    "fem": attribution.fem,
    "dff": attribution.dff,
    "shapleycam": attribution.shapley_cam,
    "fasterscorecam": attribution.faster_score_cam,
    "smoothgradcam++": attribution.smooth_grad_cam_plus_plus,
    "reciprocam": attribution.recipro_cam,
}
PERTURBING = [name for name, row in METHODS.items() if row.needs is Needs.CHANGED_IMAGES]
BY_GRADIENTS = [name for name, row in METHODS.items() if row.needs in (Needs.GRADIENTS, Needs.CURVATURE)]
COMPONENTS = ["eigencam", "eigengradcam", "segeigencam", "kpcacam"]

every_method = pytest.mark.parametrize("name", [*BY_GRADIENTS, *PERTURBING])


def test_every_method_is_here():
    assert set(FUNCTIONS) == {*BY_GRADIENTS, *PERTURBING}


def rng(seed):
    return np.random.default_rng(seed)


PATCHES = (rng(1).normal(size=(12, 4)) / 4 + 0.1).astype(np.float32)
DENSE = rng(2).normal(size=(4, 4)).astype(np.float32)
DENSE[:, 0], DENSE[:, 3] = abs(DENSE[:, 0]), -abs(DENSE[:, 3])


def given(array):
    return lambda key, shape, dtype: jnp.asarray(array, dtype)


def patches_of(images):
    """(B, 8, 8, 3) -> (B, 4, 4, 12)."""
    return images.reshape(-1, 4, 2, 4, 2, 3).swapaxes(2, 3).reshape(-1, 4, 4, 12)


class Features(nnx.Module):
    """A dense layer of patches, BatchNorm, ReLU: dead on black images, and the same everywhere on one color."""

    def __init__(self, dtype, rngs):
        self.patches = nnx.Linear(12, 4, kernel_init=given(PATCHES), use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(4, dtype=dtype, rngs=rngs)
        self.norm.mean[...], self.norm.var[...] = jnp.full(4, 0.1), jnp.full(4, 0.2)

    def __call__(self, x):
        return nnx.relu(self.norm(self.patches(patches_of(x))))


class Network(nnx.Module):
    """Scores that rise with every feature for class 0, and fall with every one for class 3; all are above 0."""

    def __init__(self, dtype=jnp.float32):
        rngs = nnx.Rngs(0)
        self.last = Features(dtype, rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(4, 4, kernel_init=given(DENSE), bias_init=given([9.0] * 4), dtype=dtype, rngs=rngs)
        self.calls = nnx.Variable(jnp.zeros((), jnp.int32))

    def __call__(self, images):
        self.calls[...] += 1
        features = self.last(images / 255)
        return self.dense(self.dropout(features.mean((1, 2)) + (features**2).mean((1, 2))))


IMAGES = rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.float32)
IDS = np.array([[3, 0], [1, 1], [0, 2], [2, 1], [1, 3]])


@pytest.fixture(scope="module")
def network():
    return Network()


@pytest.fixture(scope="module")
def explain(network):
    return explain_nnx(network, "last")


def maps_of(explain, name, images=IMAGES, ids=IDS):
    return np.asarray(explain(images, ids, name, **FEW.get(name, {})).maps)


# What is asked

WRONG = [
    ([0, 1, 2, 3], "for 5 images"),
    ([[0]] * 4, "for 5 images"),
    ([0], "for 5 images"),
    (0, "for 5 images"),
    (np.zeros((5, 0), int), "for 5 images"),
    ([0] * 6, "for 5 images"),
    ([0.0] * 5, "float64 for 5 images"),
    ([True] * 5, "bool for 5 images"),
    ([0, 1, 2, 3, 4], r"class_ids \[4\] out of range"),
    ([0, 1, 2, 3, -1], r"class_ids \[-1\] out of range"),
    (targets.class_sets(np.ones((4, 4))), r"members of shape \(4, 1, 4\): expected \(5, 1, 4\)"),
    (targets.per_image([targets.classes([0])] * 4), "4 targets for 5 images"),
    (lambda outputs: outputs[:4], r"for 5 images: expected \(5, N\)"),
]


def of_one_layer(kernel, features):
    return jnp.tanh(features.mean((1, 2))) @ kernel


@every_method
def test_targets_that_are_not_some_for_each_image_are_errors(explain, name):
    runs_images = name in ("scorecam", "sscam", "iscam", "fasterscorecam", "smoothgradcam++")
    masks = {"features_fn": lambda images: images, "images": IMAGES} if runs_images else {}
    head = Partial(of_one_layer, np.ones((3, 4), np.float32))
    for wrong, message in WRONG:
        if METHODS[name].classes_only and callable(wrong):
            message = "expected class ids"
        with pytest.raises(ValueError, match=message):
            explain(IMAGES, wrong, name)
        with pytest.raises(ValueError, match=message):
            FUNCTIONS[name](head, IMAGES, wrong, **masks)


def segmentation(kernel, features):
    """(B, h, w, K) -> (B, h, w, C): places that see one another through their mean."""
    return jnp.tanh(features @ kernel) + features.mean((1, 2), keepdims=True) @ kernel + 9


def of_every_kind(region, members, embedding, outputs):
    """Scores of one image by targets of every kind, of its segmentation or of the mean over places."""
    scores = outputs.mean((1, 2))
    kinds = [
        (targets.region(region, [[1, 3]]), outputs),
        (targets.classes([[3, 0]]), scores),
        (targets.probabilities([2]), scores),
        (targets.class_sets(members), scores),
        (targets.binary(members > 0.5), scores),
        (targets.regression([1, -1, 1, -1]), scores),
        (targets.similarity(embedding), scores),
        (targets.per_image([targets.class_sets([[1, 1, 0, 0]])]), scores),
    ]
    return jnp.concatenate([target(of) for target, of in kinds], axis=1)


def test_targets_of_every_kind_are_the_classes_of_a_network_that_ends_in_them():
    head = Partial(segmentation, jnp.asarray(rng(2).normal(size=(3, 4)), jnp.float32))
    target = Partial(of_every_kind, rng(3).random((1, 2, 4, 4)) < 0.5, rng(4).random((1, 4)), rng(5).random((1, 4)))
    features, count = IMAGES[:1, ::2, ::2] / 255, 2 + 2 + 1 + 1 + 4 + 4 + 1 + 1

    def both(features):
        found = attribution.hires_cam(head, features, target)
        return found, attribution.hires_cam(lambda features: target(head(features)), features, [list(range(count))])

    found, expected = jax.jit(both)(features)
    assert found.shape == (1, count, 4, 4) and (np.abs(expected).max((0, 2, 3)) > 1e-3).all()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_perturbing_methods_take_one_layer():
    explain = explainer(lambda images: (images, images / 2), lambda features: features[1].mean((1, 2)))
    for name in PERTURBING:
        with pytest.raises(ValueError, match=rf"{re.escape(name)} of 2 layers: expected one.*combine_layers"):
            explain(IMAGES, IDS[:, 0] % 3, name)


# By hand

STEPS = np.array([[0.0, 1], [2, 5]])  # of mean 2


def test_eigen_cam_by_hand():
    # Channels (4, 1, 1) + a (3, 4, 0): a length of 5 a step, whatever is asked.
    features = np.array([4.0, 1, 1]) + STEPS[..., None] * np.array([3.0, 4, 0])
    maps = attribution.eigen_cam(lambda f: -f.mean((1, 2)), features[None], [[0, 2]])
    np.testing.assert_allclose(maps, [[5 * (STEPS - 2)] * 2], atol=1e-5)


def test_eigen_grad_cam_by_hand():
    # dS/df is (4, 3, 0), so that the terms are (12 a, 12 a, 0) and no other channel's; of -S they are their opposite.
    features = STEPS[..., None] * np.array([3.0, 4, 0]) + np.array([0, 0, 7]) * rng(0).random((2, 2, 1))

    def head_fn(features):
        score = features.sum((1, 2)) @ np.array([4.0, 3, 0])
        return jnp.stack([score, -score], 1)

    maps = jax.jit(lambda features: attribution.eigen_grad_cam(head_fn, features, [[0, 1]]))(features[None])
    expected = 12 * np.sqrt(2) * (STEPS - 2)
    np.testing.assert_allclose(maps, [[expected, -expected]], atol=1e-4)


def test_ss_cam_by_hand():
    """With the mean square of an image's pixels as its score, to which noise of any channel adds the same."""
    # Masks are (row + column) / 126 and the column / 63, whose mean squares are known sums over 0..63.
    rows, columns = np.mgrid[:64, :64].astype(np.float32)
    features = np.stack([rows + columns, columns + 5, np.full((64, 64), 3)], -1)[None]
    mean, square = 31.5, 63 * 127 / 6
    scores = np.array([(2 * square + 2 * mean**2) / 126**2, square / 63**2, 0])
    weights = np.exp(4 * scores) / np.exp(4 * scores).sum()

    def head_fn(images):
        return 4 * (images**2).mean((1, 2))

    inputs = {"features_fn": lambda images: images, "images": np.ones((1, 64, 64, 1))}
    for std, tolerance in ((0.0, 1e-5), (0.5, 0.02)):
        maps = attribution.ss_cam(head_fn, features, [0], **inputs, std=std)
        np.testing.assert_allclose(maps[0, 0], features[0] @ weights, rtol=tolerance)


# What the network and the images are


def values(model):
    """Every leaf of a module, random keys as numbers, and all else that it holds, its mode included."""
    graph, state = nnx.split(model)
    state = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, state)
    return graph, [np.array(leaf) for leaf in jax.tree.leaves(state)]


def outputs_by_numpy(images):
    """Of the network in inference mode: no dropout, and the statistics of its own."""
    features = np.maximum((patches_of(images / 255) @ PATCHES - 0.1) / np.sqrt(0.2 + 1e-5), 0)
    return (features.mean((1, 2)) + (features**2).mean((1, 2))) @ DENSE + 9


@every_method
def test_the_network_is_as_it_was_and_its_mode_does_not_matter(network, explain, name):
    graph, before = values(network)
    assert not network.last.norm.use_running_average and not network.dropout.deterministic
    found = explain(IMAGES, IDS, name, **FEW.get(name, {}))
    np.testing.assert_array_equal(maps_of(explain, name), found.maps)
    np.testing.assert_allclose(found.outputs, outputs_by_numpy(IMAGES), rtol=1e-5)
    graph_after, after = values(network)
    assert graph_after == graph and len(after) == len(before) > 8
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert network.calls[...] == 0 and type(network.last) is Features


class Halves(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.asarray(rng(3).normal(size=(3, 4)), jnp.float32))

    def features(self, images):
        return jax.nn.relu(images / 255 - 0.2)

    def head(self, features):
        return features.mean((1, 2)) @ self.kernel[...] + 9


@pytest.mark.parametrize("name", ["hirescam", "scorecam", "ablationcam"])
def test_weights_are_those_of_the_time_when_the_explainer_was_made(name):
    model = Halves()
    explain = explainer(model.features, model.head)
    before = explain(IMAGES, IDS, name)
    model.kernel[...] = -2 * model.kernel[...]
    after = explain(IMAGES, IDS, name)
    np.testing.assert_array_equal(after.outputs, before.outputs)
    np.testing.assert_array_equal(after.maps, before.maps)


@jax.jit
def functions_of_gradients(network, features, images):
    """name -> maps, by the functions."""
    return {name: FUNCTIONS[name](network.head_of(images), features, IDS) for name in BY_GRADIENTS}


def test_by_name_they_are_the_functions(explain):
    """Those of the gradient; the tests of those that perturb say it of these."""
    features = jax.jit(explain.network.features)(IMAGES)

    for name, maps in functions_of_gradients(explain.network, features, IMAGES).items():
        assert np.abs(maps).max() > 1e-3
        np.testing.assert_allclose(maps_of(explain, name), maps, rtol=1e-4, atol=1e-5, err_msg=name)


@every_method
def test_dead_constant_and_broken_images_are_theirs_alone(explain, name):
    images = IMAGES.copy()
    images[1], images[2], images[3, 5, 4, 1] = 0, (120, 200, 90), np.nan
    features = np.asarray(jax.jit(explain.network.features)(images))
    assert not features[1].any() and features[2].any() and np.ptp(features[2], (0, 1)).max() < 1e-6
    assert np.argwhere(np.isnan(features).any(-1)).tolist() == [[3, 2, 2]]
    maps = maps_of(explain, name, images)
    np.testing.assert_array_equal(maps[1], 0)
    assert np.ptp(maps[2], (1, 2)).max() < 1e-5
    # What looks for differences between places finds none. Class 0 may be no stronger than its look-alikes.
    says_something = name not in (*COMPONENTS, "fem", "dff", "refinecam")
    shown = maps[2, 1:] if METHODS[name].classes_only else maps[2]
    assert (np.abs(shown).max((1, 2)) > 1e-4).all() == says_something
    assert np.isnan(maps[3, :, 2, 2]).all()
    np.testing.assert_allclose(maps[[0, 4]], maps_of(explain, name)[[0, 4]], rtol=1e-5, atol=1e-6)
    assert np.isfinite(maps[[0, 4]]).all()


def test_the_score_falls_with_every_feature(explain):
    """Class 3: gradients are below 0 and features are not, so that sums of their products are not above 0 anywhere."""
    maps = {name: maps_of(explain, name, ids=np.full((5, 2), 3)) for name in FUNCTIONS}
    for name in (
        "gradcam",
        "gradcam++",
        "layercam",
        "ablationcam",
        "refinecam",
        "shapleycam",
        "smoothgradcam++",
        "dff",
    ):
        np.testing.assert_array_equal(maps[name], 0)
    for name in ("xgradcam", "hirescam"):
        assert (maps[name] <= 0).all() and (maps[name].min((2, 3)) < -1e-3).all()
    # Methods without a sign: components, and weights that are a softmax.
    for name in COMPONENTS:
        np.testing.assert_allclose(maps[name].mean((2, 3)), 0, atol=1e-5)
        assert (maps[name].max((2, 3)) > 1e-3).all()
    for name in ("scorecam", "sscam", "iscam", "fasterscorecam"):
        assert (maps[name] >= 0).all() and (maps[name].max((2, 3)) > 1e-3).all()


@every_method
def test_a_network_in_bfloat16_has_float32_maps_close_to_those_of_float32(explain, in_bfloat16, name):
    found = in_bfloat16(name)
    assert found.dtype == jnp.float32
    expected = maps_of(explain, name)
    # Scores near 9 are rounded to 1/16, which shows where one place alone changes them.
    tolerance = 0.1 if name == "reciprocam" else 0.03
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


@pytest.fixture(scope="module")
def in_bfloat16():
    """name -> maps, those by gradients from one program."""
    explain, images = explain_nnx(Network(jnp.bfloat16), "last"), jnp.asarray(IMAGES, jnp.bfloat16)
    features = jax.jit(explain.network.features)(images)
    assert features.dtype == explain(images, IDS, "gradcam").outputs.dtype == jnp.bfloat16
    by_gradients = functions_of_gradients(explain.network, features, images)

    def maps(name):
        if name in PERTURBING or name == "gradcam":
            return explain(images, IDS, name, **FEW.get(name, {})).maps
        return by_gradients[name]

    return maps


class LinenNetwork(nn.Module):
    """`Network` in Linen."""

    @nn.compact
    def __call__(self, images):
        features = LinenFeatures(name="last")(images / 255)
        return nn.Dense(4, name="dense")(features.mean((1, 2)) + (features**2).mean((1, 2)))


class LinenFeatures(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, use_bias=False, name="patches")(patches_of(x))
        return nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(x))


@pytest.mark.parametrize("name", ["eigengradcam", "scorecam", "ablationcam"])
def test_methods_of_every_kind_on_the_network_in_linen(explain, name):
    ones = np.ones(4, np.float32)
    variables = {
        "params": {
            "last": {"patches": {"kernel": PATCHES}, "norm": {"scale": ones, "bias": 0 * ones}},
            "dense": {"kernel": DENSE, "bias": 9 * ones},
        },
        "batch_stats": {"last": {"norm": {"mean": 0.1 * ones, "var": 0.2 * ones}}},
    }
    found = explain_linen(LinenNetwork(), variables, "last")(IMAGES, IDS, name)
    np.testing.assert_allclose(found.maps, maps_of(explain, name), rtol=1e-4, atol=1e-5)


# What calls cost


@contextlib.contextmanager
def compilations():
    """What JAX compiles meanwhile: for each program how long that took."""
    seconds = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


# Those by gradients in turn, 70 calls in all; 10 of each that changes images.
@pytest.mark.parametrize(("names", "rounds"), [(BY_GRADIENTS, 10), *(([name], 10) for name in PERTURBING)])
def test_many_calls_compile_nothing_and_leave_nothing(explain, names, rounds):
    with compilations() as seconds:
        jax.jit(lambda x: x + 1)(1)
    assert len(seconds) == 1, "what is counted"
    random = rng(0)
    for name in names:
        maps_of(explain, name)
    gc.collect()
    gc.disable()  # what waits for the collector holds memory of the device until then
    try:
        alive = len(jax.live_arrays())
        with compilations() as seconds:
            for name in names * rounds:
                images = random.integers(0, 256, IMAGES.shape) * random.integers(0, 2, (5, 1, 1, 3))
                maps_of(explain, name, images.astype(np.float32), random.integers(0, 4, (5, 2)))
        assert len(jax.live_arrays()) == alive and not seconds
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["hirescam", "ablationcam"])
def test_targets_that_are_made_anew_compile_nothing(explain, name):
    def made(seed):
        members, images = rng(seed).random((1, 4)), [targets.classes([seed % 4])] * 4
        return targets.per_image([targets.class_sets(members), *images])

    explain(IMAGES, made(0), name)
    with compilations() as seconds:
        maps = [np.asarray(explain(IMAGES, made(seed), name).maps) for seed in (1, 2)]
    assert not seconds and np.abs(maps[0] - maps[1]).max((1, 2, 3)).all()


def test_results_stay_on_the_device(explain):
    images = jnp.asarray(IMAGES)
    first = explain(images, None, "gradcam", top_k=2)
    with jax.transfer_guard("disallow"):
        again = explain(images, None, "gradcam", top_k=2)
    np.testing.assert_array_equal(again.maps, first.maps)
    for name in BY_GRADIENTS:
        # A program of the caller's has no values to look at.
        found = jax.eval_shape(lambda images, name=name: explain(images, None, name, top_k=2), images)
        assert found.maps.shape == (5, 2, 4, 4)


@every_method
def test_results_are_arrays_of_jax(explain, name):
    for array in explain(IMAGES, IDS, name, **FEW.get(name, {})):
        assert isinstance(array, jax.Array)


# JAX's settings


@contextlib.contextmanager
def settings(options):
    with contextlib.ExitStack() as stack:
        for option, value in options.items():
            stack.callback(jax.config.update, option, getattr(jax.config, option))
            jax.config.update(option, value)
        yield


@pytest.fixture(scope="module")
def small():
    return shallow_gap(4)


def found_by(model, names, size):
    images = rng(1).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    options = {name: FEW[name] for name in names if name in FEW}
    return make_localize_fns(model, names, top_k=2, options=options)(images)


CROPS = [name for name, row in METHODS.items() if row.crops]
WHOLE = [name for name, row in METHODS.items() if not row.crops and not row.of_attention]
KINDS = [*{METHODS[name].needs: name for name in reversed(WHOLE)}.values()]
"""One for each of `Needs`: the first."""


@pytest.mark.parametrize(
    "options", [pytest.param(STRICT, id="strict"), pytest.param({"jax_disable_jit": True}, marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(KINDS, id="one of each kind"),
        pytest.param(CROPS, id="crops"),
        pytest.param(WHOLE, id="all", marks=pytest.mark.long),
    ],
)
def test_the_same_numbers_whatever_jax_is_set_to(small, names, options):
    size = METHODS[names[0]].image_size(small) if names == CROPS else (16, 16)
    expected = found_by(small, names, size)
    with settings(options):
        found = found_by(small, names, size)
    assert list(found) == names
    for name in names:
        for field, value in expected[name].top._asdict().items():
            other = getattr(found[name].top, field)
            assert other.dtype == value.dtype, (name, field)
            scale = float(np.abs(value).max())
            np.testing.assert_allclose(other, value, rtol=1e-3, atol=1e-3 * scale, err_msg=f"{name}: {field}")


def test_no_method_mixes_types_or_ranks(small):
    """All that are one program, traced with JAX's strict settings."""
    rows = [METHODS[name] for name in WHOLE if not METHODS[name].is_loop]
    images = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.uint8)
    with settings(STRICT):
        found = jax.eval_shape(lambda model, images: _maps(model, images, None, rows, _ids_or_top(2)), small, images)
    assert {str(array.dtype) for out in found.values() for array in (out.logits, out.maps)} == {"float32"}
