"""Vision transformers equal timm's with the same random weights: one of each kind, narrow; all in the long tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos

import camjax
from benchmarks.peers import import_torchvision, missing
from camjax.models import vit, vit_blocks, with_text_classes

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:.*no config.json beside the file says so")]

TOLERANCE = 2e-5  # of the largest magnitude

SIZE = vit_blocks.Size(48, 2, 3, 96)
NARROW = {"embed_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
CLASSES = 5

KINDS = (
    *("vit_small_patch16_224", "vit_small_patch32_224", "vit_small_patch16_avg_224", "vit_wee_patch16_reg1_gap_256"),
    *("vit_medium_patch16_reg4_gap_256", "deit_small_patch16_224", "deit_small_distilled_patch16_224"),
    *("deit3_small_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
    *("vit_base_patch16_clip_224", "vit_base_patch16_clip_quickgelu_224"),
    *("vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224"),
)
ALL = [spec.name for spec in vit.SPECS]


@pytest.fixture(scope="module")
def timm():
    if reason := missing("timm"):
        pytest.skip(reason)
    import_torchvision()  # which timm imports, and which needs help beside PyTorch for CPUs
    return pytest.importorskip("timm")


def peer(timm, name, **options):
    """timm's network with random weights such that magnitudes stay in bounds and every weight counts."""
    import torch

    theirs = name.replace("_avg_224", "_224")
    average = {"global_pool": "avg"} if "_avg_" in name else {}
    network = timm.create_model(theirs, dynamic_img_size=True, **average, **options).eval()
    torch.manual_seed(0)
    for place, tensor in network.named_parameters():
        if "norm" in place and place.endswith("weight"):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
        elif place.endswith("gamma"):
            torch.nn.init.uniform_(tensor, 0.1, 0.5)
        else:
            torch.nn.init.normal_(tensor, 0, 0.3 if tensor.ndim not in (2, 4) else tensor[0].numel() ** -0.5)
    return network


def run(network, model, images):
    """The logits of timm's network, and what its last block's first LayerNorm gives."""
    import torch

    x = torch.from_numpy((images - np.array(model.mean, np.float32)) / np.array(model.std, np.float32))
    normed = []
    hook = network.blocks[-1].norm1.register_forward_hook(lambda layer, given, out: normed.append(out.numpy()))
    with torch.inference_mode():
        logits = network(x.permute(0, 3, 1, 2).float()).numpy()
    hook.remove()
    return logits, normed[0]


def loaded(network, name, path):
    from safetensors.torch import save_file

    save_file(network.state_dict(), path)
    return camjax.load_model(name, weights=path, num_classes=len(network.state_dict()["head.bias"]))


def with_a_head_on_the_mean(network):
    """DINOv2's dense layer on the class token followed by the mean of the patches, in place of timm's on the first."""
    import torch

    network.head = torch.nn.Linear(2 * network.embed_dim, CLASSES)
    torch.nn.init.normal_(network.head.weight, 0, 0.1)
    others = network.num_prefix_tokens
    network.pool = lambda x: torch.cat([x[:, 0], x[:, others:].mean(1)], dim=1)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def check(timm, name, tmp_path, **options):
    """Logits at the network's size and at another; features; maps' means where they are exact."""
    network = peer(timm, name, num_classes=CLASSES, **options)
    if name.endswith("dinov2"):
        with_a_head_on_the_mean(network)
    model = loaded(network, name, tmp_path / "weights.safetensors")
    forward = jax.jit(lambda model, images: (model(images), model.features(images)))
    for size in (model.input_size, (4 * model.stride, 6 * model.stride)):
        images = photos(size)
        logits, normed = run(network, model, images)
        found, features = forward(model, images)
        assert_close(found, logits)
        if isinstance(model, vit.ClassToken):
            assert_close(features.reshape(2, -1, features.shape[-1]), normed[:, network.num_prefix_tokens :])
        if model.exact_cam:
            out = camjax.make_cam_fn(model, top_k=None)(images)
            assert_close(out.maps.mean((2, 3)) + model.head.bias[...], logits)


@pytest.mark.parametrize("name", KINDS)
def test_logits_equal_timms(timm, name, tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "SIZES", dict.fromkeys(vit.SIZES, SIZE))
    check(timm, name, tmp_path, **NARROW)


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_logits_of_the_whole_network_equal_timms(timm, name, tmp_path):
    check(timm, name, tmp_path)


@pytest.mark.parametrize(("grid", "others"), [((14, 14), 1), ((7, 9), 0), ((24, 31), 1), ((37, 5), 5)])
def test_positions_equal_timms(timm, grid, others):
    import torch
    from timm.layers import resample_abs_pos_embed

    positions = np.random.default_rng(0).normal(size=(1, others + 14 * 14, 32)).astype(np.float32)
    expected = resample_abs_pos_embed(torch.from_numpy(positions), list(grid), [14, 14], others).numpy()
    found = vit_blocks.resampled_positions(jnp.asarray(positions), grid, others)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_zero_shot_logits_equal_those_of_the_normalized_embeddings(timm, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(vit, "SIZES", dict.fromkeys(vit.SIZES, SIZE))
    network = peer(timm, "vit_base_patch16_clip_224", num_classes=CLASSES, **NARROW)
    model = loaded(network, "vit_base_patch16_clip_224", tmp_path / "weights.safetensors")
    images, texts = photos((64, 64)), np.random.default_rng(0).normal(size=(7, CLASSES)).astype(np.float32)
    embedding = torch.nn.functional.normalize(torch.from_numpy(run(network, model, images)[0]), dim=-1)
    expected = 100 * embedding @ torch.nn.functional.normalize(torch.from_numpy(texts), dim=-1).T
    assert_close(with_text_classes(model, texts)(images), expected.numpy())
