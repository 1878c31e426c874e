import re

import caffe_nets
import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.models.caffe_layers import CAFFE_NAMES
from camjax.models.shapes import model_shapes
from camjax.weights.errors import WeightsError

SIZES = {"alexnet": (227, 227), "alexnet_gap": (227, 227), "alexnet_star_gap": (227, 227)}
NETWORKS = (*SIZES, "googlenet", "googlenet_gap", "nin", "vgg16", "vgg16_gap")


def placed(name: str) -> tuple[str | None, tuple[int, ...] | None]:
    """The place and the axes that the table's first matching rule gives an entry."""
    for rule in CAFFE_NAMES:
        if match := re.fullmatch(rule.pattern, name):
            return rule.place and match.expand(rule.place), rule.axes
    raise AssertionError(f"no rule for {name}")


@pytest.mark.parametrize(("name", "classes"), [*((name, 1000) for name in NETWORKS), ("googlenet_gap", 205)])
def test_every_blob_has_its_place(name, classes):
    net = getattr(caffe_nets, name)(SIZES.get(name, (224, 224)), classes)
    shapes = {}
    for layer, (_, shape) in net.weights.items():
        for i, blob in enumerate((shape, shape[:1])):
            place, axes = placed(f"{layer}.{i}")
            assert place not in shapes
            shapes[place] = tuple(blob[axis] for axis in axes) if axes else blob
    parameters = nnx.to_flat_state(nnx.state(model_shapes(name, classes), nnx.Param))
    assert shapes == {".".join(map(str, path)): variable.shape for path, variable in parameters}


@pytest.mark.parametrize("name", ["loss1/conv", "loss1/fc", "loss2/classifier"])
def test_auxiliary_classifiers_are_left_out(name):
    assert placed(f"{name}.0") == placed(f"{name}.1") == (None, None)


def test_a_caffemodel_becomes_a_model(tmp_path, monkeypatch):
    net = caffe_nets.alexnet_star_gap((227, 227), 205)
    arrays = caffe_nets.random_weights(net, 0)
    path = tmp_path / "alexnetplusCAM_places205.caffemodel"
    path.write_bytes(caffe_nets.caffemodel(net, arrays, v1=True))
    model = camjax.load_model("alexnet_star_gap", weights=path, num_classes=205)
    monkeypatch.setattr("camjax.weights.fetch.fetch", lambda address: path)
    by_name = camjax.load_model("alexnet_star_gap", weights="cam-release-places205")
    assert by_name.head.num_classes == 205 and by_name.class_names is None
    np.testing.assert_array_equal(by_name.head.kernel[...], model.head.kernel[...])
    np.testing.assert_array_equal(model.conv4.kernel[...], arrays["conv4.0"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(model.conv4.bias[...], arrays["conv4.1"])
    np.testing.assert_array_equal(model.head.kernel[...], arrays["fc9.0"].T)
    assert model.channel_order == "bgr"


@pytest.mark.parametrize("name", ["alexnet", "alexnet_gap"])
@pytest.mark.parametrize("v1", [False, True])
def test_the_reference_net_is_not_taken_for_alexnet(tmp_path, name, v1):
    """CaffeNet has AlexNet's weights by name and shape, and pools before it normalizes."""
    net = caffe_nets.Net(227, 227, weights={"conv1": ("Convolution", (2, 3, 11, 11))})
    start = caffe_nets.caffemodel(net, caffe_nets.random_weights(net, 0), v1=v1)

    def load(*layers):
        numbers = (2, 4) if v1 else (100, 1)
        named = [caffe_nets.message(numbers[0], caffe_nets.message(numbers[1], layer.encode())) for layer in layers]
        (tmp_path / "net.caffemodel").write_bytes(start + b"".join(named))
        camjax.load_model(name, weights=tmp_path / "net.caffemodel")

    with pytest.raises(WeightsError, match="its layers are in the order pool1, norm1, as in bvlc_reference_caffenet"):
        load("relu1", "pool1", "norm1")
    for layers in (("relu1", "norm1", "pool1", "norm2", "pool2"), ()):
        with pytest.raises(WeightsError, match="does not fit the model"):
            load(*layers)


def test_a_missing_layer_is_named(tmp_path):
    net = caffe_nets.nin((224, 224), 10)
    arrays = caffe_nets.random_weights(net, 0)
    del net.weights["cccp4"]
    path = tmp_path / "nin.caffemodel"
    path.write_bytes(caffe_nets.caffemodel(net, arrays))
    with pytest.raises(WeightsError, match=r"(?s)no entry fills \(2\):\n  cccp4\.(kernel|bias)"):
        camjax.load_model("nin", weights=path, num_classes=10)
