"""The pretrained networks against their PyTorch implementation."""

import numpy as np
import pytest
from conftest import photos

import camjax
from camjax.models.efficientnet_lite import packaged_file

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_efficientnet_lite_logits_equal_pytorch(variant):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")
    package = pytest.importorskip("efficientnet_lite_pytorch")
    model = camjax.load_model(f"efficientnet_lite{variant}")
    images = photos(model.input_size)
    reference = package.EfficientNet.from_name(f"efficientnet-lite{variant}")
    reference.load_state_dict(torch.load(packaged_file(variant), weights_only=True))
    reference.eval()
    with torch.inference_mode():
        x = torch.from_numpy((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2).contiguous()
        expected = reference(x).numpy()
    np.testing.assert_allclose(camjax.cam_fn(model, images).logits, expected, atol=1e-3)
    np.testing.assert_allclose(camjax.make_cam_fn(model)(images).logits, expected, atol=1e-3)
