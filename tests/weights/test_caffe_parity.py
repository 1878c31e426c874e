"""Caffe's networks against OpenCV's: the same `.caffemodel` gives the same features and logits.

OpenCV reads the weights with a Caffe reader of its own and runs the network that the prototxt describes. Its own
images are what Caffe's networks take: B, G, R less the training images' mean.
"""

import caffe_nets
import cv2
import jax
import numpy as np
import pytest
from conftest import photos

import camjax

pytestmark = pytest.mark.parity

# Of the largest magnitude: float32 rounding in another order of summation.
TOLERANCE = 2e-5

# B, G, R: of ILSVRC 2012's training images, as Caffe's examples have it.
MEAN = (104.00698793, 116.66876762, 122.67891434)

CLASSES = 205

# network: (height, width) of the images, the layer of its features, whether its file is of the older format.
# The sizes leave windows that stand over the edge, where Caffe's pooling rounds up.
NETWORKS = {
    "alexnet": ((227, 227), "pool5", False),
    "alexnet_gap": ((131, 150), "CAM_relu", False),
    "alexnet_star_gap": ((131, 150), "features", True),
    "vgg16_gap": ((100, 85), "CAM_relu", True),
    "googlenet": ((101, 124), "inception_5b/output", False),
    "googlenet_gap": ((101, 124), "CAM_relu", False),
    "nin": ((137, 150), "features", True),
}


def with_random_weights(name, folder):
    """The path of a caffemodel, and OpenCV's network with it."""
    size, _, v1 = NETWORKS[name]
    net = getattr(caffe_nets, name)(size, CLASSES)
    prototxt, weights = folder / "deploy.prototxt", folder / "weights.caffemodel"
    prototxt.write_text(net.prototxt)
    weights.write_bytes(caffe_nets.caffemodel(net, caffe_nets.random_weights(net, 0), v1=v1))
    opencv = cv2.dnn.readNetFromCaffe(str(prototxt), str(weights))
    # Winograd's convolutions round more coarsely.
    opencv.enableWinograd(False)
    return weights, opencv


def opencv_features_and_logits(opencv, layer, images, mean):
    """(B, h, w, K) and (B, C), of RGB images and a mean of (3,) or (H, W, 3) in the order B, G, R."""
    x = images[..., ::-1].astype(np.float32) - np.asarray(mean, np.float32)
    opencv.setInput(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    features, logits = opencv.forward([layer, opencv.getLayerNames()[-1]])
    return features.transpose(0, 2, 3, 1), logits.reshape(len(images), CLASSES)


@pytest.mark.parametrize("name", NETWORKS)
def test_features_and_logits_equal_opencv(name, tmp_path):
    weights, opencv = with_random_weights(name, tmp_path)
    size, layer, _ = NETWORKS[name]
    images = photos(size)
    model = camjax.load_model(name, weights=weights, num_classes=CLASSES)
    weights.unlink()  # up to a quarter of a gigabyte, which pytest would keep
    actual = jax.jit(lambda model, images: (model.features(images), model(images)))(model, images)
    for a, expected in zip(actual, opencv_features_and_logits(opencv, layer, images, MEAN), strict=True):
        # Neither dead nor alike: at least a tenth of the units is on, and the photographs differ.
        assert (expected != 0).mean() > 0.1
        assert np.abs(expected[0] - expected[1]).max() > 0.05 * np.abs(expected).max()
        np.testing.assert_allclose(a, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_with_the_mean_image(tmp_path):
    name = "alexnet_star_gap"
    weights, opencv = with_random_weights(name, tmp_path)
    size, layer, _ = NETWORKS[name]
    mean = np.random.default_rng(1).uniform(80, 150, (256, 256, 3)).astype(np.float32)  # B, G, R
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(caffe_nets.blob(mean.transpose(2, 0, 1)[None], legacy=True))

    images = photos(size)
    model = camjax.load_model(name, weights=weights, num_classes=CLASSES, mean_image=path)
    top, left = (256 - size[0]) // 2, (256 - size[1]) // 2
    crop = mean[top : top + size[0], left : left + size[1]]
    features, logits = opencv_features_and_logits(opencv, layer, images, crop)
    np.testing.assert_allclose(model.features(images), features, rtol=0, atol=TOLERANCE * np.abs(features).max())
    np.testing.assert_allclose(model(images), logits, rtol=0, atol=TOLERANCE * np.abs(logits).max())
