"""The CPU's forms of convolutions against XLA's own convolution, forwards and backwards."""

import functools

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


# Those of many channels, whose forms are others.
WIDE_CASES = {
    "Winograd": ((3, 3), (1, 1), "SAME", 0, (7, 10)),
    "Winograd, padded on one side": ((3, 3), (1, 1), ((2, 0), (0, 1)), 0, (9, 8)),
    "Winograd, without padding": ((3, 3), (1, 1), "VALID", 0, (9, 10)),
    "few tiles": ((3, 3), (1, 1), "SAME", 0, (4, 4)),
    "strided": ((3, 3), (2, 2), "SAME", 0, (7, 6)),
    "oblong": ((1, 5), (1, 1), "SAME", 0, (4, 6)),
    "stem": ((7, 7), (2, 2), ((3, 3), (3, 3)), 0, (11, 9)),
}


@pytest.mark.parametrize(
    ("case", "batch"), [*((case, batch) for case in CASES for batch in (1, 3)), *((case, 4) for case in WIDE_CASES)]
)
def test_the_same_convolution(case, batch):
    kernel, strides, padding, groups, size = {**CASES, **WIDE_CASES}[case]
    features = 4 if case in CASES else 128
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
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 if case in CASES else 2e-6 * np.abs(b).max())


def test_an_image_too_small_for_one_window_gives_an_empty_map():
    images, weights = jnp.ones((1, 3, 3, 2)), jnp.ones((4, 4, 2, 5))
    assert conv_general_dilated(images, weights, (4, 4), "VALID", dimension_numbers=DIMENSIONS).shape == (1, 0, 0, 5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "size", "shapes"),
    [((3, 3, 128, 128), 16, "Winograd"), ((3, 3, 3, 64), 16, "native"), ((1, 1, 64, 64), 8, "product")],
)
def test_only_cpus_have_forms_of_their_own(kernel, size, shapes, dtype):
    arguments = [jax.ShapeDtypeStruct((2, size, size, kernel[2]), dtype), jax.ShapeDtypeStruct(kernel, dtype)]

    def convolution(images, weights):
        return conv_general_dilated(images, weights, (1, 1), "SAME", dimension_numbers=DIMENSIONS)

    def lowered(platform):
        return jax.jit(convolution).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" in lowered("tpu") and "stablehlo.convolution" in lowered("cuda")
    products = lowered("cpu").count("stablehlo.dot_general")
    assert products == {"Winograd": 16 if dtype == jnp.float32 else 0, "native": 0, "product": 1}[shapes]


def test_gradients_of_a_batch_of_convolutions():
    """`vmap` of `grad` and `grad` of `vmap`."""
    rng = np.random.default_rng(0)
    for case in ("depthwise", "Winograd", "stem"):
        kernel, strides, padding, groups, size = {**CASES, **WIDE_CASES}[case]
        features = 64
        images = jnp.asarray(rng.normal(size=(2, 4, *size, features)), jnp.float32)
        weights = jnp.asarray(rng.normal(size=(*kernel, 1 if groups else features, features)), jnp.float32)

        def total(images, weights, convolution=conv_general_dilated, strides=strides, padding=padding, groups=groups):
            options = {"dimension_numbers": DIMENSIONS, "feature_group_count": 64 if groups else 1}
            return jnp.sin(convolution(images, weights, strides, padding, **options)).sum()

        expected = jax.vmap(jax.grad(functools.partial(total, convolution=lax.conv_general_dilated)), (0, None))(
            images, weights
        )
        found = jax.vmap(jax.grad(total), (0, None))(images, weights)
        turned = jax.grad(lambda images, weights=weights: jax.vmap(total, (0, None))(images, weights).sum())(images)
        for gradient in (found, turned):
            np.testing.assert_allclose(gradient, expected, atol=1e-4 * float(jnp.abs(expected).max()))
