"""VGG-16 and Inception v3 against torchvision's, and the layers that Caffe's networks have against PyTorch's.

The benchmark's networks are put together of torchvision's own layers: its convolutions and blocks, with the strides
and paddings that the benchmark changes.
"""

import jax
import numpy as np
import pytest
from conftest import photos

import camjax
from benchmarks.peers import import_torchvision
from camjax.models.base import IMAGENET_MEAN, IMAGENET_STD
from camjax.models.caffe_layers import conv, lrn, max_pool

pytestmark = pytest.mark.parity

# Of the largest magnitude: float32 rounding through up to 100 convolutions in another order of summation.
TOLERANCE = 2e-5
CLASSES = 7


@pytest.fixture(scope="module")
def torchvision():
    pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")
    try:
        return import_torchvision()
    except ImportError as error:
        pytest.skip(str(error))


def randomized(network):
    """The network in inference mode; activations keep their scale, and no two channels of a BatchNorm are alike."""
    import torch

    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def normalized(images, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """(B, 3, H, W) PyTorch images of (B, H, W, 3) uint8."""
    import torch

    return torch.from_numpy((images - np.array(mean)) / np.array(std)).permute(0, 3, 1, 2).float()


def channels_last(array):
    return array.permute(0, 2, 3, 1).numpy()


@jax.jit
def features_and_logits(model, images):
    features = model.features(images)
    return features, model.head(features)


def assert_equal(model, images, features, logits):
    """Features and logits, of the model and of its snapshot."""
    bound = camjax.make_cam_fn(model)(images).logits if hasattr(model.head, "kernel") else logits.numpy()
    model.eval()
    found = features_and_logits(model, images)
    assert (features != 0).float().mean() > 0.1
    assert_close(found[0], channels_last(features))
    assert_close(found[1], logits.numpy())
    assert_close(bound, logits.numpy())


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_vgg16(torchvision, tmp_path):
    import torch

    network, images, path = randomized(torchvision.models.vgg16()), photos(), tmp_path / "vgg16.pth"
    torch.save(network.state_dict(), path)
    with torch.inference_mode():
        x = normalized(images)
        features, logits = network.features(x), network(x)
    model = camjax.load_model("vgg16", weights=path)
    assert_equal(model, images, features, logits)
    path.unlink()  # half a gigabyte, which pytest would keep


@pytest.mark.parametrize("name", ["vgg16_wsol", "vgg16_wsol_28x28"])
def test_vgg16_of_the_benchmark(torchvision, tmp_path, name):
    import torch
    from torchvision.models.vgg import cfgs, make_layers

    layers = cfgs["D"][:-1]  # all but the last pooling
    if name.endswith("28x28"):
        layers = [layer for i, layer in enumerate(layers) if i != len(layers) - 4]
        assert layers.count("M") == 3
    network = torch.nn.Module()
    network.features = make_layers(layers)
    network.conv6 = torch.nn.Conv2d(512, 1024, 3, padding=1)
    network.fc = torch.nn.Linear(1024, CLASSES)
    network, images, path = randomized(network), photos((75, 98)), tmp_path / "vgg16.pth"
    torch.save(network.state_dict(), path)
    with torch.inference_mode():
        features = network.conv6(network.features(normalized(images))).relu()
        logits = network.fc(features.mean((2, 3)))
    assert_equal(camjax.load_model(name, weights=path, num_classes=CLASSES), images, features, logits)


def test_inception_v3(torchvision, tmp_path):
    import torch
    from torchvision.models.feature_extraction import create_feature_extractor

    # As with torchvision's own weights, which turn its normalization back to -1..1.
    network = torchvision.models.inception_v3(num_classes=CLASSES, init_weights=False, transform_input=True)
    network, images, path = randomized(network), photos((107, 141)), tmp_path / "inception_v3.pth"
    torch.save(network.state_dict(), path)
    with torch.inference_mode():
        x = normalized(images)
        features = create_feature_extractor(network, {"Mixed_7c": "features"})(x)["features"]
        logits = network(x)
    model = camjax.load_model("inception_v3", weights=path, num_classes=CLASSES)
    assert_equal(model, images, features, logits)


@pytest.mark.parametrize("name", ["inception_v3_wsol", "inception_v3_wsol_28x28"])
def test_inception_v3_of_the_benchmark(torchvision, name, tmp_path):
    import torch
    from torch.nn.functional import max_pool2d

    full = torchvision.models.inception_v3(init_weights=False, aux_logits=False)
    full.Conv2d_1a_3x3.conv.padding = (1, 1)
    for layer in (full.Mixed_6a.branch3x3, full.Mixed_6a.branch3x3dbl_3):
        layer.conv.stride, layer.conv.padding = (1, 1), (1, 1)
    network = torch.nn.Module()
    for layer, module in full.named_children():
        if layer.startswith(("Conv2d", "Mixed_5", "Mixed_6")):
            network.add_module(layer, module)
    network.SPG_A3_1b = torch.nn.Sequential(torch.nn.Conv2d(768, 1024, 3, padding=1), torch.nn.ReLU())
    network.SPG_A3_2b = torch.nn.Sequential(torch.nn.Conv2d(1024, 1024, 3, padding=1), torch.nn.ReLU())
    network.SPG_A4 = torch.nn.Conv2d(1024, CLASSES, 1)
    network, images = randomized(network), photos((75, 98))

    def mixed_6a(x):
        block = network.Mixed_6a
        double = block.branch3x3dbl_3(block.branch3x3dbl_2(block.branch3x3dbl_1(x)))
        return torch.cat((block.branch3x3(x), double, max_pool2d(x, 3, 1, 1)), 1)

    with torch.inference_mode():
        x = network.Conv2d_2b_3x3(network.Conv2d_2a_3x3(network.Conv2d_1a_3x3(normalized(images))))
        x = network.Conv2d_3b_1x1(max_pool2d(x, 3, 2, 1, ceil_mode=True))
        x = max_pool2d(network.Conv2d_4a_3x3(x), 3, 2, 1, ceil_mode=True)
        x = network.Mixed_5d(network.Mixed_5c(network.Mixed_5b(x)))
        if not name.endswith("28x28"):
            x = max_pool2d(x, 3, 2, ceil_mode=True)
        x = network.Mixed_6e(network.Mixed_6d(network.Mixed_6c(network.Mixed_6b(mixed_6a(x)))))
        features = network.SPG_A3_2b(network.SPG_A3_1b(x))
        class_maps = network.SPG_A4(features)
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    model = camjax.load_model(name, weights=tmp_path / "inception.pth", num_classes=CLASSES)
    assert_equal(model, images, features, class_maps.mean((2, 3)))
    # The benchmark's maps are those of its last convolution, the bias included.
    maps = camjax.make_cam_fn(model, top_k=None)(images).maps + network.SPG_A4.bias.detach().numpy()[:, None, None]
    assert_close(maps, class_maps.numpy())


@pytest.mark.parametrize("side", range(3, 16))
@pytest.mark.parametrize(("size", "strides", "padding"), [(3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 2, 0), (2, 2, 1)])
def test_pooling_that_rounds_up(torchvision, side, size, strides, padding):
    import torch

    x = np.random.default_rng(side).normal(size=(1, side, side + 3, 2)).astype(np.float32)
    expected = torch.nn.functional.max_pool2d(
        torch.from_numpy(x).permute(0, 3, 1, 2), size, strides, padding, ceil_mode=True
    )
    np.testing.assert_array_equal(max_pool(x, size, strides, padding), channels_last(expected))


@pytest.mark.parametrize(("size", "alpha", "beta"), [(5, 1e-4, 0.75), (3, 0.1, 0.5), (5, 2.0, 1.0)])
def test_lrn(torchvision, size, alpha, beta):
    import torch

    x = np.random.default_rng(0).normal(0, 50, (2, 3, 4, 16)).astype(np.float32)
    expected = torch.nn.functional.local_response_norm(torch.from_numpy(x).permute(0, 3, 1, 2), size, alpha, beta)
    np.testing.assert_allclose(lrn(x, size=size, alpha=alpha, beta=beta), channels_last(expected), rtol=1e-5)


def test_convolution_of_two_groups(torchvision):
    import torch
    from flax import nnx

    layer = conv(8, 6, 5, 2, padding=2, groups=2, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 9, 10, 8)).astype(np.float32)
    kernel = torch.from_numpy(np.array(layer.kernel[...])).permute(3, 2, 0, 1)
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x).permute(0, 3, 1, 2), kernel, stride=2, padding=2, groups=2
    )
    assert_close(layer(x), channels_last(expected))
