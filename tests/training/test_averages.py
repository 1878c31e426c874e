"""Averaged weights, by hand and step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from camjax.models import CamModel, ConvBN, PooledHead
from camjax.training import Recipe, TrainState, train_step
from camjax.training.averages import decay_at, update_average


class Net(CamModel):
    def __init__(self):
        super().__init__(input_size=(8, 8), stride=2, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.layer = ConvBN(3, 8, 3, 2, rngs=nnx.Rngs(1))
        self.head = PooledHead(8, 3, dropout=0.2, rngs=nnx.Rngs(2))

    def backbone(self, x):
        return self.layer(x)


def batch(seed):
    rng = np.random.default_rng(seed)
    return {"image": rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8), "label": np.array([0, 1, 2, 0, 1, 2])}


def parameters(model) -> dict[str, np.ndarray]:
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(variable[...]) for path, variable in flat}


def test_the_decay_of_the_first_steps():
    np.testing.assert_allclose(
        [decay_at(0.99, step) for step in (0, 1, 8, 889, 890, 891, 10**6)],
        [1 / 10, 2 / 11, 0.5, 890 / 899, 0.99, 0.99, 0.99],
        rtol=1e-6,
    )
    assert float(decay_at(0.05, 0)) == pytest.approx(0.05)


def test_one_update_by_hand():
    average, model = Net(), Net()
    average.head.bias[...] = jnp.array([1.0, 2.0, 3.0])
    model.head.bias[...] = jnp.array([5.0, 2.0, -1.0])
    model.layer.bn.mean[...] = jnp.arange(8.0)
    new = update_average(average, model, decay=0.75, step=jnp.uint32(100))
    np.testing.assert_allclose(new.head.bias[...], [2.0, 2.0, 2.0], rtol=1e-6)
    np.testing.assert_array_equal(new.layer.bn.mean[...], np.arange(8))
    np.testing.assert_array_equal(average.head.bias[...], [1, 2, 3])  # what was given stays
    np.testing.assert_array_equal(average.layer.bn.mean[...], np.zeros(8))


def test_the_average_follows_training():
    recipe = Recipe(steps=9, batch_size=6, learning_rate=0.1, decay="constant", ema_decay=0.4, frozen=("layer.conv",))
    state = TrainState.create(Net(), recipe)
    assert state.evaluated is state.ema
    expected = {name: value.astype(np.float64) for name, value in parameters(state.model).items()}
    structure = jax.tree.structure(state)
    step = jax.jit(lambda state, batch: train_step(state, batch, ema_decay=0.4, frozen=("layer.conv",)))
    for number in range(7):
        state, _ = step(state, batch(number))
        decay = min(0.4, (1 + number) / (10 + number))  # 0.4 from the sixth on
        for name, value in parameters(state.model).items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    assert jax.tree.structure(state) == structure  # or each step would compile again
    for name, value in parameters(state.ema).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
        moved = not np.array_equal(value, parameters(state.model)[name])
        assert moved == (name != "layer.conv.kernel"), name  # a frozen parameter is its own average, bit for bit
    for name in ("mean", "var"):
        np.testing.assert_array_equal(getattr(state.ema.layer.bn, name)[...], getattr(state.model.layer.bn, name)[...])


def test_a_state_without_average():
    recipe = Recipe(steps=9, batch_size=6, learning_rate=0.1)
    state = TrainState.create(Net(), recipe)
    assert state.ema is None and state.evaluated is state.model
    with pytest.raises(ValueError, match=r"ema_decay=0.9 with a state that has no averaged weights"):
        train_step(state, batch(0), ema_decay=0.9)
    with pytest.raises(ValueError, match=r"ema_decay=None with a state that has averaged weights"):
        train_step(state._replace(ema=Net()), batch(0))


def test_the_average_starts_as_a_copy():
    """A step that gives the memory of its state away may be given both."""
    recipe = Recipe(steps=9, batch_size=6, learning_rate=0.1, ema_decay=0.9)
    step = jax.jit(lambda state, batch: train_step(state, batch, ema_decay=0.9), donate_argnums=0)
    state = TrainState.create(Net(), recipe)
    for number in range(3):
        state, metrics = step(state, batch(number))
    assert np.isfinite(metrics["loss"])
