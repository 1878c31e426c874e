"""Maps of vision transformers: attention by hand, layers where patches count, and networks that a method refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import STRICT
from flax import nnx

import camjax
from camjax.attribution import Attention, attention_rollout, explain_nnx, gradient_rollout, legrad, reshape_tokens
from camjax.evaluation import choose_layer
from camjax.inference import make_localize_fns
from camjax.models import vit, with_wsol
from tests.tiny_vit import tiny, tiny_vit

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)
IDS = np.array([[4, 0], [1, 1], [0, 2]])
BLOCKS = [0, 1]

# A class token and two patches. The class token looks at the second patch, which looks at the first.
FIRST = np.array([[0.5, 0, 0.5], [0, 1, 0], [0, 0.8, 0.2]])
SECOND = np.array([[0, 0, 1.0], [0.25, 0.75, 0], [0, 0.6, 0.4]])


@pytest.fixture(scope="module")
def model():
    return tiny_vit()


def attention(*weights, **options):
    """Of one image, in which the mean of two heads is what is given."""
    heads = [np.stack([2 * of_block, 0 * of_block])[None].astype(np.float32) for of_block in weights]
    return Attention([jnp.asarray(of_block) for of_block in heads], 1, 2, **options)


# By hand


def test_rollout_by_hand():
    """(0, 0, 1) at the second block: (0.5, 0, 0.5) of its tokens' inputs; each of these is half of itself."""
    maps = attention_rollout(attention(FIRST, SECOND))
    # 0.5 (1, 0, 0) + 0.5 (0, 0, 1) -> 0.5 (0.75, 0, 0.25) + 0.5 (0, 0.4, 0.6)
    np.testing.assert_allclose(maps, [[[[0.2, 0.425]]]], atol=1e-6)
    averaged = attention_rollout(attention(FIRST, read=jnp.array([0, 0.5, 0.5])))
    np.testing.assert_allclose(averaged, [[[[0.7, 0.3]]]], atol=1e-6)  # of rows (0, 1, 0) and (0, 0.4, 0.6)
    without = Attention([jnp.asarray(FIRST[None, None, 1:, 1:], jnp.float32)], 2, 1, 0, jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(attention_rollout(without), [[[[0.7], [0.3]]]], atol=1e-6)


def test_gradient_rollout_by_hand():
    """Two classes: of the second, attention that lowers the score counts for nothing."""
    signs = np.array([1.0, -1])[:, None, None, None] * np.ones((2, 1, 1))
    gradients = [jnp.asarray(3 * signs * np.ones((3, 3)), jnp.float32)[None] for _ in BLOCKS]
    maps = gradient_rollout(attention(FIRST, SECOND), gradients)
    # Means over heads are 3 A. The class token's row: (1, 0, 3); (1, 0, 3) + 3 (0.5, 0, 0.5) + 9 (0, 0.8, 0.2).
    np.testing.assert_allclose(maps, [[[[7.2, 6.3]], [[0, 0]]]], atol=1e-5)


def test_legrad_by_hand():
    random = np.random.default_rng(1)
    gradients = [jnp.asarray(random.normal(size=(1, 4, 2, 3, 3)), jnp.float32) for _ in BLOCKS]
    of_blocks = [np.maximum(of_block, 0).mean((2, 3))[..., None, 1:] for of_block in gradients]
    maps = legrad(attention(FIRST, SECOND), gradients)
    np.testing.assert_allclose(maps, np.mean(of_blocks, 0), atol=1e-6)
    np.testing.assert_allclose(legrad(attention(FIRST, SECOND), gradients, num_blocks=1), of_blocks[1], atol=1e-6)
    for number in (0, 3):
        with pytest.raises(ValueError, match=rf"num_blocks={number}: expected 1\.\.2"):
            legrad(attention(FIRST, SECOND), gradients, num_blocks=number)


def test_attention_of_another_grid():
    wrong = attention(FIRST)._replace(width=3)
    for found in (lambda: attention_rollout(wrong), lambda: legrad(wrong, [jnp.zeros((1, 1, 2, 3, 3))])):
        with pytest.raises(
            ValueError, match=r"\(1, 2, 3, 3\)\]: expected for each block \(B, heads, 4, 4\), with 1 tok"
        ):
            found()


# Of networks


@pytest.mark.parametrize(
    "name", ["legrad", *(pytest.param(name, marks=pytest.mark.long) for name in ("rollout", "gradrollout"))]
)
def test_an_explainer_a_jit_and_a_vmap_give_the_same_maps(model, name):
    cam_fn = camjax.make_cam_fn(model, name)
    expected = cam_fn(IMAGES, IDS).maps
    assert expected.shape == (3, 2, 4, 5) and (np.asarray(expected) >= 0).all()
    assert np.ptp(expected, (2, 3)).min() > 1e-3 * np.max(expected)
    alone = jax.jit(jax.vmap(lambda image, ids: cam_fn(image[None], ids[None]).maps[0]))(IMAGES, IDS)
    np.testing.assert_allclose(alone, expected, atol=1e-5 * np.max(expected))
    explain = explain_nnx(model, "blocks.1.norm1")
    np.testing.assert_allclose(explain(IMAGES, IDS, name).maps, expected, atol=1e-5 * np.max(expected))
    both = explain(IMAGES, lambda outputs: outputs[:, :2] + outputs[:, 1:3], name).maps
    assert both.shape == (3, 2, 4, 5)
    unknown = jax.jit(lambda ids: cam_fn(IMAGES, ids).maps)(np.full((3, 1), 7))
    assert np.isnan(unknown).all() == (name != "rollout")


@pytest.mark.long
def test_the_same_numbers_with_strict_settings_of_jax(model):
    """With the tokens of TS-CAM too, and gradients at the input norm."""
    names = ["rollout", "gradrollout", "legrad", "hirescam"]
    with_head = with_wsol(tiny_vit(), "tscam")

    def found():
        maps = [of.top.maps for of in make_localize_fns(model, names)(IMAGES).values()]
        return [*maps, camjax.make_cam_fn(with_head)(IMAGES).maps]

    expected, before = found(), {name: getattr(jax.config, name) for name in STRICT}
    try:
        for name, value in STRICT.items():
            jax.config.update(name, value)
        strict = found()
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    for ours, theirs in zip(strict, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({}, [1, 0, 0]),
        ({"registers": 1}, [1, 0, 0, 0]),
        ({"mean_too": True}, [0.5, 0.25, 0.25]),
        ({"distillation_token": True}, [0.5, 0.5, 0, 0]),
        ({"kind": vit.AveragedTokens}, [0, 0.5, 0.5]),
        ({"kind": vit.AveragedTokens, "class_token": False}, [0.5, 0.5]),
    ],
)
def test_what_the_head_reads(options, read):
    model = nnx.eval_shape(lambda: tiny(rngs=nnx.Rngs(0), **options))
    np.testing.assert_allclose(model.shares(len(read)), read)


def test_tokens_of_a_layer_become_a_map(model):
    found = camjax.make_cam_fn(model, "layercam", layer="blocks.0")(IMAGES, IDS)
    expected = explain_nnx(model, "blocks.0", reshape=reshape_tokens(4, 5))(IMAGES, IDS, "layercam")
    assert np.max(expected.maps) > 0
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-6)
    # Without a layer it is the last block's input norm.
    found = camjax.make_cam_fn(model, "hirescam")(IMAGES, IDS).maps
    np.testing.assert_allclose(camjax.make_cam_fn(model, "hirescam", layer="blocks.1.norm1")(IMAGES, IDS).maps, found)
    assert np.abs(found).max((2, 3)).min() > 1e-4


@pytest.mark.parametrize("layer", ["blocks.1", "blocks.1.norm2", "blocks.1.attention", "blocks.1.project", "norm"])
def test_a_layer_after_the_last_attention_is_an_error_that_names_the_right_one(model, layer):
    for make in (camjax.make_cam_fn, camjax.make_localize_fn):
        with pytest.raises(ValueError, match=rf"'{layer}' follows the last block's attention.*zero.*'blocks.1.norm1'"):
            make(model, "gradcam", layer=layer)
    with pytest.raises(ValueError, match=r"'blocks.1.norm1'"):
        explain_nnx(model, layer)
    explain_nnx(tiny_vit(kind=vit.AveragedTokens), layer)
    explain_nnx(tiny_vit(mean_too=True), layer)


def test_attention_weights_are_no_map(model):
    with pytest.raises(ValueError, match=r"returns attention weights, .*'blocks.0.norm1', or a method .* as legrad"):
        camjax.make_cam_fn(model, "gradcam", layer="blocks.0.attention.weights")


@pytest.mark.long
def test_the_layer_that_is_chosen_is_an_input_norm(model):
    choice = choose_layer(model, IMAGES[:1], "layercam")
    assert list(choice.scores) == ["blocks.0.norm1", "blocks.1.norm1"] and choice.sizes[choice.layer] == (4, 5)


def test_networks_that_a_method_does_not_take(model):
    convolutional = camjax.create_model("small_gap", rngs=nnx.Rngs(0))
    for name in ("rollout", "gradrollout", "legrad"):
        with pytest.raises(ValueError, match=rf"{name} reads the attention weights .* small_gap is not .*vit_small"):
            camjax.make_cam_fn(convolutional, name)
        with pytest.raises(ValueError, match=rf"{name} reads the attention weights .* this network is not"):
            camjax.explainer(lambda images: images / 255, lambda features: features.mean((1, 2)))(IMAGES, [0] * 3, name)
        with pytest.raises(ValueError, match=r"layer='blocks.0' of"):
            camjax.make_cam_fn(model, name, layer="blocks.0")
    for name in ("refinecam", "fullgrad"):
        with pytest.raises(ValueError, match=rf"{name} of ClassToken: expected a convolutional network"):
            camjax.make_cam_fn(model, name)
        with pytest.raises(ValueError, match=rf"{name} of ClassToken: expected a convolutional network"):
            explain_nnx(model, "blocks.0")(IMAGES, IDS, name)
