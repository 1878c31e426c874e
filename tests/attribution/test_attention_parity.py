"""LeGrad against torch-cam on torchvision's ViT, and rollouts against what their papers say, written down in PyTorch.

The weights are torchvision's, by their places in our network.
"""

import jax
import numpy as np
import pytest

import camjax
from benchmarks.peers import import_torchvision, missing
from camjax.cam import normalize_map
from tests.tiny_vit import tiny_vit

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
"""Of a map's range."""

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
CLASSES = [2, 0, 4]
DEPTH, WIDTH, HEADS = 3, 16, 2


@pytest.fixture(scope="module")
def network():
    """torchvision's ViT with random weights, larger than its own, which hardly tell patches apart."""
    if reason := missing("torchvision"):
        pytest.skip(reason)
    import_torchvision()
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(32, 8, DEPTH, HEADS, WIDTH, 2 * WIDTH, num_classes=5).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return network


@pytest.fixture(scope="module")
def model(network):
    """Ours, with its weights."""
    weights = {name: parameter.detach().numpy() for name, parameter in network.named_parameters()}
    found = {
        "patches.kernel": weights["conv_proj.weight"].transpose(2, 3, 1, 0),
        "patches.bias": weights["conv_proj.bias"],
        "class_token": weights["class_token"],
        "positions": weights["encoder.pos_embedding"],
    }
    pairs = {"encoder.ln": "norm", "heads.head": "head.dense"}
    for i in range(DEPTH):
        theirs, ours = f"encoder.layers.encoder_layer_{i}", f"blocks.{i}"
        pairs |= {
            f"{theirs}.ln_1": f"{ours}.norm1",
            f"{theirs}.self_attention.out_proj": f"{ours}.attention.project",
            f"{theirs}.ln_2": f"{ours}.norm2",
            f"{theirs}.mlp.0": f"{ours}.expand",
            f"{theirs}.mlp.3": f"{ours}.project",
        }
        found[f"{ours}.attention.qkv.kernel"] = weights[f"{theirs}.self_attention.in_proj_weight"].T
        found[f"{ours}.attention.qkv.bias"] = weights[f"{theirs}.self_attention.in_proj_bias"]
    for theirs, ours in pairs.items():
        kernel = weights[f"{theirs}.weight"]
        found[f"{ours}.kernel" if kernel.ndim == 2 else f"{ours}.scale"] = kernel.T
        found[f"{ours}.bias"] = weights[f"{theirs}.bias"]
    return tiny_vit(weights=found, depth=DEPTH)


def inputs(model):
    return torch.from_numpy(((IMAGES - np.array(model.mean)) / np.array(model.std)).transpose(0, 3, 1, 2)).float()


def attention_and_logits(network, x):
    """The attention weights of all blocks, as nodes of the graph, and the logits: the network once more, by hand."""
    F = torch.nn.functional
    patches = network.conv_proj(x).flatten(2).mT
    x = torch.cat([network.class_token.expand(len(x), -1, -1), patches], 1) + network.encoder.pos_embedding
    attention = []
    for block in network.encoder.layers:
        own = block.self_attention
        q, k, v = F.linear(block.ln_1(x), own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        weights.retain_grad()
        attention.append(weights)
        x = x + own.out_proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_2(x))
    return attention, network.heads(network.encoder.ln(x)[:, 0])


def found_by(model, method, **options):
    return jax.device_get(camjax.make_cam_fn(model, method, **options)(IMAGES, np.array(CLASSES)))


def assert_same(ours, theirs):
    """Maps (B, h, w): of one shape and size, or scaled to 0..1."""
    theirs = np.asarray(theirs)
    assert np.ptp(theirs, (1, 2)).all()
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * np.ptp(theirs, (1, 2)).min())


def test_the_network_is_the_same(network, model):
    expected = network(inputs(model)).detach().numpy()
    by_hand = attention_and_logits(network, inputs(model))[1].detach()
    np.testing.assert_allclose(by_hand, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found_by(model, "legrad").logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("blocks", [None, 2])
def test_legrad_is_that_of_torch_cam(network, model, blocks):
    methods = pytest.importorskip("torchcam.methods", reason="torch-cam is not installed: make test-parity installs it")
    if not hasattr(methods, "LeGrad"):
        pytest.skip("LeGrad came with torch-cam 0.5.0, which make test-parity installs in a new environment")
    with methods.LeGrad(network, list(network.encoder.layers)[-(blocks or DEPTH) :]) as extract:
        logits = network(inputs(model))
        expected = extract(CLASSES, logits, normalized=False)[0]
        scaled = extract(CLASSES, network(inputs(model)))[0]
    ours = found_by(model, "legrad", **({"num_blocks": blocks} if blocks else {})).maps[:, 0]
    assert_same(ours, expected)
    assert_same(np.asarray(normalize_map(ours)), scaled)


def test_attention_rollout(network, model):
    attention, _ = attention_and_logits(network, inputs(model))
    rolled = torch.eye(17)
    for weights in attention:
        mixed = weights.mean(1) + torch.eye(17)
        rolled = mixed / mixed.sum(-1, keepdim=True) @ rolled
    assert_same(found_by(model, "rollout").maps[:, 0], rolled[:, 0, 1:].unflatten(-1, (4, 4)).detach())


def test_gradient_rollout(network, model):
    attention, logits = attention_and_logits(network, inputs(model))
    logits[range(3), CLASSES].sum().backward()
    rolled = torch.eye(17).expand(3, -1, -1)
    for weights in attention:
        rolled = rolled + (weights.grad * weights).clamp(min=0).mean(1) @ rolled
    assert_same(found_by(model, "gradrollout").maps[:, 0], rolled[:, 0, 1:].unflatten(-1, (4, 4)).detach())
