"""What is frozen ends as it began, to the last bit; what is not learns as it would have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from camjax.models import CamModel, ConvBN, PooledHead
from camjax.training import Recipe, TrainState, train_step
from camjax.training.step import recipe_step


class Net(CamModel):
    def __init__(self, dtype=jnp.float32):
        super().__init__(input_size=(8, 8), stride=4, mean=(127.5,) * 3, std=(127.5,) * 3, dtype=dtype)
        self.stem = ConvBN(3, 4, 3, 2, dtype=dtype, rngs=nnx.Rngs(1))
        self.layer = ConvBN(4, 8, 3, 2, dtype=dtype, rngs=nnx.Rngs(2))
        self.head = PooledHead(8, 3, rngs=nnx.Rngs(3))
        rng = np.random.default_rng(4)
        for bn in (self.stem.bn, self.layer.bn):  # statistics that are neither those of the start nor of a batch
            bn.mean[...] = jnp.asarray(rng.normal(size=bn.mean.shape), jnp.float32)
            bn.var[...] = jnp.asarray(rng.uniform(1, 2, bn.var.shape), jnp.float32)
        self.head.kernel[...] = self.head.kernel[...].at[0, 0].set(-0.0)  # -0.0 + 0.0 is 0.0: other bits

    def backbone(self, x):
        return self.layer(self.stem(x))


def batch():
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), "label": np.array([0, 1, 2, 0, 1, 2])}


def recipe(**options):
    return Recipe(steps=9, batch_size=6, learning_rate=0.1, weight_decay=0.1, **options)


def bits(model) -> dict[str, bytes]:
    flat = nnx.to_flat_state(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return {".".join(map(str, path)): np.asarray(variable[...]).tobytes() for path, variable in flat}


@functools.cache
def compiled(recipe, adamw):
    """The optimizer and the step of a recipe: a state of another optimizer would compile the step again."""
    optimizer = optax.adamw(0.1, weight_decay=0.1) if adamw else recipe.optimizer()
    return optimizer, jax.jit(recipe_step(recipe))


def train(recipe, steps=3, model=None, adamw=False):
    """The state after some steps, and the names of what moved."""
    optimizer, step = compiled(recipe, adamw)
    state = TrainState.create(Net() if model is None else model, recipe, optimizer=optimizer)
    before = bits(state.model)
    for _ in range(steps):
        state, metrics = step(state, batch())
    after = bits(state.model)
    return state, metrics, {name for name in before if before[name] != after[name]}


LAYER = {"layer.conv.kernel", "layer.bn.scale", "layer.bn.bias", "layer.bn.mean", "layer.bn.var"}
STEM = {name.replace("layer", "stem") for name in LAYER}
HEAD = {"head.kernel", "head.bias"}


@pytest.mark.parametrize(
    "options, moved",
    [
        ({}, STEM | LAYER | HEAD),
        ({"frozen": ("stem",)}, LAYER | HEAD),
        ({"frozen": ("stem",), "accumulate": 2, "ema_decay": 0.5}, LAYER | HEAD),
        ({"frozen": ("backbone",)}, HEAD),
        ({"frozen": ("backbone",), "new_layers": ("layer", "head")}, LAYER | HEAD),
        ({"frozen": ("head", "layer.bn")}, STEM | {"layer.conv.kernel"}),
        ({"freeze_batchnorm": True}, {"stem.conv.kernel", "layer.conv.kernel"} | HEAD),
        pytest.param(
            {"freeze_batchnorm": True, "frozen": ("stem",)}, {"layer.conv.kernel"} | HEAD, marks=pytest.mark.long
        ),
    ],
)
def test_what_is_frozen_stays_to_the_last_bit(options, moved):
    assert train(recipe(**options))[2] == moved


def test_whatever_the_optimizer():
    assert train(recipe(frozen=("backbone",)), adamw=True)[2] == HEAD
    assert train(recipe(freeze_batchnorm=True), adamw=True)[2] == {"stem.conv.kernel", "layer.conv.kernel"} | HEAD


def test_the_optimizer_remembers_nothing_of_what_is_frozen():
    def memory(recipe):
        return sum(leaf.size for leaf in jax.tree.leaves(recipe.optimizer().init(nnx.state(Net(), nnx.Param))))

    # Momentum for 8 x 3 weights and 3 biases, and one count of steps; without, for the 468 parameters of both layers.
    assert memory(recipe(frozen=("backbone",))) == 8 * 3 + 3 + 1
    assert memory(recipe()) - memory(recipe(frozen=("backbone",))) == 3 * 3 * 3 * 4 + 8 + 3 * 3 * 4 * 8 + 16


def test_only_what_is_trained_costs_a_gradient():
    """The backward pass of a frozen backbone is not computed: no product of its kernels' gradients is left."""
    state = TrainState.create(Net(), recipe())

    def operations(**options):
        return (
            jax.jit(functools.partial(train_step, **options)).lower(state, batch()).compile().cost_analysis()["flops"]
        )

    forward = jax.jit(lambda model, images: model.features(images)).lower(state.model, batch()["image"]).compile()
    forward = forward.cost_analysis()["flops"]
    assert operations(frozen=("backbone",)) < 1.5 * forward < operations() / 1.5


def test_a_frozen_backbone_is_one_in_inference_mode():
    """The head learns as from features that were computed beforehand."""
    state, metrics, _ = train(recipe(frozen=("backbone",)), steps=1)
    model = Net()
    features = jax.jit(lambda model, images: nnx.view(model, use_running_average=True).features(images))(
        model, batch()["image"]
    )

    def loss(kernel, bias):
        logits = features.mean((1, 2)) @ kernel + bias
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch()["label"]).mean()

    kernel, bias = model.head.kernel[...], model.head.bias[...]
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(kernel, bias)
    # Nesterov from rest: g + 0.9 g.
    np.testing.assert_allclose(
        state.model.head.kernel[...], kernel - 0.1 * 1.9 * (gradients[0] + 0.1 * kernel), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(state.model.head.bias[...], bias - 0.1 * 1.9 * gradients[1], rtol=1e-5, atol=1e-6)
    assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
    norm = np.sqrt(sum(float((g**2).sum()) for g in gradients))
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)  # of what is trained


def test_frozen_batchnorm_runs_with_the_statistics_it_came_with():
    _, metrics, _ = train(recipe(freeze_batchnorm=True), steps=1)
    logits = jax.jit(lambda model, images: nnx.view(model, use_running_average=True)(images))(Net(), batch()["image"])
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, batch()["label"]).mean()
    assert metrics["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert train(recipe(), steps=1)[1]["loss"] != metrics["loss"]


def test_new_layers_and_frozen_ones_together():
    """With the stem frozen the head goes ten times as far in one step, the layer as far as without a factor."""
    plain, tenfold = (
        train(recipe(frozen=("stem",), new_layers_factor=factor), steps=1)[0].model for factor in (1.0, 10.0)
    )
    start = Net()
    for place, factor in (("head", 10), ("layer", 1)):
        a, b, c = (
            np.asarray(getattr(m, place).conv.kernel[...] if place == "layer" else m.head.kernel[...])
            for m in (start, plain, tenfold)
        )
        np.testing.assert_allclose(c - a, factor * (b - a), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"frozen": ("stm",)}, r"frozen 'stm': the model has no parameters there. Its layers are head, layer, stem\."),
        ({"frozen": ("backbone",), "new_layers": ("fc",)}, "new layers 'fc': the model has no parameters there"),
        ({"frozen": ("backbone", "head")}, "frozen 'backbone', 'head': .*nothing is left to train"),
    ],
)
def test_places_that_are_not_there(options, message):
    with pytest.raises(ValueError, match=message):
        TrainState.create(Net(), recipe(**options))
    with pytest.raises(ValueError, match=message):
        train_step(TrainState.create(Net(), recipe()), batch(), **options)


@pytest.mark.parametrize("accumulate", [2, pytest.param(1, marks=pytest.mark.long)])
def test_bfloat16_computes_and_float32_remembers(accumulate):
    options = {"accumulate": accumulate, "ema_decay": 0.5}
    state, metrics, _ = train(recipe(**options), model=Net(jnp.bfloat16))
    _, reference, _ = train(recipe(**options))
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype.name for leaf in floats} == {"float32"}
    assert metrics["loss"] == pytest.approx(float(reference["loss"]), rel=0.02)
    assert metrics["loss"] != reference["loss"]
