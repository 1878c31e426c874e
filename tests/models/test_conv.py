"""The CPU's forms of convolutions against XLA's own convolution, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from camjax.models.conv import conv_general_dilated

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# kernel (height, width), strides, padding, groups as a share of the features: 0 none, 1 depthwise, and image size.
CASES = {
    "pointwise": ((1, 1), (1, 1), "VALID", 0, (6, 5)),
    "pointwise, strided": ((1, 1), (2, 3), "VALID", 0, (6, 5)),
    "depthwise": ((3, 3), (1, 1), "SAME", 1, (6, 5)),
    "depthwise, strided": ((5, 3), (2, 1), ((2, 1), (0, 1)), 1, (8, 7)),
    "depthwise, large": ((7, 7), (1, 1), ((3, 3), (3, 3)), 1, (6, 5)),
    "depthwise, large, strided": ((7, 5), (2, 3), "SAME", 1, (9, 8)),
    "side by side": ((2, 2), (2, 2), "VALID", 0, (6, 4)),
    "side by side, with a rest": ((4, 3), (4, 3), "VALID", 0, (11, 8)),
    "side by side, padded": ((2, 2), (2, 2), ((1, 1), (0, 0)), 0, (6, 4)),
    "plain": ((3, 3), (1, 1), "SAME", 0, (6, 5)),
    "grouped": ((3, 3), (1, 1), "SAME", 2, (6, 5)),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_same_convolution(case, batch):
    kernel, strides, padding, groups, size = CASES[case]
    features = 4
    group_count = {0: 1, 1: features, 2: 2}[groups]
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(batch, *size, features)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(*kernel, features // group_count, features)), jnp.float32)
    options = {"dimension_numbers": DIMENSIONS, "feature_group_count": group_count}

    def outcome(convolution, images, weights):
        def f(images, weights):
            return convolution(images, weights, strides, padding, **options)

        out, pullback = jax.vjp(f, images, weights)
        return out, *pullback(jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    def outcomes(images, weights):
        return [outcome(f, images, weights) for f in (conv_general_dilated, lax.conv_general_dilated)]

    ours, expected = jax.jit(outcomes)(images, weights)
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_an_image_too_small_for_one_window_gives_an_empty_map():
    images, weights = jnp.ones((1, 3, 3, 2)), jnp.ones((4, 4, 2, 5))
    assert conv_general_dilated(images, weights, (4, 4), "VALID", dimension_numbers=DIMENSIONS).shape == (1, 0, 0, 5)
