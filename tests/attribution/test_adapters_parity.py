"""Networks of Equinox cut at layers; Equinox comes with the peers, for camjax does without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import camjax
from camjax.attribution import METHODS, combine_layers, reshape_tokens
from camjax.attribution.methods import Needs

pytestmark = pytest.mark.parity
eqx = pytest.importorskip("equinox", reason="to install: python -m benchmarks.peers")

rng = np.random.default_rng(0)
IMAGES = rng.normal(size=(3, 12, 16, 3)).astype(np.float32)
IDS = np.array([[2, 0], [1, 3], [0, 0]])


class Gap(eqx.Module):
    """Convolutions with a skip connection and dropout; global average pooling, one dense layer."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    dropout: eqx.nn.Dropout
    dense: eqx.nn.Linear
    spare: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 4)
        self.first = eqx.nn.Conv2d(3, 6, 3, 2, padding=1, key=keys[0])
        self.second = eqx.nn.Conv2d(6, 6, 3, padding=1, key=keys[1])
        self.dropout = eqx.nn.Dropout(0.5)
        self.dense, self.spare = (eqx.nn.Linear(6, 4, key=key) for key in keys[2:])

    def __call__(self, image, key=None):
        x = jax.nn.relu(self.first(image))
        x = x + jax.nn.relu(self.second(x))
        return self.dense(self.dropout(x, key=key).mean((1, 2)))


@pytest.fixture(scope="module")
def model():
    return Gap(jax.random.key(0))


def test_the_last_layer_of_a_gap_network_gives_its_class_activation_maps(model):
    before = jax.tree.map(np.array, eqx.filter(model, eqx.is_array))
    explain = camjax.attribution.explain_equinox(model, lambda model: model.dropout)
    found = explain(IMAGES, IDS, "hirescam")
    features = explain.network.features(IMAGES)
    assert features.shape == (3, 6, 8, 6)
    inference = eqx.nn.inference_mode(model)
    np.testing.assert_allclose(found.outputs, jax.vmap(inference)(IMAGES.transpose(0, 3, 1, 2)), atol=1e-5)
    cam = camjax.class_activation_map(features, model.dense.weight.T, IDS)
    np.testing.assert_allclose(found.maps, cam / 48, atol=1e-6)
    assert isinstance(model.dropout, eqx.nn.Dropout) and not model.dropout.inference
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, eqx.filter(model, eqx.is_array)))


def test_a_layer_inside_and_what_goes_around_it(model):
    explain = camjax.attribution.explain_equinox(model, lambda model: model.second)

    def head_fn(features, images):
        x = jax.nn.relu(jax.vmap(model.first)(images.transpose(0, 3, 1, 2)))
        x = x + jax.nn.relu(features.transpose(0, 3, 1, 2))
        return jax.vmap(model.dense)(x.mean((2, 3)))

    features = jnp.asarray(rng.normal(size=(3, 6, 8, 6)), jnp.float32)
    np.testing.assert_allclose(explain.network.head(features, IMAGES), head_fn(features, IMAGES), atol=1e-5)
    both = camjax.attribution.explain_equinox(model, lambda model: (model.first, model.second))
    single = [
        camjax.attribution.explain_equinox(model, where)(IMAGES, IDS, "hirescam").maps
        for where in (lambda model: model.first, lambda model: model.second)
    ]
    np.testing.assert_allclose(both(IMAGES, IDS, "hirescam").maps, combine_layers(single), atol=1e-5)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method(model, method):
    explain = camjax.attribution.explain_equinox(model, lambda model: model.second)
    if METHODS[method].needs is Needs.KERNEL:
        with pytest.raises(ValueError, match=f"{method} needs the dense kernel"):
            explain(IMAGES, IDS, method)
        return
    if METHODS[method].of_a_kind:
        with pytest.raises(ValueError, match=r"whose layers can be found|reads the attention weights"):
            explain(IMAGES, IDS, method)
        return
    of_the_image = METHODS[method].needs in (Needs.IMAGE_GRADIENT, Needs.NOTHING, Needs.WHOLE_NETWORK)
    found = explain(IMAGES, IDS, method, **METHODS[method].accepted(num_masks=2, num_steps=2))
    assert found.maps.shape == (3, 2, *(IMAGES.shape[1:3] if of_the_image else (6, 8)))
    assert np.isfinite(found.maps).all()


def test_layers_that_are_no_place_to_cut(model):
    for where, message in (
        (lambda model: model.dense.weight, "where returns .*Array"),
        (lambda model: (), "nothing"),
        ("second", "where='second': expected a function"),
    ):
        with pytest.raises(ValueError, match=message):
            camjax.attribution.explain_equinox(model, where)
    for where, message in (
        (lambda model: model.spare, "'Linear' is not called"),
        (lambda model: model.dense, r"'Linear' returns \(3, 4\): expected \(B, h, w, K\)"),
    ):
        with pytest.raises(ValueError, match=message):
            camjax.attribution.explain_equinox(model, where)(IMAGES)
    with pytest.raises(ValueError, match="'Conv2d' is called 2 times"):
        camjax.attribution.explain_equinox(
            model, lambda model: model.second, forward=lambda model, image: model(image) + model(image)
        )(IMAGES)


class Tokens(eqx.Module):
    """Patches as tokens behind a class token, which attends to them; channels come last."""

    embed: eqx.nn.Linear
    attention: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm

    def __init__(self, key):
        self.embed = eqx.nn.Linear(4 * 4 * 3, 8, key=key)
        self.attention = eqx.nn.MultiheadAttention(2, 8, key=key)
        self.norm = eqx.nn.LayerNorm((13, 8))

    def __call__(self, image):
        patches = image.reshape(3, 4, 4, 4, 3).swapaxes(1, 2).reshape(12, -1)
        tokens = jnp.concatenate([jnp.ones((1, 8)), jax.vmap(self.embed)(patches)])
        tokens = self.norm(tokens)
        return self.attention(tokens, tokens, tokens)[0]


def test_tokens_and_channels_that_come_last():
    model = Tokens(jax.random.key(1))
    options = {"channels_first": False, "reshape": reshape_tokens(3, 4)}
    explain = camjax.attribution.explain_equinox(model, lambda model: model.norm, **options)
    found = explain(IMAGES, [0, 1, 2], "hirescam")
    np.testing.assert_allclose(found.outputs, jax.vmap(model)(IMAGES), atol=1e-5)
    assert found.maps.shape == (3, 1, 3, 4) and (np.abs(found.maps).max((2, 3)) > 1e-4).all()
    with pytest.raises(ValueError, match="Linear of `where` is called inside of a transformation of its own"):
        camjax.attribution.explain_equinox(model, lambda model: model.embed, **options)(IMAGES)
    last = camjax.attribution.explain_equinox(model, lambda model: model.attention, **options)
    np.testing.assert_array_equal(last(IMAGES, [0, 1, 2], "hirescam").maps, 0)


def test_two_hundred_calls_compile_nothing_and_leave_nothing(model):
    explain = camjax.attribution.explain_equinox(model, lambda model: model.second)
    explain(IMAGES, [0, 1, 2])
    buffers = None
    for call in range(200):
        explain(IMAGES, [call % 4, 1, 2]).maps.block_until_ready()
        if call == 10:
            buffers, compiled = len(jax.live_arrays()), explain._traced._cache_size()
    assert len(jax.live_arrays()) <= buffers and explain._traced._cache_size() == compiled == 1
