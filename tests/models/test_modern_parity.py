"""The networks of torchvision, timm and efficientnet_lite_pytorch: the same weights give the same features and logits.

All weights are random, those that implementations begin with as zeros or ones included, so that every one of them
counts.
"""

import functools
import json
import re
import warnings

import jax
import numpy as np
import pytest
from conftest import photos
from flax import nnx
from networks import cut

import camjax
from benchmarks.peers import import_torchvision, missing
from camjax.models import fold_batchnorm

pytestmark = pytest.mark.parity

# Of the largest magnitude: float32 rounding through up to 155 convolutions in another order of summation.
TOLERANCE = 2e-5

# The deeper Lites blow rounding up under random weights: there PyTorch in float32 is 2e-4 away from itself in float64.
DEEP_LITE_TOLERANCE = 6e-4

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TENSORFLOW = ((127 / 255,) * 3, (128 / 255,) * 3)

# torchvision's name and the name of its layer that gives the last features, before what the pooling follows.
TORCHVISION = {
    **{f"resnet{depth}": (f"resnet{depth}", "layer4") for depth in (18, 34, 50, 101, 152)},
    "resnet50_wsol": ("resnet50", "layer4"),
    "resnet50_wsol_28x28": ("resnet50", "layer4"),
    "squeezenet1_1": ("squeezenet1_1", "classifier.2"),
    "mobilenet_v2": ("mobilenet_v2", "features"),
    "densenet121": ("densenet121", "relu"),
    "convnext_tiny": ("convnext_tiny", "features"),
    "resnext50_32x4d": ("resnext50_32x4d", "layer4"),
    "wide_resnet50_2": ("wide_resnet50_2", "layer4"),
    "regnety_016": ("regnet_y_1_6gf", "trunk_output"),
    "efficientnet_v2_s": ("efficientnet_v2_s", "features"),
    "mobilenet_v3_large": ("mobilenet_v3_large", "features"),
    "mobilenet_v3_small": ("mobilenet_v3_small", "features"),
    "swin_tiny_patch4_window7_224": ("swin_t", "permute"),
}

# Their names in timm. Under `resnet50` and `densenet121` it has torchvision's names of weights, under these its own.
TIMM = {
    "mobilenet_v2": "mobilenetv2_100",
    "convnext_tiny": "convnext_tiny",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite4": "tf_efficientnet_lite4",
    "convnextv2_tiny": "convnextv2_tiny",
    "mobilenetv3_large_100": "mobilenetv3_large_100",
    "mobilenetv3_small_100": "mobilenetv3_small_100",
    "regnety_016": "regnety_016",
    "swin_tiny_patch4_window7_224": "swin_tiny_patch4_window7_224",
    "tf_efficientnetv2_s": "tf_efficientnetv2_s",
}

# With the first block of each stage alone by default: whole, they take long to compile.
SHORT = {"resnext50_32x4d", "wide_resnet50_2", "efficientnet_v2_s", "tf_efficientnetv2_s", "convnextv2_tiny"}

# Another network of theirs is smaller.
LARGER = {"resnet101", "resnet152", "wide_resnet50_2", "mobilenet_v3_large", "mobilenetv3_large_100"}

# Neither side is a multiple of 32, and odd numbers come up on the way down: poolings have to round as they should.
SIZE = (98, 121)
SWIN = "swin_tiny_patch4_window7_224"
# torchvision's fills maps up to whole windows before it shifts them, timm's after.
SIZES_OF_TORCHVISION = {SWIN: (224, 224)}
# timm's patches have to fill the image, of which no map fills whole windows.
SIZES_OF_TIMM = {SWIN: (100, 124)}

# What takes time here is compiling: done as cheaply as XLA can, a fourth of it.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@pytest.fixture(scope="module")
def torchvision():
    pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")
    try:
        return import_torchvision()
    except ImportError as error:
        pytest.skip(str(error))


def torchvision_network(torchvision, name, change=lambda network: None):
    """torchvision's network with random weights, and (x: (B, 3, H, W)) -> its last features and its logits."""
    from torchvision.models.feature_extraction import create_feature_extractor

    peer, layer = TORCHVISION[name]
    network = torchvision.models.get_model(peer)
    if name.startswith("resnet50_wsol"):
        stages = [network.layer4] if name == "resnet50_wsol" else [network.layer3, network.layer4]
        for stage in stages:
            stage[0].conv2.stride = stage[0].downsample[0].stride = (1, 1)
    change(network)
    randomize(network)
    extractor = create_feature_extractor(network, {layer: "features"})
    return network, lambda x: (extractor(x)["features"], network(x))


@pytest.fixture
def shorten(monkeypatch):
    """Leaves the first block of each stage of a network of PyTorch, and of camjax's from then on."""

    def change(network):
        from torch.nn import Sequential

        cut(monkeypatch, 4)
        for module in list(network.modules()):
            for name, blocks in module.named_children():
                kinds = {type(block).__name__ for block in blocks} if isinstance(blocks, Sequential) else set()
                if len(kinds) == 1 and not kinds.pop().endswith(("Sequential", "Stage", "Activation")):
                    setattr(module, name, blocks[:1])

    return change


def randomize(network):
    """Random weights, such that magnitudes stay in bounds and every weight counts."""
    import torch

    torch.manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 2)
        elif re.fullmatch(r"blocks\..*\.bn3\.weight", name):  # many blocks would add up to where gates are steps
            torch.nn.init.uniform_(tensor, 0.1, 0.5)
        elif name.endswith(("qkv.weight", "relative_position_bias_table")):  # which begin so small that they say little
            torch.nn.init.normal_(tensor, 0, 1 if tensor.shape[0] == 169 else 2 / tensor.shape[1] ** 0.5)
        elif name.endswith(("layer_scale", "gamma")):  # which begin at 1e-6
            torch.nn.init.uniform_(tensor, 0.1, 0.5)
        elif name.endswith(("bias", "running_mean")):
            torch.nn.init.normal_(tensor, 0, 0.2)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    network.eval()


def save(network, path):
    import torch
    from safetensors.torch import save_file

    (save_file if path.suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    return path


def outputs(run, images, mean, std):
    """(B, h, w, K) features and (B, C) logits of images normalized as the other implementation does."""
    import torch

    x = torch.from_numpy((images / 255 - np.array(mean)) / np.array(std)).float().permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        features, logits = run(x)
    return features.permute(0, 2, 3, 1).numpy(), logits.numpy()


@functools.partial(jax.jit, compiler_options=QUICK)
def features_and_cam(model, images):
    return model.features(images), camjax.cam_fn(model, images)


def check(model, images, features, logits, tolerance=TOLERANCE):
    found, out = features_and_cam(model, images)
    assert_close(found, features, tolerance)
    assert_close(out.logits, logits, tolerance)
    assert model.exact_cam
    best = logits.argmax(1)
    np.testing.assert_array_equal(out.class_ids[:, 0], best)
    bias = 0 if model.head.bias is None else np.asarray(model.head.bias[...])[best]
    assert_close(np.asarray(out.maps[:, 0]).mean((1, 2)) + bias, logits.max(1), tolerance)


def assert_close(actual, expected, tolerance=TOLERANCE):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        *(pytest.param(name, name not in SHORT, marks=[pytest.mark.long] * (name in LARGER)) for name in TORCHVISION),
        *(pytest.param(name, True, marks=pytest.mark.long) for name in TORCHVISION if name in SHORT),
    ],
)
def test_features_and_logits_equal_torchvision(torchvision, shorten, name, whole, tmp_path):
    network, run = torchvision_network(torchvision, name, *([] if whole else [shorten]))
    images = photos(SIZES_OF_TORCHVISION.get(name, SIZE))
    constants = torchvision.models.get_model_weights(TORCHVISION[name][0]).DEFAULT.transforms()
    features, logits = outputs(run, images, constants.mean, constants.std)
    if name == "convnext_tiny":
        features = after_the_layernorm(network.classifier[0], features)
    if name.startswith("mobilenet_v3"):
        features = after_hard_swish(network.classifier[0], features)
    model = camjax.load_model(name, weights=save(network, tmp_path / "weights.safetensors"))
    check(model, images, features, logits)


def after_the_layernorm(norm, features):
    """LayerNorm of the pooled features, applied to each place with the mean and variance of the pooled ones."""
    pooled = features.mean((1, 2), dtype=np.float64)
    mean, var = (moment(pooled, axis=1)[:, None, None, None] for moment in (np.mean, np.var))
    return (features - mean) / np.sqrt(var + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def after_hard_swish(dense, features):
    """A dense layer at each place, times the factor by which hard-swish multiplies that of the pooled features."""
    weight, bias = (parameter.detach().numpy().squeeze() for parameter in (dense.weight, dense.bias))
    features = features.astype(np.float64) @ weight.T + bias
    return features * (np.clip(features.mean((1, 2), keepdims=True) + 3, 0, 6) / 6)


def test_the_bound_function_equals_torchvision(torchvision, tmp_path):
    """Compiled as users do, not as cheaply as possible."""
    network, run = torchvision_network(torchvision, "resnet18")
    images = photos((64, 64))
    _, logits = outputs(run, images, *IMAGENET)
    model = camjax.load_model("resnet18", weights=save(network, tmp_path / "weights.safetensors"))
    assert_close(camjax.make_cam_fn(model)(images).logits, logits)


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "mobilenet_v2"])
def test_folding_changes_nothing(torchvision, name, tmp_path):
    """Nor does a BatchNorm that stands before its convolution, and cannot be folded, get lost."""
    network, run = torchvision_network(torchvision, name)
    images = photos((64, 64))
    features, logits = outputs(run, images, *IMAGENET)
    model = camjax.load_model(name, weights=save(network, tmp_path / "weights.safetensors"))
    check(fold_batchnorm(model), images, features, logits)


def test_both_kinds_of_file_hold_the_same_model(torchvision, tmp_path):
    network, _ = torchvision_network(torchvision, "resnet18")
    paths = save(network, tmp_path / "weights.pth"), save(network, tmp_path / "weights.safetensors")
    first, second = (jax.tree.leaves(nnx.state(camjax.load_model("resnet18", weights=path))) for path in paths)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_densenet_from_a_published_file(torchvision, tmp_path):
    """torchvision's published files say `norm.1` where its code says `norm1`."""
    from safetensors.torch import save_file

    network, _ = torchvision_network(torchvision, "densenet121")
    old = {re.sub(r"(layer\d+\.(?:norm|conv))(\d)", r"\1.\2", k): v for k, v in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    save_file({k: v for k, v in old.items() if "num_batches" not in k}, tmp_path / "old.safetensors")
    new = camjax.load_model("densenet121", weights=save(network, tmp_path / "new.safetensors"))
    old = camjax.load_model("densenet121", weights=tmp_path / "old.safetensors")
    for a, b in zip(*(jax.tree.leaves(nnx.state(model)) for model in (new, old)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(
            pytest.param(name, SIZES_OF_TIMM.get(name, SIZE), marks=[pytest.mark.long] * (name in LARGER))
            for name in TIMM
        ),
        *(pytest.param(name, None, marks=pytest.mark.long) for name in TIMM),  # the network's own
    ],
)
def test_features_and_logits_equal_timm(torchvision, shorten, name, size, tmp_path):
    if reason := missing("timm"):
        pytest.skip(reason)
    import timm

    network = timm.create_model(TIMM[name], **{"dynamic_img_size": True} if name == SWIN else {})
    if size and name in SHORT:
        shorten(network)
    randomize(network)
    config = network.pretrained_cfg
    # As in a repository of timm's: the rule for images is that of the file.
    (tmp_path / "config.json").write_text(json.dumps({"architecture": TIMM[name], "pretrained_cfg": config}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = camjax.load_model(name, weights=save(network, tmp_path / "weights.safetensors"))
    images = photos(size or model.input_size)
    features, logits = outputs(
        lambda x: (network.forward_features(x), network(x)), images, config["mean"], config["std"]
    )
    if name == SWIN:  # whose features have had their channels last
        features = features.transpose(0, 3, 1, 2)
    if name.startswith("convnext"):
        features = after_the_layernorm(network.head.norm, features)
    if name.startswith("mobilenetv3"):
        features = after_hard_swish(network.conv_head, features)
    check(model, images, features, logits, DEEP_LITE_TOLERANCE if name == "efficientnet_lite4" else TOLERANCE)


@pytest.mark.parametrize("name", ["resnet34", "densenet121", "resnext50_32x4d", "wide_resnet50_2"])
def test_timm_names_weights_as_torchvision_does(torchvision, name):
    if reason := missing("timm"):
        pytest.skip(reason)
    import timm
    import torch

    with torch.device("meta"):
        networks = torchvision.models.get_model(name), timm.create_model(name)
    ours, theirs = (network.state_dict() for network in networks)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("variant", [3, pytest.param(4, marks=pytest.mark.long)])
def test_efficientnet_lite_equals_pytorch(torchvision, variant, tmp_path):
    """The variants whose weights are in no package."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    name, side = f"efficientnet-lite{variant}", 100
    network = package.EfficientNet.from_name(name, image_size=side)
    randomize(network)
    images = photos((side, side))
    features, logits = outputs(lambda x: (network.extract_features(x), network(x)), images, *TENSORFLOW)
    model = camjax.load_model(name.replace("-", "_"), weights=save(network, tmp_path / "weights.pth"))
    assert model.input_size[0] == package.EfficientNet.get_image_size(name)
    check(model, images, features, logits, DEEP_LITE_TOLERANCE)
