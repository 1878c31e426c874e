"""Max pooling against XLA's window reduction and PyTorch's choice among equal pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from camjax.models.pooling import max_pool

TYPES = jnp.float32, jnp.bfloat16


def reduced(x, size, strides, pads):
    return nnx.max_pool(x, (size, size), (strides, strides), padding=pads)


@pytest.mark.parametrize(
    ("size", "strides", "pads", "shape"),
    [
        (3, 2, ((1, 1), (1, 1)), (11, 8)),
        (2, 2, ((0, 0), (0, 0)), (7, 6)),
        (3, 2, ((0, 1), (0, 0)), (8, 9)),
        (3, 1, ((1, 1), (1, 1)), (5, 6)),
        (2, 3, ((0, 0), (1, 0)), (8, 9)),
    ],
)
def test_the_same_maxima_and_gradients(size, strides, pads, shape):
    x = np.random.default_rng(0).permutation(2 * shape[0] * shape[1] * 3).reshape(2, *shape, 3) / 4
    x = jnp.asarray(x, jnp.float32)  # no two alike

    @jax.jit
    def outcomes(x):
        outcomes = []
        for pool in (max_pool, reduced):
            y, pullback = jax.vjp(lambda x, pool=pool: pool(x, size, strides, pads), x)
            gradient = pullback(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))
            outcomes.append((y, *gradient, *(pool(x.astype(t), size, strides, pads) for t in TYPES)))
        return outcomes

    ours, expected = outcomes(x)
    for a, b, dtype in zip(ours, expected, (jnp.float32, jnp.float32, *TYPES), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a, b)


def test_the_first_of_equal_pixels_has_the_gradient():
    x = np.zeros((1, 4, 4, 1), np.float32)
    gradient = jax.jit(jax.grad(lambda x: max_pool(x, 3, 1).sum()))(x)
    # Windows begin at the four pixels of the first two rows and columns, and all of their pixels are equal.
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[1, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4])


def test_accelerators_have_the_reduction():
    traced = jax.jit(jax.grad(lambda x: max_pool(x, 3, 2).sum())).trace(jnp.zeros((1, 8, 8, 2)))
    for platform in ("cpu", "tpu", "cuda"):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("select_and_scatter" in program) == (platform != "cpu")
