"""Micro-batches: one after the other they take the step of the whole batch, in the memory of one."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from camjax.models import CamModel, ConvBN, PooledHead
from camjax.training import Recipe, TrainState, train_step

# Plain steps, which add up: no momentum, no weight decay.
PLAIN = Recipe(steps=9, batch_size=8, learning_rate=0.1, decay="constant", momentum=0.0, weight_decay=0.0)


class Net(CamModel):
    def __init__(self, *, dropout=0.0, batchnorm=True, features=8):
        super().__init__(input_size=(8, 8), stride=2, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.layer = ConvBN(3, features, 3, 2, rngs=nnx.Rngs(1))
        self.head = PooledHead(features, 3, dropout=dropout, rngs=nnx.Rngs(2))
        if not batchnorm:
            self.layer.bn = None

    def backbone(self, x):
        return self.layer(x)


def batch(size=8, side=8):
    rng = np.random.default_rng(0)
    # Of their own brightness: the statistics of one part are not those of another.
    images = rng.integers(0, 90, (size, side, side, 3)) + 20 * np.arange(size).reshape(-1, 1, 1, 1) % 160
    return {"image": images.astype(np.uint8), "label": np.arange(size) % 3}


def part(batch, start, stop):
    return {name: value[start:stop] for name, value in batch.items()}


def parameters(state) -> dict[str, np.ndarray]:
    flat = nnx.to_flat_state(nnx.state(state.model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(variable[...]) for path, variable in flat}


@functools.cache
def step(**options):
    return jax.jit(functools.partial(train_step, **options))


@pytest.mark.parametrize("accumulate", [2, 8])
def test_without_batchnorm_it_is_the_step_of_the_whole_batch(accumulate):
    recipe = Recipe(steps=9, batch_size=8, learning_rate=0.1, weight_decay=0.01)
    whole, parts = (TrainState.create(Net(batchnorm=False), recipe) for _ in range(2))
    start = parameters(whole)
    for _ in range(3):
        whole, a = step(label_smoothing=0.1)(whole, batch())
        parts, b = step(label_smoothing=0.1, accumulate=accumulate)(parts, batch())
        for name in a:
            np.testing.assert_allclose(b[name], a[name], rtol=2e-6, err_msg=name)
    for name, value in parameters(whole).items():
        way = np.abs(value - start[name]).max()
        np.testing.assert_allclose(parameters(parts)[name], value, atol=2e-6 * way + 1e-7, rtol=0, err_msg=name)


def test_batchnorm_takes_each_part_by_itself():
    """The mean of two gradients, each with statistics of its own, and running averages that move twice."""
    state = TrainState.create(Net(), PLAIN)
    accumulated, metrics = step(accumulate=2)(state, batch())
    halves = [step()(state, part(batch(), *ends)) for ends in ((0, 4), (4, 8))]
    for name, value in parameters(accumulated).items():
        expected = (parameters(halves[0][0])[name] + parameters(halves[1][0])[name]) / 2
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)
    assert metrics["loss"] == pytest.approx(float(halves[0][1]["loss"] + halves[1][1]["loss"]) / 2, rel=1e-6)

    images = (batch()["image"].astype(np.float32) - 127.5) / 127.5
    x = np.asarray(state.model.layer.conv(images), np.float64)
    means = [half.mean((0, 1, 2)) for half in (x[:4], x[4:])]
    variances = [half.var((0, 1, 2)) for half in (x[:4], x[4:])]
    bn = accumulated.model.layer.bn
    np.testing.assert_allclose(bn.mean[...], 0.9 * 0.1 * means[0] + 0.1 * means[1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bn.var[...], 0.81 + 0.9 * 0.1 * variances[0] + 0.1 * variances[1], rtol=1e-4)


def test_dropout_differs_in_each_part():
    """One image eight times: of 32 features about half fall out of one draw, and none out of eight."""
    one = part(batch(), 0, 1)
    eight = {name: np.repeat(value, 8, 0) for name, value in one.items()}
    state = TrainState.create(Net(dropout=0.5, batchnorm=False, features=32), PLAIN)

    def learned(new):
        """How many of the features that are not 0 for this image had a part in the step."""
        alive = np.asarray(state.model.features(one["image"])).mean((0, 1, 2)) > 0
        moved = (parameters(new)["head.kernel"] != parameters(state)["head.kernel"]).any(1)
        return moved[alive].mean()

    assert 0.2 < learned(step()(state, one)[0]) < 0.8
    assert learned(step(accumulate=8)(state, eight)[0]) > 0.95
    again = step(accumulate=8)(state, eight)[1]["loss"]
    assert step(accumulate=8)(state, eight)[1]["loss"] == again


def test_the_memory_is_that_of_a_part():
    state, images = TrainState.create(Net(features=32), PLAIN), batch(32, side=32)

    def working_memory(accumulate):
        return step(accumulate=accumulate).lower(state, images).compile().memory_analysis().temp_size_in_bytes

    assert working_memory(8) < working_memory(1) / 4


@pytest.mark.parametrize("accumulate", [0, 3])
def test_a_batch_that_does_not_split(accumulate):
    with pytest.raises(ValueError, match=f"accumulate={accumulate} with 8 images on a device: expected"):
        train_step(TrainState.create(Net(), PLAIN), batch(), accumulate=accumulate)
