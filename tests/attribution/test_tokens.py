"""Token networks: tokens as a map and back, on a ViT whose maps are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from camjax.attribution import Explainer, cut_network, explain_nnx, reshape_tokens, reshaped

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3)).astype(np.uint8)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(8, rngs=rngs), nnx.LayerNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.mlp = nnx.Sequential(nnx.Linear(8, 16, rngs=rngs), nnx.gelu, nnx.Linear(16, 8, rngs=rngs))

    def __call__(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nnx.Module):
    """Patches of 8 x 8 pixels, a class token, two blocks; the output is that of the class token, or a mean."""

    def __init__(self, rngs, mean=False):
        self.mean = mean
        self.embed = nnx.Conv(3, 8, (8, 8), (8, 8), rngs=rngs)
        self.token = nnx.Param(jax.random.normal(rngs.params(), (1, 1, 8)))
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, images):
        patches = self.embed(images / 255).reshape(len(images), -1, 8)
        x = jnp.concatenate([jnp.tile(self.token[...], (len(images), 1, 1)), patches], axis=1)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 1:].mean(1) if self.mean else x[:, 0])


@pytest.fixture(scope="module")
def vit():
    return ViT(nnx.Rngs(0))


GRID = reshape_tokens(2, 3)


def test_tokens_in_their_places():
    tokens = jnp.arange(2 * 7 * 8.0).reshape(2, 7, 8)
    found = GRID(tokens)
    assert found.shape == (2, 2, 3, 8)
    np.testing.assert_array_equal(found[1, 1, 0], tokens[1, 4])
    np.testing.assert_array_equal(reshape_tokens(1, 3, skip=4)(tokens)[0, 0, 2], tokens[0, 6])
    np.testing.assert_array_equal(reshape_tokens(7, 1, skip=0)(tokens)[1, :, 0], tokens[1])
    with pytest.raises(ValueError, match=r"tokens of shape \(2, 7, 8\): expected \(B, 5, D\), where 1 are skipped"):
        reshape_tokens(2, 2)(tokens)
    with pytest.raises(ValueError, match="height=0, width=3, skip=1"):
        reshape_tokens(0, 3)


def test_after_the_last_mixing_layer_only_the_class_token_counts(vit):
    """The output reads the class token, which is no part of the map; before the last block, the patches feed it."""
    last = explain_nnx(vit, "blocks.1", reshape=GRID)(IMAGES, [[0, 1]] * 2, "hirescam")
    assert last.maps.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(last.maps, 0)
    np.testing.assert_allclose(last.outputs, jax.jit(vit.__call__)(IMAGES), atol=1e-5)
    before = explain_nnx(vit, "blocks.1.norm1", reshape=GRID)(IMAGES, [[0, 1]] * 2, "hirescam").maps
    assert (np.abs(before).max((2, 3)) > 1e-4).all()


def test_in_front_of_a_normalization_gradients_are_at_right_angles_to_tokens(vit):
    """Which normalizes away the length of a patch's token: what the map of HiResCAM sums is then nothing."""
    maps = explain_nnx(vit, "blocks.0", reshape=GRID)(IMAGES, [0, 1], "hirescam").maps
    np.testing.assert_allclose(maps, 0, atol=1e-6)
    assert np.asarray(explain_nnx(vit, "blocks.0", reshape=GRID)(IMAGES, [0, 1], "layercam").maps).max() > 1e-4


def test_maps_of_a_mean_over_patches_are_class_activation_maps():
    vit = ViT(nnx.Rngs(1), mean=True)
    explain = explain_nnx(vit, "blocks.1", reshape=GRID)
    found = explain(IMAGES, [[0, 2]] * 2, "hirescam")
    features = jax.jit(explain.network.features)(IMAGES)
    expected = jnp.einsum("bhwk,kc->bchw", features, vit.head.kernel[...])[:, np.array([0, 2])] / 6
    np.testing.assert_allclose(found.maps, expected, atol=1e-6)


def test_two_functions_with_tokens_are_the_adapter(vit):
    def features_fn(images):
        patches = vit.embed(images / 255).reshape(len(images), -1, 8)
        return vit.blocks[0](jnp.concatenate([jnp.tile(vit.token[...], (len(images), 1, 1)), patches], axis=1))

    network = cut_network(features_fn, lambda tokens: vit.head(vit.blocks[1](tokens)[:, 0]))
    by_hand, adapter = Explainer(reshaped(network, GRID)), explain_nnx(vit, "blocks.0", reshape=GRID)
    tokens = jax.jit(features_fn)(IMAGES)
    # The class token stays, and so do all patches but the second.
    expected = jax.jit(lambda tokens: vit.head(vit.blocks[1](tokens)[:, 0]))(tokens.at[:, 2].set(7.0))
    for explain in (by_hand, adapter):
        found = jax.jit(explain.network.features)(IMAGES)
        np.testing.assert_allclose(found, tokens[:, 1:].reshape(2, 2, 3, 8), atol=1e-6)
        changed = found.at[:, 0, 1].set(7.0)
        np.testing.assert_allclose(jax.jit(explain.network.head)(changed, IMAGES), expected, atol=1e-6)
    np.testing.assert_allclose(by_hand(IMAGES).maps, adapter(IMAGES).maps, atol=1e-6)


@pytest.mark.parametrize("method", ["ablationcam", "scorecam"])
def test_methods_that_perturb(vit, method):
    found = explain_nnx(vit, "blocks.0", reshape=GRID)(IMAGES, [[0, 1]] * 2, method)
    assert found.maps.shape == (2, 2, 2, 3) and np.isfinite(found.maps).all()


@pytest.mark.parametrize(
    "reshape",
    [
        lambda tokens: tokens[:, 1:],
        lambda tokens: tokens[:, 1:].reshape(-1, 2, 3, 2, 4).mean(3),
        lambda tokens: 2 * GRID(tokens),
        lambda tokens: jnp.concatenate([GRID(tokens)] * 2, axis=1),
        lambda tokens: jnp.pad(GRID(tokens), ((0, 0), (0, 1), (0, 0), (0, 0))),
    ],
)
def test_a_reshape_that_does_more_than_choosing_is_an_error(vit, reshape):
    with pytest.raises(ValueError, match=r"of \(7, 8\) for each image: expected \(h, w, K\), each element"):
        explain_nnx(vit, "blocks.0", reshape=reshape)(IMAGES)


def test_without_reshape_tokens_are_no_map(vit):
    with pytest.raises(ValueError, match=r"'blocks.0' returns \(2, 7, 8\).*reshape=camjax.attribution.reshape_tokens"):
        explain_nnx(vit, "blocks.0")(IMAGES)
