"""Real photographs and the pretrained network, once for all tests."""

import numpy as np
import pytest
from skimage import data

import camjax
from camjax.data.images import resize_image


def photos(size=(224, 224)) -> np.ndarray:
    """(2, H, W, 3) uint8: scikit-image's cat and coffee."""
    return np.stack([resize_image(image, size) for image in (data.chelsea(), data.coffee())])


@pytest.fixture(scope="session")
def lite0():
    return camjax.load_model("efficientnet_lite0")
