"""Learning rates by hand, and the optimizer against PyTorch's formula written out."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tiny_run import Net

from camjax.training import Recipe


def rates(recipe, steps):
    return [float(recipe.schedule()(step)) for step in steps]


def test_cosine_with_warmup():
    recipe = Recipe(steps=110, batch_size=8, learning_rate=0.2, warmup_steps=10)
    np.testing.assert_allclose(rates(recipe, [0, 5, 10, 60, 110]), [0, 0.1, 0.2, 0.1, 0], atol=1e-8)


def test_step_decay_counts_from_the_first_step():
    recipe = Recipe(steps=90, batch_size=8, learning_rate=1.0, warmup_steps=5, decay="step", decay_every=30)
    np.testing.assert_allclose(
        rates(recipe, [0, 1, 5, 29, 30, 59, 60, 89]), [0, 0.2, 1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6
    )


def test_step_decay_with_a_first_of_its_own():
    recipe = Recipe(steps=9, batch_size=8, learning_rate=1.0, decay="step", decay_every=3, decay_first=2)
    np.testing.assert_allclose(rates(recipe, range(9)), [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001], rtol=1e-6)


def test_constant():
    assert rates(Recipe(steps=9, batch_size=8, learning_rate=0.5, decay="constant"), [0, 8]) == [0.5, 0.5]


@pytest.mark.parametrize("nesterov", [True, False])
def test_three_steps_by_hand(nesterov):
    """PyTorch's SGD: g += decay w; v = momentum v + g; w -= rate (g + momentum v) with nesterov, rate v without."""
    options = {"momentum": 0.9, "weight_decay": 0.01, "nesterov": nesterov}
    optimizer = Recipe(steps=3, batch_size=8, learning_rate=0.1, decay="constant", **options).optimizer()
    kernel, bias = np.array([[2.0, -1.0]], np.float32), np.array([3.0], np.float32)
    parameters = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    state = optimizer.init(parameters)
    expected = {"kernel": kernel.astype(np.float64), "bias": bias.astype(np.float64)}
    velocity = {"kernel": np.zeros((1, 2)), "bias": np.zeros(1)}
    for _ in range(3):
        gradients = jax.tree.map(lambda value: 0.5 * value, parameters)
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        for name, decay in (("kernel", 0.01), ("bias", 0.0)):
            gradient = 0.5 * expected[name] + decay * expected[name]
            velocity[name] = 0.9 * velocity[name] + gradient
            expected[name] = expected[name] - 0.1 * (gradient + 0.9 * velocity[name] if nesterov else velocity[name])
    for name, value in expected.items():
        np.testing.assert_allclose(parameters[name], value, rtol=1e-6)


def test_a_first_step_of_adamw_by_hand():
    """The gradient over its own size, its sign, and of kernels alone 0.01 of the weight; both times the rate."""
    recipe = Recipe(steps=3, batch_size=8, learning_rate=0.1, decay="constant", algorithm="adamw", weight_decay=0.01)
    parameters = {"kernel": jnp.array([[2.0, -1.0]]), "bias": jnp.array([3.0])}
    optimizer = recipe.optimizer()
    updates, _ = optimizer.update(
        jax.tree.map(lambda value: 0.5 * value, parameters), optimizer.init(parameters), parameters
    )
    np.testing.assert_allclose(updates["kernel"], [[-0.1 * (1 + 0.02), 0.1 * (1 + 0.01)]], rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], [-0.1], rtol=1e-5)


def test_new_layers_take_ten_times_the_steps():
    """Three steps from the same gradients: the head goes ten times as far, the rest as far as without."""
    model = Net()
    options = {"steps": 3, "batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.0}
    start = arrays(model)
    ways = []
    for recipe in (Recipe(**options), Recipe(**options, new_layers_factor=10.0)):
        trained = nnx.clone(model)
        optimizer = nnx.Optimizer(trained, recipe.optimizer(), wrt=nnx.Param)
        for _ in range(3):
            optimizer.update(trained, jax.tree.map(jnp.ones_like, nnx.state(trained, nnx.Param)))
        ways.append({name: array - start[name] for name, array in arrays(trained).items()})
    plain, tenfold = ways
    # Nesterov from rest with gradient 1: v is 1, 1.9, 2.71; g + 0.9 v is 1.9, 2.71, 3.439; rates 0.01 x 1, 3/4, 1/4.
    np.testing.assert_allclose(plain["head.bias"], -0.01 * (1.9 + 0.75 * 2.71 + 0.25 * 3.439), rtol=1e-5)
    for name, way in plain.items():
        factor = 10 if name.startswith("head.") else 1
        np.testing.assert_allclose(tenfold[name], factor * way, rtol=1e-4, atol=1e-6, err_msg=name)


def arrays(model) -> dict[str, np.ndarray]:
    return {
        ".".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }


@pytest.mark.parametrize("number", [np.float32, jnp.float32])
def test_numbers_of_arrays_are_pythons(number):
    recipe = Recipe(steps=np.int64(5), batch_size=8, learning_rate=number(0.5))
    assert recipe == Recipe(steps=5, batch_size=8, learning_rate=0.5)
    assert json.loads(json.dumps(dataclasses.asdict(recipe)))["learning_rate"] == 0.5
    assert recipe.optimizer() is Recipe(steps=5, batch_size=8, learning_rate=0.5).optimizer()


def test_a_recipe_survives_its_file():
    places = {"new_layers": ("head", "cam_conv"), "frozen": ("conv1", "backbone")}
    recipe = Recipe(steps=3, batch_size=8, learning_rate=0.1, new_layers_factor=10, ema_decay=0.99, **places)
    written = dataclasses.asdict(recipe)
    assert json.loads(json.dumps(written)) == written
    assert written["new_layers"] == ["head", "cam_conv"] and written["new_layers_factor"] == 10
    assert written["frozen"] == ["conv1", "backbone"] and written["accumulate"] == 1
    assert Recipe(**written) == recipe and hash(recipe) == hash(Recipe(**written))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"learning_rate": -0.1}, "learning_rate=-0.1: expected a positive number"),
        ({"warmup_steps": 11}, r"warmup_steps=11: expected 0\.\.steps"),
        ({"decay": "step"}, "decay_every=None: expected a number of steps"),
        ({"decay_every": 3}, "decay_every=3: .* None otherwise"),
        ({"decay": "linear"}, "decay='linear': expected"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"new_layers_factor": 0}, "new_layers_factor=0: expected a positive number"),
        ({"new_layers": "head"}, "new_layers='head': expected places in the model"),
        ({"new_layers": ()}, "new_layers=.*: expected places in the model"),
        ({"accumulate": 0}, "accumulate=0: expected at least 1, and a divisor of batch_size=8"),
        ({"accumulate": 3}, "accumulate=3: expected at least 1, and a divisor of batch_size=8"),
        ({"decay_first": 3}, 'decay_first=3: expected a step, at least 1, with decay="step"'),
        ({"ema_decay": 1.0}, "ema_decay=1.0: expected 0 < ema_decay < 1, or None"),
        ({"frozen": "backbone"}, "frozen='backbone': expected places in the model"),
        (
            {"frozen": ("head",), "new_layers_factor": 10, "new_layers": ("head.kernel",)},
            "frozen=.*new_layers_factor",
        ),
        ({"accumulate": 3, "ema_decay": 0}, "accumulate=3: .*; ema_decay=0: "),
        ({"steps": 0, "momentum": 1.0}, "steps=0: .*; momentum=1.0: "),
    ],
)
def test_a_recipe_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"steps": 10, "batch_size": 8, "learning_rate": 0.1, **change})
