"""ReLU in bfloat16, with the fault of XLA that it goes around, and weights that a snapshot keeps in bfloat16."""

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest
from flax import nnx

from camjax.models.layers import ConvBN, fold_batchnorm, relu, softmax_times

FIRST_WRONG = (0, 11, 2)
"""The first jaxlib with the fault that `relu` tells of: 0.10.2, 0.11.0 and 0.11.1 are right, 0.12.0.1 is not."""
NUMBERS = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 16, 64)), jnp.bfloat16)


def is_right(activation):
    """Whether maxima over two activations are those of the same bfloat16 numbers in NumPy, each time."""

    @jax.jit
    def highest(x):
        return activation(activation(x) * x).max((1, 2))

    positive = np.maximum(np.asarray(NUMBERS, np.float32), 0)
    expected = (positive**2).astype(jnp.bfloat16).max((1, 2))
    # bfloat16 has 8 bits; XLA keeps more of the product's.
    return all(np.allclose(np.asarray(highest(NUMBERS), np.float32), expected, rtol=2**-7) for _ in range(10))


def test_two_activations_before_a_maximum():
    assert is_right(relu)


def test_xla_still_needs_the_way_around():
    if jaxlib.version.__version_info__ < FIRST_WRONG:
        pytest.skip("this jaxlib is older than the fault")
    assert not is_right(nnx.relu), (
        f"jaxlib {jaxlib.version.__version__} is right: once camjax asks for it, `camjax.models.layers.relu` can be "
        "`nnx.relu` again, and this file can go."
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_numbers_and_derivatives_of_nnx(dtype):
    x = jnp.asarray([-np.inf, -3e38, -1.5, -1e-40, -0.0, 0.0, 1e-40, 1.0078125, 3e38, np.inf, np.nan], dtype)
    for found, expected in zip(jax.vjp(jax.jit(relu), x), jax.vjp(nnx.relu, x), strict=True):
        if callable(found):
            (found,), (expected,) = found(x), expected(x)
        assert found.dtype == expected.dtype == x.dtype
        np.testing.assert_array_equal(np.asarray(found, np.float32), np.asarray(expected, np.float32))


def test_folded_weights_are_rounded_once_to_what_each_call_computes_with():
    layer = ConvBN(3, 64, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    layer.eval()
    folded = fold_batchnorm(layer)
    assert {weights.dtype for weights in jax.tree.leaves(folded)} == {jnp.dtype(jnp.bfloat16)}
    exact = fold_batchnorm(ConvBN(3, 64, 3, rngs=nnx.Rngs(0)))
    exact.conv.dtype = exact.dtype = jnp.bfloat16
    assert {weights.dtype for weights in jax.tree.leaves(exact)} == {jnp.dtype(jnp.float32)}
    images = NUMBERS[..., :3]
    np.testing.assert_array_equal(folded(images), exact(images))
    assert layer.conv.kernel.dtype == jnp.float32, "the network itself keeps its weights"


def test_softmax_times_equals_a_softmax_and_a_product():
    keys = jax.random.split(jax.random.key(0), 2)
    scores = jax.random.normal(keys[0], (2, 3, 5, 7))
    values = jax.random.normal(keys[1], (2, 3, 7, 4))

    def by(form):
        gradient = jax.grad(lambda scores: (form(scores, values) ** 2).sum())
        return jax.jit(lambda: (form(100 * scores, values), gradient(scores)))()  # exponentials of 100 are infinite

    found, expected = by(softmax_times), by(lambda scores, values: jax.nn.softmax(scores) @ values)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
