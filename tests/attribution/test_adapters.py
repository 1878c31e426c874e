"""Networks of NNX and Linen cut at layers: maps that are known, and what callers trip over.

The networks normalize for themselves, as camjax's own do; where a hand computes, pixels are small whole numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import camjax
from camjax.attribution import combine_layers
from camjax.attribution.adapters.linen import explain_linen
from camjax.attribution.adapters.nnx import explain_nnx
from camjax.models import CamModel, ConvBN, PooledHead

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
IDS = np.array([[2, 0], [1, 3], [0, 0]])


class Gap(CamModel):
    def __init__(self, rngs):
        super().__init__(input_size=(16, 16), stride=4, mean=(127.5,) * 3, std=(127.5,) * 3)
        sizes = ((3, 5, 2), (5, 5, 1), (5, 6, 2))
        self.layers = nnx.List([ConvBN(k, channels, 3, stride, rngs=rngs) for k, channels, stride in sizes])
        self.head = PooledHead(6, 4, rngs=rngs)

    def backbone(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.fixture(scope="module")
def gap():
    """A network of our own, in training mode, whose BatchNorm has statistics."""
    model = Gap(nnx.Rngs(0))
    for _, statistic in nnx.iter_graph(model):
        if isinstance(statistic, nnx.BatchStat):
            statistic[...] = jnp.asarray(rng.uniform(0.1, 0.3, statistic.shape), jnp.float32)
    return model


def values(tree):
    """The numbers of a tree, without its random keys."""
    return [np.array(leaf) for leaf in jax.tree.leaves(tree) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]


@pytest.fixture(scope="module")
def of_gap(gap):
    return explain_nnx(gap, "layers.2")


def test_the_last_map_of_a_gap_network_gives_its_class_activation_maps(gap, of_gap):
    before, mode = values(gap), [m.use_running_average for _, m in nnx.iter_modules(gap) if hasattr(m, "momentum")]
    structure = jax.tree.structure(gap)
    cam = camjax.cam_fn(gap, IMAGES, IDS)
    found = of_gap(IMAGES, IDS, "hirescam")
    np.testing.assert_allclose(found.outputs, cam.logits, atol=1e-5)
    np.testing.assert_allclose(found.maps, cam.maps / 4**2, atol=1e-6)
    np.testing.assert_allclose(of_gap(IMAGES, IDS).maps, np.maximum(cam.maps, 0) / 4**2, atol=1e-6)
    # The model is as it was: values, mode, structure.
    jax.tree.map(np.testing.assert_array_equal, before, values(gap))
    assert [m.use_running_average for _, m in nnx.iter_modules(gap) if hasattr(m, "momentum")] == mode == [False] * 3
    assert jax.tree.structure(gap) == structure


def test_an_earlier_layer_is_that_of_two_functions(gap):
    """The head by hand: the layers behind the first."""
    model = camjax.inference.inference_view(gap)

    def head_fn(features):
        for layer in list(model.layers)[1:]:
            features = layer(features)
        return model.head(features)

    def features_fn(images):
        x = (images.astype(jnp.float32) - 127.5) / 127.5
        return model.layers[0](x)

    expected = camjax.attribution.explainer(features_fn, head_fn)(IMAGES, IDS, "layercam")
    found = explain_nnx(gap, "layers.0")(IMAGES, IDS, "layercam")
    assert (np.asarray(found.maps) > 0).any()
    np.testing.assert_allclose(found.maps, expected.maps, rtol=1e-4, atol=1e-7)


class Skip(nnx.Module):
    """y = 2 x + x, of which the layer gives 2 x alone; the output is the mean of y times x."""

    def __init__(self):
        self.double = nnx.Conv(1, 1, (1, 1), use_bias=False, rngs=nnx.Rngs(0))
        self.double.kernel[...] = jnp.full((1, 1, 1, 1), 2.0)

    def __call__(self, x):
        return ((self.double(x) + x) * x).mean((1, 2))


def test_a_connection_around_the_layer_by_hand():
    image = jnp.array([[1.0, 2], [3, 4]])[None, ..., None]
    explain = explain_nnx(Skip(), "double")
    found = explain(image, [0], "hirescam")
    np.testing.assert_allclose(found.outputs, [[3 * (1 + 4 + 9 + 16) / 4]])
    # f = 2 x, dS/df = x / 4.
    np.testing.assert_allclose(found.maps[0, 0], [[0.5, 2], [4.5, 8]])
    # With the layer's output replaced by zeros, what went around it is still there.
    np.testing.assert_allclose(explain.network.head(jnp.zeros((1, 2, 2, 1)), image), [[30 / 4]])


def test_several_layers_with_the_gradients_that_go_through_the_later_ones(gap):
    found = explain_nnx(gap, ["layers.0", "layers.2"])(IMAGES, IDS, "hirescam")
    single = [explain_nnx(gap, name)(IMAGES, IDS, "hirescam").maps for name in ("layers.0", "layers.2")]
    np.testing.assert_allclose(found.maps, combine_layers(single), atol=1e-5)


def test_how_layers_are_combined_is_passed_on(gap):
    layers = ["layers.0", "layers.2"]
    found, largest = (explain_nnx(gap, layers, combine=mode)(IMAGES, [0, 1, 2]).maps for mode in ("mean", "max"))
    assert (largest >= found - 1e-6).all() and (largest > found + 0.01).any()


class Twice(nnx.Module):
    def __init__(self, rngs):
        self.again = nnx.Conv(3, 3, (1, 1), rngs=rngs)
        self.unused = nnx.Conv(3, 3, (1, 1), rngs=rngs)
        self.pool = nnx.List([nnx.Linear(3, 2, rngs=rngs)])
        self.alias = self.again
        self.blocks = nnx.List([Pair(rngs)])

    def __call__(self, x):
        x = self.alias(self.again(x.astype(jnp.float32)))
        return self.pool[0](sum(self.blocks[0](x)).mean((1, 2)))


class Pair(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 3, (1, 1), rngs=rngs)

    @nnx.remat
    def __call__(self, x):
        return self.conv(x), x


def test_layers_that_are_no_place_to_cut():
    model = Twice(nnx.Rngs(0))
    for layers, message in (
        ("block.0", r"Twice has no layer 'block.0'. Did you mean 'blocks.0'"),
        ("zzz", r"Twice has no layer 'zzz'. It has: "),
        ("blocks", "Twice has no layer 'blocks'"),
        ([], "expected the name of a layer"),
        (["pool.0", "pool.0"], "each once"),
        (-1, "a layer of type int: expected its path"),
        ([model], "a layer of type Twice: expected its path"),
    ):
        with pytest.raises(ValueError, match=message):
            explain_nnx(model, layers)
    with pytest.raises(ValueError, match=r"numpy's ndarray is not a flax.nnx.Module: expected one"):
        explain_nnx(IMAGES, "blocks.0")
    name = next(path[0] for path, module in nnx.iter_modules(model) if module is model.again)
    for layer, message in (
        (name, f"'{name}' is called 2 times"),
        ("unused", "'unused' is not called"),
        ("blocks.0", "returns tuple: expected one array"),
        ("pool.0", r"returns \(3, 2\): expected \(B, h, w, K\)"),
    ):
        with pytest.raises(ValueError, match=message):
            explain_nnx(model, layer)(IMAGES)


def test_a_layer_whose_activations_are_recomputed():
    """Inside of `nnx.remat` what a layer gives has to leave a function of its own."""
    model = Twice(nnx.Rngs(0))
    found = explain_nnx(model, "blocks.0.conv")(IMAGES, [0, 1, 0], "hirescam")
    # Behind the layer all is linear: its share of the score is the sum of the map.
    x = model.again(model.again(jnp.asarray(IMAGES, jnp.float32)))
    share = model.blocks[0].conv(x).mean((1, 2)) @ model.pool[0].kernel[...]
    np.testing.assert_allclose(found.maps.sum((2, 3))[:, 0], share[jnp.arange(3), jnp.array([0, 1, 0])], rtol=1e-4)


def test_the_explainer_has_the_weights_of_its_time_and_is_deterministic():
    class Dropping(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (1, 1), rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.calls = nnx.Variable(jnp.zeros(()))

        def __call__(self, x):
            self.calls[...] += 1
            return self.dropout(self.conv(x / 255)).mean((1, 2))

    model = Dropping(nnx.Rngs(0))
    explain = explain_nnx(model, "conv")
    first = explain(IMAGES, [0, 1, 2])
    model.conv.kernel[...] = jnp.zeros_like(model.conv.kernel)
    np.testing.assert_array_equal(explain(IMAGES, [0, 1, 2]).maps, first.maps)
    # Outside of a compiled program the modules are objects that could be those of the model.
    before = values(explain.network)
    np.testing.assert_allclose(explain.network(IMAGES), first.outputs, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, before, values(explain.network))
    assert model.calls[...] == 0
    assert int(model.dropout.rngs.count[...]) == 0 and not hasattr(model.conv, "exchange")


def test_a_network_with_arguments_of_its_own():
    class Picky(nnx.Module):
        def __init__(self):
            self.conv = nnx.Conv(3, 4, (1, 1), rngs=nnx.Rngs(0))

        def __call__(self, pixels, *, scale):
            return {"logits": self.conv(pixels * scale).mean((1, 2))}

    model = Picky()
    explain = explain_nnx(model, "conv", forward=lambda model, images: model(images, scale=1 / 255)["logits"])
    np.testing.assert_allclose(explain(IMAGES).outputs, model(IMAGES, scale=1 / 255)["logits"], rtol=1e-5)


class Block(nn.Module):
    channels: int
    strides: int = 1

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.channels, (3, 3), self.strides, use_bias=False)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train)(x))


class LinenGap(nn.Module):
    """Blocks with a skip connection, one of them recomputed; global average pooling, one dense layer."""

    @nn.compact
    def __call__(self, images, train=True):
        x = Block(4, 4, name="stem")(images.astype(jnp.float32) / 255, train)
        x = x + nn.remat(Block, static_argnums=(2,))(4, name="middle")(x, train)
        x = Block(6, name="last")(x, train)
        again = nn.Dense(6, name="again")
        x = nn.Dropout(0.1)(x, deterministic=not train) + 0 * again(again(x))
        return nn.Dense(4, name="head")(x.mean((1, 2)))


def inference(module, images):
    return module(images, train=False)


@pytest.fixture(scope="module")
def linen():
    module = LinenGap()
    shapes = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), IMAGES)
    # Drawn by NumPy, for JAX compiles its draws: weights of variance 2 / fan_in, and negative means.
    random = np.random.default_rng(1)

    def drawn(path, leaf):
        kind, shape = path[-1].key, leaf.shape
        if kind == "kernel":
            return (random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))).astype(np.float32)
        return np.full(shape, {"bias": 0, "scale": 1, "mean": -0.3, "var": 0.7}[kind], np.float32)

    return module, jax.tree_util.tree_map_with_path(drawn, shapes)


def test_linen_networks_give_their_class_activation_maps(linen):
    module, variables = linen
    before = values(variables)
    explain = explain_linen(module, variables, "last", forward=inference)
    found = explain(IMAGES, IDS, "hirescam")
    apply = functools.partial(module.apply, train=False, capture_intermediates=True)
    logits, state = jax.jit(apply)(variables, IMAGES)
    (features,) = state["intermediates"]["last"]["__call__"]
    cam = camjax.class_activation_map(features, variables["params"]["head"]["kernel"], IDS)
    np.testing.assert_allclose(found.outputs, logits, atol=1e-5)
    np.testing.assert_allclose(found.maps, cam / 4**2, atol=1e-5)
    assert (np.abs(cam).max((2, 3)) > 0.01).all()
    jax.tree.map(np.testing.assert_array_equal, before, values(variables))


def test_linen_layers_inside_of_others_and_around_which_others_go(linen):
    module, variables = linen
    explain = explain_linen(module, variables, "middle.BatchNorm_0", forward=inference)
    found = explain(IMAGES, IDS, "hirescam")
    # A step along the features, by finite differences of the whole network with the skip connection at work.
    features, head = jax.jit(explain.network.features)(IMAGES), jax.jit(explain.network.head)
    assert features.shape == (3, 4, 4, 4)
    step = 1e-3  # few ReLUs turn over so little
    up, down = (head(features * (1 + sign * step), IMAGES) for sign in (1, -1))
    slope = jnp.take_along_axis((up - down) / (2 * step), IDS, 1)
    np.testing.assert_allclose(found.maps.sum((2, 3)), slope, rtol=2e-2, atol=5e-3)
    assert (np.abs(slope).max(1) > 0.1).all()
    both = explain_linen(module, variables, ("stem", "middle"), forward=inference)(IMAGES, IDS, "hirescam")
    single = [
        explain_linen(module, variables, n, forward=inference)(IMAGES, IDS, "hirescam").maps for n in ("stem", "middle")
    ]
    np.testing.assert_allclose(both.maps, combine_layers(single), atol=1e-5)


def test_linen_layers_that_are_no_place_to_cut(linen):
    for layer, message in (
        ("midle.Conv_0", "LinenGap has no layer 'midle.Conv_0'. Did you mean 'middle.Conv_0'"),
        ("again", "'again' is called 2 times"),
        ("head", r"returns \(3, 4\): expected \(B, h, w, K\)"),
    ):
        with pytest.raises(ValueError, match=message):
            explain_linen(*linen, layer, forward=inference)(IMAGES)


def test_many_calls_compile_nothing_and_leave_nothing(gap, linen):
    for explain in (explain_nnx(gap, "layers.1"), explain_linen(*linen, "middle", forward=inference)):
        explain(IMAGES, [0, 1, 2])
        buffers = None
        for call in range(40):
            explain(IMAGES, [call % 4, 1, 2]).maps.block_until_ready()
            if call == 10:
                buffers, compiled = len(jax.live_arrays()), explain._traced._cache_size()
        assert len(jax.live_arrays()) <= buffers and explain._traced._cache_size() == compiled == 1


def test_weights_are_arguments_and_what_both_halves_share_is_computed_once(gap):
    explain = explain_nnx(gap, "layers.1")
    leaves, structure = jax.tree.flatten(explain.network)
    assert len(leaves) == len(jax.tree.leaves(nnx.state(gap)))

    def both(leaves, images):
        network = jax.tree.unflatten(structure, leaves)
        return network.head(network.features(images), images)

    cost = jax.jit(both).lower(leaves, IMAGES).compile().cost_analysis()["flops"]
    alone = jax.jit(camjax.inference.inference_view(gap).__call__).lower(IMAGES).compile().cost_analysis()["flops"]
    assert cost <= 1.02 * alone
