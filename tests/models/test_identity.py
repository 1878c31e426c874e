"""What a class activation map has to do with the logit of its class, for every model of the registry."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos, random_network
from flax import nnx
from networks import NAMES, TOKENS, cut

import camjax
from camjax.models import CamModel

SIGNED, POSITIVE, ONE_HOT = range(3)  # what the kernel's columns of these classes are
CLASSES = 5
CLASSIFIERS = {"alexnet", "vgg16", *TOKENS}  # which have fully connected layers, or a class token, and no maps
# Variants that differ from another model in depth, width or stride alone, or in blocks that end in the same way.
VARIANTS = {
    *("resnet34", "resnet101", "resnet152", "resnet50_wsol", "resnet50_wsol_28x28"),
    *(f"efficientnet_lite{variant}" for variant in (1, 2, 3, 4)),
    *(f"vit_{size}_avg_224" for size in ("tiny_patch16", "base_patch16", "small_patch32", "base_patch32")),
    *(f"vit_{size}_patch16_reg4_gap_256" for size in ("little", "medium", "betwixt")),
    *("alexnet_gap", "googlenet", "vgg16_wsol", "vgg16_wsol_28x28"),
    *("inception_v3", "inception_v3_wsol", "inception_v3_wsol_28x28"),
    *("wide_resnet50_2", "resnext50_32x4d", "regnety_016", "efficientnet_v2_s", "tf_efficientnetv2_s"),
    *("mobilenet_v3_large", "mobilenetv3_large_100", "mobilenetv3_small_100", "convnextv2_tiny"),
}
# Pooling of each head in bfloat16 too; the other networks only in the long tests.
IN_HALF_PRECISION = {"resnet18", "small_gap", "squeezenet1_1"}
WITH_MAPS = [name for name in NAMES if name not in CLASSIFIERS]
FLOAT32, BFLOAT16 = ("float32", (65, 98)), ("bfloat16", (96, 64))
WHOLE = [(name, *case) for name in WITH_MAPS for case in (FLOAT32, BFLOAT16)] + [("resnet18", "float32", (64, 64))]
CASES = [
    *((name, *FLOAT32) for name in WITH_MAPS if name not in VARIANTS),
    *((name, *BFLOAT16) for name in sorted(IN_HALF_PRECISION)),
    ("small_gap", "float32", (64, 64)),
    ("small_gap", "bfloat16", (33, 130)),
]


def randomized(name, dtype, pool="gap"):
    """A model in inference mode: nothing is zero or alike by construction, and the kernel has columns of each kind."""
    model = random_network(name, CLASSES, pool=pool, dtype=jnp.dtype(dtype))
    if model.head.kernel is None:
        return model
    kernel = np.array(model.head.kernel[...])
    kernel[:, POSITIVE] = np.abs(kernel[:, POSITIVE])
    kernel[:, ONE_HOT] = np.arange(len(kernel)) == len(kernel) // 2
    model.head.kernel[...] = jnp.asarray(kernel)
    model.head.bias[...] = jax.random.normal(jax.random.key(0), CLASSES)
    return model


def kernel_and_bias(head):
    """Those of the head in float64; the identity and zeros where the features are the class maps already."""
    if head.kernel is None:
        return np.eye(CLASSES), np.zeros(CLASSES)
    return np.asarray(head.kernel[...], np.float64), np.asarray(head.bias[...], np.float64)


def with_pool(model, pool):
    """The same weights with another pooling."""
    model = nnx.clone(model)
    model.head.pool = pool
    return model


def at_least_two_cells(model, size):
    """The size, or where that leaves less, one that leaves two cells of the map."""
    return [max(side, model.min_size + (side == max(size)) * model.stride) for side in size]


# Rounds features to bfloat16 where the network does; XLA else leaves the rounding out for some of their uses.
@functools.partial(jax.jit, compiler_options={"xla_allow_excess_precision": False})
def features_and_outputs(model, images, class_ids):
    """Features, `cam_fn`'s output, and the logits of the other pooling."""
    features = model.features(images)
    other = with_pool(model, "gmp" if model.head.pool == "gap" else "gap")
    return features, camjax.cam_fn(model, images, class_ids), other.head(features)


def assert_close(found, expected, scale):
    """Within 1e-5 of the largest magnitude in `scale`."""
    assert np.abs(np.asarray(found, np.float64) - expected).max() <= 1e-5 * np.abs(scale).max()


@pytest.mark.parametrize(("name", "dtype", "size"), CASES)
def test_maps_and_logits(monkeypatch, name, dtype, size):
    """With one block in each of two stages: depth changes nothing of it."""
    cut(monkeypatch, 2)
    monkeypatch.setattr(CamModel, "features", jax.jit(CamModel.features))  # which is traced once then
    check_maps_and_logits(name, dtype, size)


@pytest.mark.long
@pytest.mark.parametrize(("name", "dtype", "size"), WHOLE)
def test_maps_and_logits_of_whole_networks(name, dtype, size):
    check_maps_and_logits(name, dtype, size)


def check_maps_and_logits(name, dtype, size):
    pool = "gap" if dtype == "float32" else "gmp"
    model = randomized(name, dtype, pool)
    assert model.exact_cam is (pool == "gap")
    assert model.exact_cam is not with_pool(model, "gmp" if pool == "gap" else "gap").exact_cam

    size = at_least_two_cells(model, size)
    features, out, other = features_and_outputs(model, photos(size), np.tile(np.arange(CLASSES), (2, 1)))
    assert features.dtype == jnp.dtype(dtype) and out.logits.dtype == out.maps.dtype == other.dtype == jnp.float32
    features, (kernel, bias) = np.asarray(features, np.float64), kernel_and_bias(model.head)
    assert features.std((1, 2)).max() > 0
    # Under either pooling the maps are the weighted sums of the features.
    expected = np.einsum("bhwk,kc->bchw", features, kernel)
    assert_close(out.maps, expected, expected)
    gap, gmp = (out.logits, other) if pool == "gap" else (other, out.logits)
    check_gap(out.maps, bias, gap)
    check_gmp(features, kernel, bias, gmp)
    check_gmp_maximum(features, out.maps, kernel, bias, gmp)
    assert np.abs(gmp - gap).max() > 1e-3 * np.abs(gmp).max()


def check_gap(maps, bias, logits):
    """The mean of the map plus the bias is the logit."""
    assert_close(np.asarray(maps).mean((2, 3), dtype=np.float64) + bias, logits, logits)


def check_gmp(features, kernel, bias, logits):
    """The logit is the weighted sum of each feature's maximum, plus the bias."""
    assert_close(logits, features.max((1, 2)) @ kernel + bias, logits)


def check_gmp_maximum(features, maps, kernel, bias, logits):
    """The maximum of the map plus the bias is the logit where one feature alone counts.

    It is at most the logit where no weight is negative. With weights of both signs it is above the logit by no more
    than what the negative weights take off from the features' minima to their maxima.
    """
    highest = np.asarray(maps, np.float64).max((2, 3)) + bias
    if (kernel == np.eye(*kernel.shape)).all():
        assert_close(highest, logits, logits)
        return
    slack = 1e-5 * np.abs(logits).max()
    assert_close(highest[:, ONE_HOT], logits[:, ONE_HOT], logits)
    assert (highest[:, POSITIVE] <= logits[:, POSITIVE] + slack).all()
    taken_off = np.ptp(features, (1, 2)) @ np.maximum(-kernel, 0)
    assert taken_off[:, SIGNED].min() > 0
    assert (highest <= logits + taken_off + slack).all()


@pytest.mark.parametrize("name", ["resnet18", "small_gap"])
def test_the_snapshot_with_folded_batchnorm_says_the_same(monkeypatch, name):
    cut(monkeypatch, 2)
    model, images = randomized(name, "float32"), photos((65, 98))
    expected = camjax.cam_fn(model, images, np.tile(np.arange(CLASSES), (2, 1)))
    out = camjax.make_cam_fn(model, top_k=None)(images)
    np.testing.assert_allclose(out.logits, expected.logits, atol=1e-5 * np.abs(expected.logits).max())
    np.testing.assert_allclose(out.maps, expected.maps, atol=1e-5 * np.abs(expected.maps).max())
    check_gap(out.maps, np.asarray(model.head.bias[...]), out.logits)
