"""The CPU's forms of convolutions against XLA's own convolution, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from camjax.models.conv import conv_general_dilated

DIMENSIONS = ("NHWC", "HWIO", "NHWC")

# kernel (height, width), strides, padding, image size, channels in and out, and groups where there are several.
CASES = {
    "pointwise": ((1, 1), (1, 1), "VALID", (6, 5), (4, 4)),
    "pointwise, strided": ((1, 1), (2, 3), "VALID", (6, 5), (4, 4)),
    "depthwise": ((3, 3), (1, 1), "SAME", (6, 5), (4, 4), 4),
    "depthwise, strided": ((5, 3), (2, 1), ((2, 1), (0, 1)), (8, 7), (4, 4), 4),
    "depthwise, large": ((7, 7), (1, 1), ((3, 3), (3, 3)), (6, 5), (4, 4), 4),
    "depthwise, large, strided": ((7, 5), (2, 3), "SAME", (9, 8), (4, 4), 4),
    "side by side": ((2, 2), (2, 2), "VALID", (6, 4), (4, 4)),
    "side by side, with a rest": ((4, 3), (4, 3), "VALID", (11, 8), (4, 4)),
    "side by side, padded": ((2, 2), (2, 2), ((1, 1), (0, 0)), (6, 4), (4, 4)),
    "plain": ((3, 3), (1, 1), "SAME", (6, 5), (4, 4)),
    "grouped": ((3, 3), (1, 1), "SAME", (6, 5), (66, 4), 2),
    "narrow groups": ((3, 3), (1, 1), "SAME", (6, 5), (4, 4), 2),
    "groups of RegNet": ((3, 3), (2, 2), ((1, 1), (1, 1)), (9, 8), (48, 48), 2),
    "several dense ones of narrow groups": ((3, 3), (2, 1), ((1, 1), (0, 1)), (9, 8), (160, 32), 16),
    # Many pixels and channels: their forms are others.
    "Winograd": ((3, 3), (1, 1), "SAME", (17, 18), (256, 256)),
    "Winograd's gradient": ((3, 3), (1, 1), ((2, 0), (0, 1)), (18, 18), (32, 64)),
    "Winograd's gradient, without padding": ((3, 3), (1, 1), "VALID", (21, 20), (32, 64)),
    "strided": ((3, 3), (2, 2), "SAME", (33, 32), (8, 64)),
    "oblong": ((1, 5), (1, 1), "SAME", (18, 17), (8, 64)),
    "stem": ((7, 7), (3, 2), ((3, 3), (2, 3)), (56, 40), (3, 64)),
}


OF_ONE_IMAGE = ("pointwise", "depthwise", "side by side", "plain", "narrow groups")  # one case of each form


@pytest.mark.parametrize(
    ("case", "batch"),
    [
        *((case, 2) for case in CASES),
        *(
            pytest.param(case, 1, marks=[pytest.mark.long] * (case not in OF_ONE_IMAGE))
            for case in CASES
            if CASES[case][4] == (4, 4)
        ),
    ],
)
def test_the_same_convolution(case, batch):
    images, weights, strides, padding, options = problem(case, batch)

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
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * np.abs(b).max())


def problem(case, batch):
    """Images, a kernel, and the other arguments of a convolution."""
    kernel, strides, padding, size, (inputs, outputs), *groups = CASES[case]
    (groups,) = groups or [1]
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(batch, *size, inputs)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(*kernel, inputs // groups, outputs)), jnp.float32)
    return images, weights, strides, padding, {"dimension_numbers": DIMENSIONS, "feature_group_count": groups}


def test_an_image_too_small_for_one_window_gives_an_empty_map():
    images, weights = np.ones((1, 3, 3, 2), np.float32), np.ones((4, 4, 2, 5), np.float32)
    convolution = jax.jit(lambda x, w: conv_general_dilated(x, w, (4, 4), "VALID", dimension_numbers=DIMENSIONS))
    assert convolution(images, weights).shape == (1, 0, 0, 5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("case", "products"), [("Winograd", 1), ("strided", 0), ("pointwise", 1)])
def test_only_cpus_have_forms_of_their_own(case, products, dtype):
    images, weights, strides, padding, options = problem(case, 2)

    def convolution(images, weights):
        return conv_general_dilated(images, weights, strides, padding, **options)

    def lowered(platform):
        traced = jax.jit(convolution).trace(images.astype(dtype), weights.astype(dtype))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" in lowered("tpu") and "stablehlo.convolution" in lowered("cuda")
    if dtype == jnp.bfloat16 and case == "Winograd":
        products = 0
    assert lowered("cpu").count("stablehlo.dot_general") == products
    assert ("stablehlo.convolution" in lowered("cpu")) == (not products)


def test_derivatives_of_every_kind():
    """Forward mode, reverse mode, the second order, and each under `vmap`, with and without a kernel for each image."""
    images, weights, strides, padding, options = problem("depthwise", 2)
    several = [jnp.asarray(np.stack([x, 2 * x, x - 1])) for x in map(np.asarray, (images, weights))]

    def derivatives(convolution):
        def f(images, weights):
            return jnp.sin(convolution(images, weights, strides, padding, **options)).sum()

        both = jax.grad(f, (0, 1))
        return {
            "forward mode": jax.jvp(f, (images, weights), (images + 1, weights * 2)),
            "second order": jax.grad(lambda images: (jax.grad(f, 1)(images, weights) ** 2).sum())(images),
            "forward over reverse": jax.jvp(both, (images, weights), (images + 1, weights * 2)),
            "vmap over images": jax.vmap(both, (0, None))(several[0], weights),
            "vmap over kernels": jax.vmap(both, (None, 0))(images, several[1]),
            "vmap over both": jax.vmap(both)(*several),
            "of vmap": jax.grad(lambda w: jax.vmap(f, (0, None))(several[0], w).sum())(weights),
            "vmap of another axis": jax.vmap(both, (1, None))(jnp.moveaxis(several[0], 0, 1), weights),
        }

    expected = jax.jit(lambda: derivatives(lax.conv_general_dilated))()
    found = jax.jit(lambda: derivatives(conv_general_dilated))()
    for kind, arrays in expected.items():
        for a, b in zip(jax.tree.leaves(found[kind]), jax.tree.leaves(arrays), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max(), err_msg=kind)


def test_the_kernel_of_a_shard_map_is_shared():
    """Its gradient is the sum over the devices' images."""
    images, weights, strides, padding, options = problem("depthwise", 4)
    devices = jax.devices()  # one in most runs: JAX checks what varies between devices all the same
    mesh = Mesh(np.array(devices), ("batch",))

    def of_kernel(convolution):
        return jax.grad(
            lambda weights, images: jnp.sin(convolution(images, weights, strides, padding, **options)).sum()
        )

    split, shared = PartitionSpec("batch"), PartitionSpec()
    gradient = jax.shard_map(of_kernel(conv_general_dilated), mesh=mesh, in_specs=(shared, split), out_specs=shared)
    expected = jax.jit(of_kernel(lax.conv_general_dilated))(weights, images)
    np.testing.assert_allclose(jax.jit(gradient)(weights, images), expected, atol=1e-5 * np.abs(expected).max())
