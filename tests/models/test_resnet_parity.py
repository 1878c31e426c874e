"""ResNet against torchvision's: the same weights, from both kinds of file, give the same features and logits."""

import jax
import numpy as np
import pytest
from conftest import photos

import camjax
from benchmarks.peers import import_torchvision

pytestmark = pytest.mark.parity

# Of the largest magnitude: float32 rounding through up to 53 convolutions in another order of summation.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def torchvision():
    pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")
    try:
        return import_torchvision()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=["resnet18", "resnet50"])
def network(request, torchvision):
    """(name, torchvision's network with random weights): no two channels of a BatchNorm are alike."""
    import torch

    torch.manual_seed(0)
    network = torchvision.models.get_model(request.param)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return request.param, network.eval()


@pytest.fixture(scope="module")
def weights_files(network, tmp_path_factory):
    """(name, .pth file, .safetensors file) of the network's weights."""
    import torch
    from safetensors.torch import save_file

    name, network = network
    folder = tmp_path_factory.mktemp(name)
    torch.save(network.state_dict(), folder / "weights.pth")
    save_file(network.state_dict(), folder / "weights.safetensors")
    return name, folder / "weights.pth", folder / "weights.safetensors"


def torchvision_features_and_logits(torchvision, name, network, images):
    """(B, h, w, K) and (B, C), of images normalized by the constants that torchvision gives its weights."""
    import torch
    from torchvision.models.feature_extraction import create_feature_extractor
    from torchvision.transforms.functional import normalize

    constants = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        out = create_feature_extractor(network, {"layer4": "features", "fc": "logits"})(
            normalize(x, constants.mean, constants.std)
        )
    return out["features"].permute(0, 2, 3, 1).numpy(), out["logits"].numpy()


def test_both_kinds_of_file_hold_the_same_model(weights_files):
    name, pth, safetensors = weights_files
    first, second = (jax.tree.leaves(camjax.load_model(name, weights=path)) for path in (pth, safetensors))
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(*(jax.random.key_data(x) if is_key(x) else x for x in (a, b)))


@pytest.mark.parametrize("size", [(224, 224), (256, 320)])
def test_features_and_logits_equal_torchvision(torchvision, network, weights_files, size):
    images = photos(size)
    features, logits = torchvision_features_and_logits(torchvision, *network, images)

    model = camjax.load_model(network[0], weights=weights_files[1])
    bound = camjax.make_cam_fn(model)
    model.eval()
    assert_close(jax.jit(lambda model, images: model.features(images))(model, images), features)
    assert_close(bound(images).logits, logits)


def is_key(x):
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
