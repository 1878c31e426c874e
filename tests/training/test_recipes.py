"""Learning rates by hand, and the optimizer against PyTorch's formula written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


def test_constant():
    assert rates(Recipe(steps=9, batch_size=8, learning_rate=0.5, decay="constant"), [0, 8]) == [0.5, 0.5]


def test_three_steps_by_hand():
    """PyTorch's SGD(nesterov=True): g += decay w; v = momentum v + g; w -= rate (g + momentum v)."""
    recipe = Recipe(steps=3, batch_size=8, learning_rate=0.1, decay="constant", momentum=0.9, weight_decay=0.01)
    optimizer = recipe.optimizer()
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
            expected[name] = expected[name] - 0.1 * (gradient + 0.9 * velocity[name])
    for name, value in expected.items():
        np.testing.assert_allclose(parameters[name], value, rtol=1e-6)


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
        ({"steps": 0, "momentum": 1.0}, "steps=0: .*; momentum=1.0: "),
    ],
)
def test_a_recipe_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"steps": 10, "batch_size": 8, "learning_rate": 0.1, **change})
