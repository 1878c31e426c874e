"""camjax's BatchNorm is Flax's: results, statistics and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from camjax.models.batchnorm import BatchNorm

RNG = np.random.default_rng(0)
FEATURES = (RNG.normal(size=(4, 5, 6, 3)) * [1, 2, 0.5] + [0, 3, -5]).astype(np.float32)
COTANGENT = RNG.normal(size=FEATURES.shape).astype(np.float32)


def layer_of(kind):
    layer = kind(3, momentum=0.9, epsilon=1e-3, rngs=nnx.Rngs(0))
    for name, values in {"scale": [1, 0.5, -2], "bias": [0, 1, 2], "mean": [0, 1, -1], "var": [1, 2, 3]}.items():
        getattr(layer, name).set_value(jnp.array(values, jnp.float32))
    return layer


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_same_numbers_as_flax(running, dtype):
    found = []
    for kind in (BatchNorm, nnx.BatchNorm):
        layer = layer_of(kind)

        @jax.jit
        def outcome(layer, x):
            def of(layer, x):
                out = layer(x, use_running_average=running)
                return (out.astype(jnp.float32) * COTANGENT).sum(), out

            (_, out), gradients = nnx.value_and_grad(of, argnums=(0, 1), has_aux=True)(layer, x)
            return out, gradients, nnx.state(layer)

        found.append(jax.tree.leaves(outcome(layer, jnp.asarray(FEATURES, dtype))))
    for ours, theirs in zip(*found, strict=True):
        scale = np.abs(np.asarray(theirs, np.float32)).max()
        np.testing.assert_allclose(
            np.asarray(ours, np.float32),
            np.asarray(theirs, np.float32),
            atol=(2e-6 if dtype == jnp.float32 else 1e-2) * scale,
        )


def test_derivatives_in_forward_mode_and_of_second_order():
    def of(kind):
        return lambda x: (jnp.tanh(layer_of(kind)(x)) * COTANGENT).sum()

    direction = jnp.asarray(COTANGENT[::-1])
    ours, theirs = (
        jax.jit(lambda x, kind=kind: jax.jvp(jax.grad(of(kind)), (x,), (direction,))[1])(FEATURES)
        for kind in (BatchNorm, nnx.BatchNorm)
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_a_mask_is_refused():
    with pytest.raises(NotImplementedError, match="takes no mask"):
        layer_of(BatchNorm)(FEATURES, mask=FEATURES > 0)
