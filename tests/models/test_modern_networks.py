"""The networks that people have weights for today: one training step, and what is special to one of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos, random_network
from flax import nnx
from networks import cut

import camjax
from camjax.models import convnext, efficientnet_lite

# One of each family, for what depends on the layers and not on how many there are: compiling many takes long.
FAMILIES = ("resnet18", "resnet50_wsol", "efficientnet_lite0", "squeezenet1_1", "mobilenet_v2", "densenet121")
FAMILIES += ("convnext_tiny", "convnextv2_tiny", "swin_tiny_patch4_window7_224", "mobilenet_v3_small")
FAMILIES += ("efficientnet_v2_s", "resnext50_32x4d", "regnety_016")
FAMILIES += ("vit_tiny_patch16_224", "vit_wee_patch16_reg1_gap_256")
MODERN = (*FAMILIES, *("resnet34", "resnet50", "resnet101", "resnet152", "resnet50_wsol_28x28", "wide_resnet50_2"))
MODERN += ("mobilenet_v3_large", "mobilenetv3_large_100", "mobilenetv3_small_100", "tf_efficientnetv2_s")
MODERN += tuple(f"efficientnet_lite{variant}" for variant in range(1, 5))
MODERN += ("deit_small_distilled_patch16_224", "deit3_small_patch16_224", "vit_small_patch14_reg4_dinov2")
MODERN += ("vit_base_patch32_clip_quickgelu_224", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224")

CLASSES = 5


@pytest.fixture
def tiny(monkeypatch):
    """Two stages of one block each (and one more of the inverted residuals, whose first has no expansion)."""
    cut(monkeypatch, 2)


def test_the_lites_by_their_scales():
    assert [efficientnet_lite.scale_repeats(depth) for _, depth, _, _ in efficientnet_lite.SCALES.values()] == [
        (1, 2, 2, 3, 3, 4, 1),
        (1, 3, 3, 4, 4, 5, 1),
        (1, 3, 3, 4, 4, 5, 1),
        (1, 3, 3, 5, 5, 6, 1),
        (1, 4, 4, 6, 6, 8, 1),
    ]
    assert [efficientnet_lite.scale_features(n, 1.2) for n in (16, 24, 40, 320)] == [24, 32, 48, 384]


@jax.jit
def training_step(model, images, labels):
    """Loss, gradients, and the model after the forward pass."""

    def loss(model):
        return -jnp.take_along_axis(jax.nn.log_softmax(model(images)), labels[:, None], axis=1).mean()

    value, gradients = nnx.value_and_grad(loss)(model)
    return value, gradients, model


@jax.jit
def forward(model, images):
    """Logits, and the model after the forward pass."""
    return model(images), model


def check_training_step(model, share_that_moves=0.9):
    model.train()
    value, gradients, after = training_step(model, photos((48, 64)), np.array([0, 3]))
    assert np.isfinite(value)
    gradients = nnx.to_pure_dict(nnx.state(gradients, nnx.Param))
    for path, gradient in jax.tree.leaves_with_path(gradients):
        assert gradient.dtype == jnp.float32, path
        assert np.isfinite(gradient).all(), path
    moving = [path for path, gradient in jax.tree.leaves_with_path(gradients) if np.any(gradient)]
    assert len(moving) > share_that_moves * len(jax.tree.leaves(gradients))
    before, after = (jax.tree.leaves_with_path(nnx.state(m, nnx.BatchStat)) for m in (model, after))
    for (path, old), (_, new) in zip(before, after, strict=True):
        assert np.isfinite(new).all() and np.any(new != old), path
    without_statistics = ("squeezenet", "convnext", "swin", "vit", "deit")
    assert bool(before) is not model.created_as["name"].startswith(without_statistics)


# In bfloat16 by default, in place of float32, whose steps lose less; the others in float32.
IN_HALF_PRECISION = ("convnext_tiny", "vit_wee_patch16_reg1_gap_256")
# Whose layers others have too.
ALIKE = ("efficientnet_v2_s", "resnext50_32x4d", "regnety_016", "resnet50_wsol", "convnextv2_tiny", "squeezenet1_1")
ALIKE += ("efficientnet_lite0", "mobilenet_v2")
QUICK = {name: jnp.bfloat16 if name in IN_HALF_PRECISION else jnp.float32 for name in FAMILIES if name not in ALIKE}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=[pytest.mark.long] * (QUICK.get(name) != dtype))
        for name in FAMILIES
        for dtype in (jnp.float32, jnp.bfloat16)
    ],
)
def test_a_training_step_is_finite_and_moves_the_statistics(tiny, name, dtype):
    check_training_step(random_network(name, CLASSES, dtype=dtype))


@pytest.mark.long
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", MODERN)
def test_a_training_step_of_the_whole_network(name, dtype):
    # With a layer's output multiplied by 1e-6 at first, few of its gradients survive bfloat16.
    check_training_step(camjax.create_model(name, CLASSES, dtype=dtype), 0.5 if name == "convnext_tiny" else 0.9)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("densenet121", marks=pytest.mark.long)])
def test_inference_changes_nothing(tiny, name):
    """Of others, `test_every_network.py` sees the mode of each layer."""
    model = random_network(name, CLASSES)
    _, after = forward(model, photos((33, 48)))
    for old, new in zip(*(jax.tree.leaves(nnx.state(m)) for m in (model, after)), strict=True):
        if not jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(old, new)


def test_maps_of_squeezenet_are_rectified():
    model = random_network("squeezenet1_1", CLASSES)
    model.classifier.bias[...] = jnp.array([-1e3, 0.0, 0.0, 0.0, 1e3])
    out = jax.jit(lambda model, images: camjax.cam_fn(model, images, [[0, 4]]))(model, photos((48, 48))[:1])
    assert model.head.kernel is None
    assert (np.asarray(out.maps[0, 0]) == 0).all() and out.logits[0, 0] == 0
    np.testing.assert_allclose(out.logits[0, 4], np.asarray(out.maps[0, 1]).mean(), rtol=1e-6)


def test_the_layernorm_after_the_pooling_goes_before_it():
    """`norm(mean(features)) == mean(norm_of_pooled(features))`, against a LayerNorm written out in float64."""
    random = np.random.default_rng(0)
    features = random.normal(0.3, 2, (2, 3, 5, 7)).astype(np.float32)
    scale, bias = random.normal(size=(2, 7)).astype(np.float32)
    norm = nnx.LayerNorm(7, epsilon=1e-2, rngs=nnx.Rngs(0))
    norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    pooled = features.mean((1, 2), dtype=np.float64)
    expected = (pooled - pooled.mean(1, keepdims=True)) / np.sqrt(pooled.var(1, keepdims=True) + 1e-2) * scale + bias
    found = np.asarray(convnext.norm_of_pooled(norm, jnp.asarray(features)))
    np.testing.assert_allclose(found.mean((1, 2)), expected, atol=1e-5)
    assert found.std((1, 2)).min() > 0.01
