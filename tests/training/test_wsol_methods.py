"""Training methods for weakly supervised localization: cases by hand, and what every row of the table holds to."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STRICT, photos, random_network
from flax import nnx

import camjax
from camjax.checkpoints import Checkpoints
from camjax.errors import InputError
from camjax.models.shapes import model_shapes
from camjax.models.wsol import acol, adl, cutmix, has, spg
from camjax.models.wsol.table import WSOL, new_layers, with_wsol, wsol_config, wsol_words
from camjax.training import Recipe, SigmoidBinaryCrossEntropy, TrainState, fit
from camjax.training.published import tscam
from camjax.training.step import _keys_of_step, recipe_step
from camjax.weights.camjax_file import write_camjax_file

# A step of each compiles for a second: those whose draws are like another's are among the long tests.
METHODS = ["cutmix", "spg", *(pytest.param(name, marks=pytest.mark.long) for name in ("has", "adl", "acol", "tscam"))]
PLAIN_INFERENCE = ("has", "cutmix", "adl")
RECIPE = Recipe(steps=3, batch_size=4, learning_rate=0.05)


def staged(wsol="cam"):
    return random_network(
        "tests.tiny_vit:tiny_vit" if wsol == "tscam" else "wsol_net:staged", 3, wsol=wsol_config(wsol)
    )


def batch(size=4):
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (size, 16, 16, 3), dtype=np.uint8), "label": np.arange(size) % 3}


# ---------------------------------------------------------------------------------------------- by hand


def test_hide_and_seek_of_a_grid_of_two_by_two():
    images = np.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3)
    hidden = np.array([[[True, False], [False, True]], [[False, False], [True, False]]])
    found = has.hide(images, hidden, 2, np.array([7.0, 8.0, 9.0]))  # the squares at the edges are cut off
    pixels = np.array([[[1, 1, 0], [1, 1, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0], [1, 1, 0]]])[..., None]
    np.testing.assert_array_equal(found, np.where(pixels, [7.0, 8.0, 9.0], images))


def test_cutmix_of_a_map_of_four_by_four():
    images = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 9, np.uint8)])
    draws = cutmix.Draws(jnp.array([1, 0]), jnp.float32(0.75), jnp.array([0, 2]), jnp.array(True))
    mixed, share = cutmix.mix(images, draws)  # int(4 * sqrt(0.25)) // 2 = 1 pixel to each side, and one row is outside
    box = np.zeros((4, 4, 1), np.uint8)
    box[:1, 1:3] = 9
    np.testing.assert_array_equal(mixed, np.stack([box + images[0], 9 - box + images[0]]))
    assert mixed.dtype == np.uint8 and float(share) == 1 - 2 / 16
    untouched, share = cutmix.mix(images, draws._replace(mixed=jnp.array(False)))
    np.testing.assert_array_equal(untouched, images)
    assert float(share) == 1


def test_adl_of_a_map_of_four_by_four():
    attention = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    x = np.stack([attention - 1, attention + 1], -1)
    dropped = adl.attention_dropout(x, jnp.array(True), 0.8)  # 12, 13, 14, 15 are not below 0.8 * 15
    np.testing.assert_array_equal(dropped, x * (attention < 12)[..., None])
    kept = adl.attention_dropout(x, jnp.array(False), 0.8)
    np.testing.assert_allclose(kept, x / (1 + np.exp(-attention))[..., None], rtol=1e-6)


def test_acol_erases_where_the_first_branch_looks():
    features, maps = np.full((1, 4, 4, 2), 3.0, np.float32), np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    expected = np.where(np.arange(16) < 12, 3.0, 0.0).reshape(1, 4, 4, 1)  # from 12 / 15 on
    np.testing.assert_array_equal(acol.erase(features, maps, 0.8), np.broadcast_to(expected, features.shape))


def test_spg_masks_of_a_map_of_four_by_four():
    """Fewer than 30 pixels are above 0.5: 0.7 of the maximum takes its place. Below 0.6 is background all the same."""
    attention = np.linspace(0, 0.75, 16, dtype=np.float32).reshape(1, 4, 4)
    targets, counted = spg.guidance(attention, 0.5, 0.6)
    np.testing.assert_array_equal(targets[0], np.arange(16).reshape(4, 4) >= 12)
    assert counted.all()
    targets, counted = spg.guidance(attention, 0.5, 0.1)  # 0.05, 0.1, ..., and 0.525 = 0.7 * 0.75
    np.testing.assert_array_equal(counted[0].ravel(), (np.arange(16) < 2) | (np.arange(16) > 10))
    many = np.full((1, 6, 6), 0.4, np.float32)
    many[0, 0] = 0.9  # 30 of 36 pixels are above 0.3, and 0.7 * 0.9 would leave 6
    assert spg.guidance(many, 0.3, 0.1)[0].sum() == 36
    # -log(sigmoid(0)) of each pixel that counts, whatever the others are.
    logits = np.where(counted, 0, 9).astype(np.float32)
    assert float(spg.masked_cross_entropy(logits, targets, counted)) == pytest.approx(np.log(2))
    assert float(spg.masked_cross_entropy(logits, targets, np.zeros_like(counted))) == 0


# ------------------------------------------------------------------------------- every row of the table


@functools.cache
def two_steps(name):
    """States before, between and after two steps, the metrics of both, and the step."""
    model = staged(name)
    recipe = Recipe(
        steps=3, batch_size=4, learning_rate=0.05, new_layers_factor=10, new_layers=new_layers(model, ("head",))
    )
    step = jax.jit(recipe_step(recipe))
    states, metrics = [TrainState.create(model, recipe)], []
    for _ in range(2):
        state, found = step(states[-1], batch())
        states.append(state)
        metrics.append(found)
    return recipe, step, states, metrics


def arrays(state):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(state)
    ]


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_is_taken_up_again_draws_the_same(tmp_path, name):
    recipe, step, (start, between, end), _ = two_steps(name)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(between)
        checkpoints.wait()
        restored = checkpoints.restore(TrainState.create(staged(name), recipe))
    again, _ = step(restored, batch())
    for a, b in zip(arrays(again), arrays(end), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.structure(start) == jax.tree.structure(end)


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_learns(name):
    _, _, (start, _, end), metrics = two_steps(name)
    before, after = (nnx.to_flat_state(nnx.state(state.model, nnx.Param)) for state in (start, end))
    for (path, old), (_, new) in zip(before, after, strict=True):
        assert not np.array_equal(old[...], new[...]), path
    assert all(np.isfinite(found["loss"]) for found in metrics)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_step_of_the_whole_deit_small_with_ts_cam(dtype):
    model = camjax.create_model("deit_small_patch16_224", 200, wsol="tscam", dtype=dtype, rngs=nnx.Rngs(0))
    recipe = dataclasses.replace(tscam("cub"), batch_size=2)
    start = TrainState.create(model, recipe)
    end, found = jax.jit(recipe_step(recipe))(start, {"image": photos(), "label": np.array([0, 199])})
    assert float(found["loss"]) == pytest.approx(np.log(200), rel=0.1)  # the same of all classes, nearly
    assert 0 < float(found["gradient_norm"]) < np.inf
    before, after = (nnx.to_flat_state(nnx.state(state.model, nnx.Param)) for state in (start, end))
    for (path, old), (_, new) in zip(before, after, strict=True):
        assert new.dtype == jnp.float32 and np.isfinite(new[...]).all(), path
        assert not np.array_equal(old[...], new[...]), path


@pytest.mark.parametrize("name", PLAIN_INFERENCE)
def test_inference_is_that_of_the_plain_network(name):
    plain, model = staged(), staged(name)
    for other in (plain, model):
        other.eval()
    images = batch()["image"]
    for a, b in zip(camjax.cam_fn(plain, images), camjax.cam_fn(model, images), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_map_of_acol_is_that_of_both_branches():
    model = staged("acol")
    model.eval()
    images, ids = batch()["image"], np.array([[0, 2], [1, 1], [2, 0], [0, 1]])
    found = camjax.make_cam_fn(model)(images, ids)
    features = np.asarray(jax.jit(lambda model, images: model.features(images))(model, images))

    def scaled(x):
        low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
        return (x - low) / (high - low)

    of_a = np.asarray(model.head.a(features))
    np.testing.assert_allclose(found.logits, of_a.mean((1, 2)), rtol=1e-5)
    for n in range(2):
        rows = np.arange(4)
        a = scaled(of_a[rows, :, :, ids[:, n]])
        of_b = np.asarray(model.head.b(features * (a < 0.7)[..., None]))
        np.testing.assert_allclose(found.maps[:, n], np.maximum(a, scaled(of_b[rows, :, :, ids[:, n]])), atol=1e-5)
    everything = camjax.make_cam_fn(model, top_k=None)(images)
    np.testing.assert_allclose(everything.maps[np.arange(4)[:, None], ids], found.maps, atol=1e-6)
    assert not model.exact_cam
    assert np.isnan(model.head.class_maps(features, np.full((4, 1), 3))).all()


@pytest.mark.parametrize("name", ["acol", *(pytest.param(name, marks=pytest.mark.long) for name in ("has", "tscam"))])
def test_a_run_says_its_method_and_loads_as_it(tmp_path, name):
    class Examples:
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return {"image": batch(8)["image"][index], "label": int(batch(8)["label"][index])}

    network = "tests.tiny_vit:tiny_vit" if name == "tscam" else "wsol_net:staged"
    made = camjax.create_model(network, 3, wsol={"method": name, **OPTIONS[name]})
    trained = fit(made, Examples(), RECIPE, run_dir=tmp_path / "run", progress=False)
    config = json.loads((tmp_path / "run" / "run.json").read_text())["model"]["wsol"]
    assert config == wsol_config({"method": name, **OPTIONS[name]})
    loaded = camjax.load_model(tmp_path / "run")
    images = batch()["image"]
    expected = camjax.cam_fn(trained, images)
    for a, b in zip(camjax.cam_fn(loaded, images), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    write_camjax_file(loaded, tmp_path / "net.safetensors", version="0")
    converted = camjax.load_model(network, tmp_path / "net.safetensors")
    assert converted.created_as == loaded.created_as
    np.testing.assert_array_equal(camjax.cam_fn(converted, images).maps, expected.maps)
    other = camjax.with_new_head(loaded, 5)
    assert jax.eval_shape(other, images).shape == (4, 5) and type(other.wsol) is type(loaded.wsol)
    with pytest.raises(InputError, match=r"model.wsol: .*'method': '" + name):
        fit(camjax.create_model(network, 3), Examples(), RECIPE, run_dir=tmp_path / "run", progress=False)


OPTIONS = {"acol": {"threshold": 0.6}, "has": {"grid_size": 3}, "tscam": {}}


def three(k, to):
    """Parameters of a 3 x 3 convolution."""
    return (9 * k + 1) * to


# Network -> K of its last features, the parameters that lead to them from K of ACoL's branches, and K and width of
# SPG's branches.
BENCHMARK = {
    "vgg16_wsol_28x28": (1024, three(512, 1024), 512, (512, 512, 512)),
    "resnet50_wsol": (2048, 0, 2048, (1024, 1024, 1024)),
    "inception_v3_wsol": (1024, three(768, 1024) + three(1024, 1024), 768, (288, 768, 512)),
}


@functools.cache
def plain_shapes(name):
    return model_shapes(name, 7)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, method, marks=[pytest.mark.long] * (not name.startswith("vgg")))
        for name in BENCHMARK
        for method in ("adl", "acol", "spg")
    ],
)
def test_the_networks_of_the_benchmark(name, method):
    """The map keeps its size, and has as many parameters as the layers that a method adds and takes away."""
    plain, model = plain_shapes(name), model_shapes(name, 7, wsol=wsol_config(method))
    last, to_last, of_acol, (k1, k2, width) = BENCHMARK[name]
    head = (last + 1) * 7
    if method == "acol":
        added, last = 2 * (three(of_acol, 1024) + three(1024, 1024) + 1025 * 7) - to_last - head, of_acol
    elif method == "spg":
        added = three(k1, width) + three(k2, width) + three(width, width) + width + 1
        if name.startswith("vgg"):  # two convolutions of 512 in place of conv6
            added, last = added + 2 * three(512, 512) + 513 * 7 - to_last - head, 512
        added += three(last, 512) + 513
    else:
        added = 0
    sizes = [sum(x.size for x in jax.tree.leaves(nnx.state(of, nnx.Param))) for of in (plain, model)]
    assert sizes[1] - sizes[0] == added
    model.eval()
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.uint8)
    features = jax.eval_shape(lambda model, images: model.features(images), model, images).shape
    side = 28 if "28x28" in name else 14
    assert features == (1, side, side, last)


@pytest.mark.parametrize("name", [name for name in WSOL if name != "cam"])
def test_strict_settings_of_jax(name):
    before = {setting: getattr(jax.config, setting) for setting in STRICT}
    state = TrainState.create(staged(name), RECIPE)
    try:
        for setting, value in STRICT.items():
            jax.config.update(setting, value)
        after, metrics = jax.eval_shape(recipe_step(RECIPE), state, batch())
    finally:
        for setting, value in before.items():
            jax.config.update(setting, value)
    assert metrics["loss"].dtype == jnp.float32
    assert jax.tree.map(lambda x: x.dtype, jax.tree.leaves(after)) == [x.dtype for x in jax.tree.leaves(state)]


# --------------------------------------------------------------------------------------- several devices


@pytest.mark.parametrize(("name", "devices"), [("has", 4), ("cutmix", 1), ("adl", 1)])
def test_hide_and_seek_draws_on_each_device_and_others_once_for_all(name, devices):
    keys = nnx.state(staged(name), nnx.RngKey)

    def of_device(_):
        return [jax.random.key_data(key) for key in jax.tree.leaves(_keys_of_step(keys, 3, "devices"))]

    for key in jax.vmap(of_device, axis_name="devices")(np.arange(4)):
        assert len(np.unique(key, axis=0)) == devices


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("spg", 2),
        *(pytest.param(*of, marks=pytest.mark.long) for of in (("adl", 2), ("acol", 2), ("acol", 4), ("spg", 4))),
    ],
)
def test_devices_together_take_the_step_of_one(name, devices):
    """The axis of devices is one of `vmap` here; test_parallel.py has real ones."""
    recipe, _, (start, end, _), metrics = two_steps(name)
    step = jax.vmap(recipe_step(recipe, axis_name="devices"), axis_name="devices", in_axes=(None, 0), out_axes=None)
    split = {key: value.reshape(devices, -1, *value.shape[1:]) for key, value in batch().items()}
    state, found = jax.jit(step)(start, split)
    assert float(found["loss"]) == pytest.approx(float(metrics[0]["loss"]), rel=1e-5)
    for a, b in zip(arrays(state), arrays(end), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_cutmix_mixes_within_a_device():
    """Each device has the same draws, and so the loss that its part alone would have."""
    recipe, step, (start, *_), _ = two_steps("cutmix")
    split = {key: value.reshape(2, 2, *value.shape[1:]) for key, value in batch().items()}
    alone = [float(step(start, jax.tree.map(lambda x: x[i], split))[1]["loss"]) for i in range(2)]  # noqa: B023
    together = recipe_step(recipe, axis_name="devices")
    together = jax.vmap(together, axis_name="devices", in_axes=(None, 0), out_axes=None)
    assert float(jax.jit(together)(start, split)[1]["loss"]) == pytest.approx(np.mean(alone), rel=1e-5)


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("wsol", "message"),
    [
        ("acl", r"wsol method 'acl': expected one of cam, has, .* Did you mean 'acol'"),
        ({"method": "adl", "rate": 1}, r"adl has no option rate: it has threshold \(0.9\), drop_rate"),
        ({"method": "adl", "threshold": 1.5}, r"threshold=1.5: expected a number of at least 0 and at most 1"),
        ({"method": "has", "grid_size": 2.5}, r"grid_size=2.5: expected a whole number of at least 1"),
        ({"method": "cam", "threshold": 0.1}, "cam has no option threshold: it has none"),
    ],
)
def test_options_that_a_method_does_not_take(wsol, message):
    with pytest.raises(InputError, match=message):
        wsol_config(wsol)


def test_words_of_a_command_line():
    assert wsol_words(["has", "grid_size=8"]) == {"method": "has", "grid_size": 8, "drop_rate": 0.5}
    assert wsol_words([]) == {"method": "cam"}
    with pytest.raises(InputError, match="--wsol has photos: expected OPTION=NUMBER after the method"):
        wsol_words(["has", "photos"])


def test_networks_without_what_a_method_needs():
    with pytest.raises(InputError, match="spg with EfficientNetLite: its branches look at two earlier feature maps"):
        model_shapes("efficientnet_lite0", wsol=wsol_config("spg"))
    with pytest.raises(InputError, match="acol with NIN, which has a head of type MapHead: expected a network that"):
        model_shapes("nin", wsol=wsol_config("acol"))
    with pytest.raises(InputError, match=r"tscam with Staged, .*: expected a vision transformer with a class token"):
        with_wsol(staged(), "tscam")
    with pytest.raises(InputError, match="and a training method already"):
        with_wsol(staged("adl"), "has")
    for name in ("acol", "spg"):
        step = recipe_step(RECIPE, loss=SigmoidBinaryCrossEntropy())
        labels = jax.ShapeDtypeStruct((4, 3), jnp.float32)
        with pytest.raises(InputError, match=rf"{name} with labels \(4, 3\)"):
            jax.eval_shape(step, TrainState.create(staged(name), RECIPE), {**batch(), "label": labels})


@pytest.mark.parametrize("name", WSOL)
def test_what_is_drawn_is_in_range(name):
    random = np.random.default_rng(0)
    for _ in range(50):
        config = wsol_config({"method": name, **WSOL[name].draw(random)})
        assert all(config[f"low_{i}"] <= config[f"high_{i}"] for i in (1, 2, 3) if name == "spg")
