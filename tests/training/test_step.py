"""A step is a pure function; its loss, its sums and its random draws."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from camjax.errors import InputError
from camjax.models import CamModel, ConvBN, PooledHead
from camjax.training import Recipe, TrainState, eval_step, train_step
from camjax.training.losses import cross_entropy
from camjax.training.step import recipe_step


class Net(CamModel):
    def __init__(self, dropout=0.0):
        super().__init__(input_size=(8, 8), stride=2, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.layer = ConvBN(3, 8, 3, 2, rngs=nnx.Rngs(1))
        self.head = PooledHead(8, 3, dropout=dropout, rngs=nnx.Rngs(2))

    def backbone(self, x):
        return self.layer(x)


def state_of(model):
    # The warm-up starts at a rate of 0: the first step changes no parameter.
    recipe = Recipe(steps=10, batch_size=6, learning_rate=0.1, warmup_steps=5)
    return TrainState(model, nnx.Optimizer(model, recipe.optimizer(), wrt=nnx.Param))


def batch():
    rng = np.random.default_rng(0)
    return {"image": rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), "label": np.array([0, 1, 2, 0, 1, 2])}


def arrays(tree):
    leaves = jax.tree.leaves(tree)
    return [
        np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x) for x in leaves
    ]


def test_cross_entropy_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))
    assert float(cross_entropy(logits, np.array([0]))[0]) == pytest.approx(np.log(2))
    # 0.7 + 0.1 of the target on the label, 0.1 on each other.
    expected = 0.8 * np.log(2) + 0.2 * np.log(4)
    assert float(cross_entropy(logits, np.array([0]), 0.3)[0]) == pytest.approx(expected, rel=1e-6)


evaluated = jax.jit(eval_step)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("label", [-3, -1, 3, 7])
def test_a_label_outside_of_the_classes_has_no_loss(label, smoothing):
    logits = jax.random.normal(jax.random.key(0), (2, 3))
    losses = cross_entropy(logits, np.array([label, 1]), smoothing)
    assert np.isnan(losses[0]) and np.isfinite(losses[1])
    # Padding has no label.
    padded = {**batch(), "label": np.array([0, 1, 2, 0, 1, label]), "mask": np.array([True] * 5 + [False])}
    assert np.isfinite(evaluated(Net(), padded)["loss"])


@pytest.mark.parametrize("labels", [np.array([0.9, 1.9]), np.eye(3)[:2], np.eye(3, dtype=int)[:2], np.array(1)])
def test_labels_are_one_whole_number_for_each_image(labels):
    with pytest.raises(InputError, match=r"expected one class .* whole number in 0..2"):
        cross_entropy(np.zeros((2, 3), np.float32), labels)


@pytest.mark.parametrize("compiled", [pytest.param(False, marks=pytest.mark.long), True])
def test_the_state_given_stays_as_it_was(compiled):
    state = state_of(Net(dropout=0.5))
    before = arrays(state)
    jax.eval_shape(lambda: train_step(state, batch()))  # whatever it changed of these objects would be no array now
    new, _ = (jax.jit(train_step) if compiled else train_step)(state, batch())
    for a, b in zip(before, arrays(state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (int(state.step), int(new.step)) == (0, 1)
    assert not np.array_equal(state.model.layer.bn.mean[...], new.model.layer.bn.mean[...])
    np.testing.assert_array_equal(state.model.head.kernel[...], new.model.head.kernel[...])
    assert jax.tree.structure(new) == jax.tree.structure(state)  # or the next call would compile again


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_each_step_draws_anew_from_the_same_keys(dropout):
    step = jax.jit(train_step)
    state = state_of(Net(dropout))
    second, first_metrics = step(state, batch())
    _, second_metrics = step(second, batch())
    assert (first_metrics["loss"] == second_metrics["loss"]) == (dropout == 0)
    assert step(state, batch())[1]["loss"] == first_metrics["loss"]
    if dropout:
        np.testing.assert_array_equal(
            *(jax.random.key_data(s.model.head.dropout.rngs.key[...]) for s in (state, second))
        )


def test_a_model_in_inference_mode_is_trained_all_the_same():
    model = Net()
    model.eval()
    new, _ = jax.jit(train_step)(state_of(model), batch())
    assert not np.array_equal(model.layer.bn.mean[...], new.model.layer.bn.mean[...])
    assert new.model.layer.bn.use_running_average


def test_label_smoothing_reaches_the_loss():
    state = state_of(Net())
    plain, smooth = (
        jax.jit(functools.partial(train_step, label_smoothing=s))(state, batch())[1]["loss"] for s in (0.0, 0.3)
    )
    assert plain != smooth


def test_eval_step_counts_what_is_not_padding():
    model = Net(dropout=0.5)
    before = arrays(model)
    mask = np.array([True, True, True, True, False, False])
    sums = evaluated(model, {**batch(), "mask": mask})
    model.eval()
    logits = np.asarray(model(batch()["image"]))[:4].astype(np.float64)
    labels = batch()["label"][:4]
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert float(sums["loss"]) == pytest.approx(-log_softmax[np.arange(4), labels].sum(), rel=1e-5)
    assert float(sums["correct"]) == (logits.argmax(1) == labels).sum()
    assert float(sums["count"]) == 4
    for a, b in zip(before, arrays(model), strict=True):
        np.testing.assert_array_equal(a, b)


SETTINGS = [
    {"jax_enable_x64": True},
    {"jax_numpy_dtype_promotion": "strict"},
    {"jax_numpy_rank_promotion": "raise"},
    {"jax_debug_nans": True, "jax_debug_infs": True},
    pytest.param({"jax_disable_jit": True}, marks=pytest.mark.long),
]
SEEDS = itertools.count()
RECIPE = Recipe(
    steps=9,
    batch_size=6,
    learning_rate=0.1,
    warmup_steps=1,
    decay="step",
    decay_every=1,
    accumulate=2,
    ema_decay=0.9,
    label_smoothing=0.1,
    new_layers_factor=10.0,
)


def trained_and_evaluated(model):
    recipe = dataclasses.replace(RECIPE, seed=next(SEEDS))  # equal ones would share an optimizer
    state, step = TrainState.create(model, recipe), jax.jit(recipe_step(recipe))
    for _ in range(2):
        state, metrics = step(state, batch())
    return arrays((state, metrics, jax.jit(eval_step)(state.evaluated, {**batch(), "mask": np.ones(6, bool)})))


@pytest.fixture(scope="module")
def as_usual():
    return trained_and_evaluated(Net())


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings)))
def test_no_setting_of_jax_changes_training(as_usual, settings):
    model, before = Net(), {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        found = trained_and_evaluated(model)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    for expected, array in zip(as_usual, found, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
