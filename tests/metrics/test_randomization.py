"""The sanity check by random weights: which layers are random when, and rank correlations against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_network
from flax import nnx
from scipy import stats

from camjax.metrics import layers_from_top, randomization_check, randomized_from_top, rank_correlation
from camjax.models.shapes import model_shapes


class Network(nnx.Module):
    """Named so that alphabetical order is not that of computation."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.blocks = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(11)])
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.classes = nnx.Linear(8, 4, rngs=rngs)


@pytest.fixture(scope="module")
def model():
    return Network(nnx.Rngs(0))


LAYERS = ["classes", "norm", *(f"blocks.{i}" for i in range(10, -1, -1)), "stem"]


def test_layers_from_the_top_down(model):
    assert layers_from_top(model) == LAYERS


def test_layers_of_a_model_of_ours():
    """Whose attributes are in alphabetical order, as those of a model that was loaded."""
    layers = layers_from_top(random_network("small_gap", 3))
    assert layers == ["head", *(f"layers.{i}.{part}" for i in range(4, -1, -1) for part in ("bn", "conv"))]
    layers = layers_from_top(model_shapes("vgg16_wsol", wsol={"method": "spg"}))
    assert layers[4:10] == ["wsol.b2", "wsol.b1", "head", "conv6.1", "conv6.0", "conv5_3"]


def test_each_layer_loses_its_weights_with_all_above_it(model):
    before = [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    kernels = {layer: lambda m, i=i: np.asarray(m.blocks[i].kernel[...]) for i, layer in enumerate(LAYERS[12:1:-1])}
    assert next(iter(kernels)) == "blocks.0"
    for done, (layer, randomized) in enumerate(randomized_from_top(model, LAYERS)):
        assert layer == LAYERS[done]
        for name, kernel in kernels.items():
            same = np.array_equal(kernel(randomized), kernel(model))
            assert same == (name not in LAYERS[: done + 1])
            np.testing.assert_array_equal(np.sort(kernel(randomized), axis=None), np.sort(kernel(model), axis=None))
    after = jax.tree.leaves(nnx.state(model, nnx.Param))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_any_pytree_of_weights_by_the_beginnings_of_its_paths():
    weights = {"a": {"w": jnp.arange(20.0), "n": jnp.arange(20)}, "ab": [jnp.arange(30.0), jnp.arange(40.0)]}
    (_, first), (_, second) = randomized_from_top(weights, ["a", "ab.1"], key=jax.random.key(3))
    assert (first["a"]["w"] != weights["a"]["w"]).any()
    np.testing.assert_array_equal(first["a"]["n"], weights["a"]["n"])  # integers are no weights
    np.testing.assert_array_equal(first["ab"][1], weights["ab"][1])
    np.testing.assert_array_equal(second["a"]["w"], first["a"]["w"])
    np.testing.assert_array_equal(second["ab"][0], weights["ab"][0])
    assert (second["ab"][1] != weights["ab"][1]).any()


def test_maps_of_a_lower_layer_stay_until_it_is_reached(model):
    maps = randomization_check(lambda m: m.stem.kernel[...].transpose(2, 3, 0, 1).reshape(3, 8, 9)[:, None], model)
    assert list(maps) == LAYERS
    for layer, (signed, absolute) in maps.items():
        assert signed.shape == absolute.shape == (3, 1)
        if layer == "stem":
            assert (np.abs(signed) < 0.6).all() and (np.abs(absolute) < 0.6).all()
        else:
            np.testing.assert_allclose(signed, 1, atol=1e-5)
            np.testing.assert_allclose(absolute, 1, atol=1e-5)


def test_a_change_of_sign_shows_in_one_correlation_and_not_in_the_other():
    ramp = jnp.arange(-3.0, 3.0).reshape(2, 3)
    calls = iter([ramp, -ramp])
    (signed, absolute) = randomization_check(lambda weights: next(calls), {"w": jnp.ones(3)}, ["w"])["w"]
    np.testing.assert_allclose([signed, absolute], [-1, 1], atol=1e-6)


def test_rank_correlations_equal_scipy_s():
    rng = np.random.default_rng(0)
    maps, others = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    others += maps
    maps[2:], others[3:] = np.round(maps[2:]), np.round(others[3:])  # many equal values
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)]
    np.testing.assert_allclose(rank_correlation(maps, others), expected, atol=1e-5)
    np.testing.assert_allclose(rank_correlation(maps, np.exp(maps)), 1, atol=1e-5)


def test_constant_maps_and_maps_of_nan():
    ramp = np.arange(6.0).reshape(1, 2, 3)
    broken = ramp.copy()
    broken[0, 1, 1] = np.nan
    assert rank_correlation(ramp, np.full((1, 2, 3), 0.1)).tolist() == [0]
    assert np.isnan(rank_correlation(ramp, broken)).all()


def test_what_is_wrong_is_named(model):
    with pytest.raises(ValueError, match=r"layers head have no weights: expected some of blocks\.0"):
        next(randomized_from_top(model, ["stem", "head"]))
    with pytest.raises(ValueError, match=r"expected an nnx\.Module"):
        layers_from_top({"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="no layer with parameters"):
        layers_from_top(nnx.Dropout(0.5))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        randomization_check(lambda m: jnp.full((1, 2, 2), jnp.nan), model)
    with pytest.raises(ValueError, match="both the same"):
        rank_correlation(jnp.ones((1, 2, 2)), jnp.ones((1, 2, 3)))
