"""Vision transformers: where maps are made, attention, positions, and classes that are texts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos, random_network
from flax import nnx
from safetensors.numpy import save_file
from test_docs import python_of

import camjax
from camjax.attribution import reshape_tokens
from camjax.attribution.adapters.nnx import explain_nnx
from camjax.attribution.module_layers import cut_module
from camjax.models import register_model, vit, vit_blocks, vit_names, with_text_classes
from camjax.models.shapes import model_shapes
from camjax.models.tensor_names import Rule
from camjax.weights.camjax_file import TABLE
from camjax.weights.placing import NameTable

WIDTH, HEADS = 24, 3
TOWER = "vit_base_patch32_clip_224"


logits_of = jax.jit(lambda model, images: model(images))


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(vit, "SIZES", dict.fromkeys(vit_blocks.SIZES, vit_blocks.Size(WIDTH, 2, HEADS, 40)))


@pytest.mark.parametrize("name", ["deit_small_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"])
def test_maps_are_those_at_the_last_blocks_first_layernorm(name):
    """Cut there by the names of layers, which knows nothing of the network."""
    model = random_network(name, 5)
    images = photos((70, 98))
    expected = explain_nnx(model, "blocks.1.norm1", reshape=reshape_tokens(*model.grid(70, 98), model.other_tokens))
    found = camjax.make_cam_fn(model, "gradcam", top_k=2)(images)
    of_layer = expected(images, found.class_ids, method="gradcam")
    assert found.maps.shape == (2, 2, *model.grid(70, 98)) and np.abs(found.maps).max() > 0
    np.testing.assert_allclose(found.maps, of_layer.maps, atol=1e-5 * np.abs(of_layer.maps).max())
    np.testing.assert_allclose(found.logits, of_layer.outputs, atol=1e-5 * np.abs(found.logits).max())


def test_without_an_exact_map_the_error_names_what_there_is():
    with pytest.raises(
        ValueError, match=r"vit_small_patch16_224 has no class.*'vit_small_patch16_avg_224', .*'gradcam'"
    ):
        camjax.make_cam_fn(model_shapes("vit_small_patch16_224"))
    with pytest.raises(ValueError, match=r"vit_small_patch14_dinov2 has no class.*'gradcam'"):
        camjax.make_localize_fn(model_shapes("vit_small_patch14_dinov2"))
    with pytest.raises(ValueError, match="Leave pool out"):
        model_shapes("deit_small_patch16_224", pool="gmp")


def test_attention_is_the_output_of_a_layer():
    """As a softmax of products of queries and keys; its gradients are there too."""
    model = random_network("vit_small_patch32_224", 5)
    names = [f"blocks.{i}.attention.weights" for i in range(2)]
    images = photos((64, 96))
    network = cut_module(model, names, lambda model, images: model(images))

    @jax.jit
    def found(model, images):
        weights = network.features(images)
        gradients = jax.grad(lambda weights: network.head(weights, images)[:, 0].sum())(weights)
        tokens = model.blocks[0](model.embed(model.normalized(images)))
        return weights[1], gradients, model.blocks[1].attention.qkv(model.blocks[1].norm1(tokens))

    last, gradients, qkv = found(model, images)
    queries, keys, _ = np.asarray(qkv).reshape(2, 7, 3, HEADS, -1).transpose(2, 0, 3, 1, 4)
    scores = np.exp(queries @ keys.swapaxes(-1, -2) / np.sqrt(WIDTH // HEADS))
    np.testing.assert_allclose(last, scores / scores.sum(-1, keepdims=True), atol=1e-5)
    assert [gradient.shape for gradient in gradients] == [(2, HEADS, 7, 7)] * 2
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    # Of the last block, only what the class token attends to counts.
    np.testing.assert_array_equal(np.asarray(gradients[1])[:, :, 1:], 0)


def test_averaged_tokens_leave_the_class_token_and_registers_out():
    model = random_network("vit_wee_patch16_reg1_gap_256", 5)
    tokens = jnp.arange(2 * 13 * 4.0).reshape(2, 13, 4)
    np.testing.assert_array_equal(model.as_map(tokens, jnp.zeros((2, 48, 64, 3)))[1, 2], tokens[1, 9:])


def test_positions_of_another_grid_are_interpolated():
    """A plane stays one, but at the edges; what is of no patch stays as it is."""
    plane = np.add.outer(np.arange(12), 10 * np.arange(12)).reshape(1, -1, 1) * np.ones(WIDTH, np.float32)
    positions = jnp.concatenate([jnp.full((1, 1, WIDTH), 7.0), plane], axis=1)
    found = np.asarray(vit_blocks.resampled_positions(positions, (6, 6), others=1))[0]
    np.testing.assert_array_equal(found[0], 7)
    middles = np.array([4.5, 6.5])
    inside = found[1:, 0].reshape(6, 6)[2:-2, 2:-2]
    np.testing.assert_allclose(inside, np.add.outer(middles, 10 * middles), rtol=1e-5)


@pytest.mark.parametrize(("name", "others"), [("vit_small_patch32_224", 1), ("deit3_small_patch16_224", 0)])
def test_a_file_for_larger_images_is_read(name, others):
    """Its positions are those of a larger grid."""
    model = random_network(name)
    file = {".".join(map(str, path)): variable for path, variable in nnx.iter_graph(model)}
    count = int((model.positions.shape[1] - others) ** 0.5)
    larger = np.random.default_rng(0).normal(size=(1, others + (count + 5) ** 2, WIDTH)).astype(np.float32)
    table = NameTable((Rule("pos_embed", "positions", fit=partial(vit_names.fitting_positions, others=others)), *TABLE))
    tensors = {place: np.asarray(value[...]) for place, value in file.items() if isinstance(value, nnx.Param)}
    del tensors["positions"]
    with pytest.warns(UserWarning, match=f"{count + 5} x {count + 5} patches.*interpolated to {count} x {count}"):
        table.place(model, tensors | {"pos_embed": larger}, source="file")
    expected = vit_blocks.resampled_positions(jnp.asarray(larger), (count, count), others)
    np.testing.assert_array_equal(model.positions[...], expected)
    with pytest.raises(ValueError, match="pos_embed"):
        table.place(model, tensors | {"pos_embed": larger[:, 1:]}, source="file")


def published(model) -> dict[str, np.ndarray]:
    """The weights of a CLIP tower under OpenAI's names, among those of the tower of the texts."""
    found = {
        "visual.class_embedding": model.class_token[0, 0],
        "visual.positional_embedding": model.positions[0],
        "visual.conv1.weight": model.patches.kernel[...].transpose(3, 2, 0, 1),
        "visual.proj": model.head.dense.kernel[...],
        "positional_embedding": jnp.zeros((77, WIDTH)),
        "transformer.resblocks.0.ln_1.weight": jnp.zeros(WIDTH),
        "logit_scale": jnp.float32(4.6),
    }
    layers = {"visual.ln_pre": model.norm_first, "visual.ln_post": model.norm}
    for i, block in enumerate(model.blocks):
        start = f"visual.transformer.resblocks.{i}"
        layers |= {f"{start}.ln_1": block.norm1, f"{start}.ln_2": block.norm2}
        layers |= {f"{start}.attn.out_proj": block.attention.project}
        layers |= {f"{start}.mlp.c_fc": block.expand, f"{start}.mlp.c_proj": block.project}
        found[f"{start}.attn.in_proj_weight"] = block.attention.qkv.kernel[...].T
        found[f"{start}.attn.in_proj_bias"] = block.attention.qkv.bias[...]
    for name, layer in layers.items():
        found[f"{name}.weight"] = layer.kernel[...].T if isinstance(layer, nnx.Linear) else layer.scale[...]
        found[f"{name}.bias"] = layer.bias[...]
    return {name: np.ascontiguousarray(value) for name, value in found.items()}


def test_a_published_clip_is_read_and_its_texts_left_out(tmp_path):
    model = random_network(TOWER, 16)
    model.head.dense.bias[...] = jnp.zeros(16)
    save_file(published(model), tmp_path / "clip.safetensors")
    with pytest.warns(UserWarning, match="and vit_base_patch32_clip_quickgelu_224 have .*no config.json"):
        loaded = camjax.load_model(TOWER, weights=tmp_path / "clip.safetensors", num_classes=16)
    for a, b in zip(*(jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (model, loaded)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_classes_that_are_texts(monkeypatch):
    """By the function, and by the lines of the page on networks, docs/models.md."""
    model = random_network(TOWER, 16)
    images, texts = photos((64, 64)), np.random.default_rng(0).normal(size=(3, 16))
    classifier = with_text_classes(model, 5 * texts, scale=20, bias=-2, class_names=["cat", "cup", "dog"])
    embedding = np.asarray(logits_of(model, images))
    cosines = embedding @ texts.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (embedding, texts)))
    found = camjax.make_cam_fn(classifier, "gradcam", top_k=3)(images)
    np.testing.assert_allclose(found.logits, 20 * cosines - 2, atol=1e-4)
    assert found.maps.shape == (2, 3, 2, 2) and classifier.class_names == ("cat", "cup", "dog")
    assert model.head.num_classes == 16  # which is left as it was
    (lines,) = (code for code in python_of("docs/models.md") if "tower" in code)
    monkeypatch.setattr(camjax, "load_model", lambda name, weights: model)
    names = {"camjax": camjax, "embeddings": texts[:2], "images": images}
    exec(lines, names)
    np.testing.assert_allclose(logits_of(names["model"], images), 100 * cosines[:, :2], atol=1e-3)


def test_siglips_texts_are_compared_with_the_pooled_tokens_themselves():
    model = random_network("vit_base_patch16_siglip_224", 4)
    texts = np.random.default_rng(0).normal(size=(3, WIDTH))
    classifier = with_text_classes(model, texts, scale=1, multi_label=True)
    images = photos((64, 64))
    model.head.dense = nnx.Linear(WIDTH, WIDTH, use_bias=False, rngs=nnx.Rngs(0))
    model.head.dense.kernel[...] = jnp.eye(WIDTH)
    pooled = np.asarray(logits_of(model, images))
    cosines = pooled @ texts.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (pooled, texts)))
    np.testing.assert_allclose(logits_of(classifier, images), cosines, atol=1e-5)
    assert classifier.multi_label


@pytest.mark.parametrize(
    ("name", "embeddings", "message"),
    [
        ("vit_small_patch16_224", np.ones((3, 16)), "not trained with texts"),
        (TOWER, np.ones((3, WIDTH)), r"shape \(3, 24\): expected \(K, 16\)"),
        (TOWER, np.ones(16), r"expected \(K, 16\)"),
        (TOWER, np.zeros((3, 16)), "zero, NaN or infinite"),
    ],
)
def test_texts_that_do_not_fit(name, embeddings, message):
    model = random_network(name, 16)
    with pytest.raises(ValueError, match=message):
        with_text_classes(model, embeddings)


def test_a_zero_shot_classifier_can_be_registered():
    def cats_and_dogs(num_classes: int = 2, *, rngs):
        return with_text_classes(camjax.create_model(TOWER, 16, rngs=rngs), np.eye(num_classes, 16))

    register_model("cats_and_dogs", cats_and_dogs)
    with_one_more = nnx.eval_shape(lambda: camjax.create_model("cats_and_dogs", 3))
    assert with_one_more.head.dense.kernel.shape == (16, 3)
