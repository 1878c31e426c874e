import struct

import cv2
import numpy as np
import pytest
from caffe_nets import Net, blob, caffemodel, integer, message, random_weights
from mutations import fuzz, refusal

from camjax.weights import caffe_file
from camjax.weights.caffe_file import read_caffemodel, read_mean_binaryproto
from camjax.weights.errors import WeightsError
from camjax.weights.readers import read_tensors

SIX = np.arange(6, dtype=np.float32)


def layer(name: str, *blobs: bytes, kind: str = "Convolution") -> bytes:
    return message(100, message(1, name.encode()), message(2, kind.encode()), *(message(7, b) for b in blobs))


def v1_layer(name: str, *blobs: bytes, kind: int = 4) -> bytes:
    return message(2, message(4, name.encode()), integer(5, kind), *(message(6, b) for b in blobs))


def small_net() -> Net:
    net = Net(9, 11)
    net.conv("conv1", 4, 3, stride=2)
    net.conv("conv2", 6, 1, group=2)
    net.dense("fc", 5)
    return net


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.caffemodel"


@pytest.fixture
def read(path):
    def read_bytes(data: bytes) -> dict[str, np.ndarray]:
        path.write_bytes(data)
        return read_caffemodel(path)

    return read_bytes


def test_bytes_by_hand(read):
    # Written out from the wire format and caffe.proto: layer (100) {name (1) "c"; blobs (7) {shape (7) {dim (1): 1, 2};
    # data (5): 1.5, -2}}.
    numbers = struct.pack("<ff", 1.5, -2)
    data = b"\xa2\x06\x15\x0a\x01c\x3a\x10\x3a\x04\x0a\x02\x01\x02\x2a\x08" + numbers
    assert_same(read(data), {"c.0": np.array([[1.5, -2]], np.float32)})


@pytest.mark.parametrize("v1", [False, True])
def test_a_network_as_opencv_reads_it(tmp_path, path, read, v1):
    net = small_net()
    arrays = random_weights(net, 0)
    found = read(caffemodel(net, arrays, v1=v1))
    assert_same(found, arrays)
    assert not any(array.flags.writeable for array in found.values())

    (tmp_path / "deploy.prototxt").write_text(net.prototxt)
    opencv = cv2.dnn.readNetFromCaffe(str(tmp_path / "deploy.prototxt"), str(path))
    for name, array in found.items():
        of_layer, i = name.split(".")
        np.testing.assert_array_equal(opencv.getParam(of_layer, int(i)).ravel(), array.ravel(), err_msg=name)


def test_legacy_dimensions(read):
    def legacy(*shape):
        return blob(np.zeros(shape, np.float32), legacy=True)

    data = v1_layer("conv", legacy(1, 1, 3, 5), legacy(7)) + v1_layer("fc", legacy(1, 4), legacy(1), kind=14)
    # An upgraded file has the present layers and the dimensions of old.
    data += layer("conv_now", legacy(1, 2, 3, 3)) + layer("fc_now", legacy(4, 6), legacy(4), kind="InnerProduct")
    assert {name: array.shape for name, array in read(data).items()} == {
        "conv.0": (1, 1, 3, 5),
        "conv.1": (7,),
        "fc.0": (4,),
        "fc.1": (1,),
        "conv_now.0": (1, 2, 3, 3),
        "fc_now.0": (4, 6),
        "fc_now.1": (4,),
    }


def test_what_protobuf_allows(read):
    # Fields in any order, fields that no description has, numbers in pieces, doubles, gradients, a layer without blobs.
    sizes = message(7, message(1, b"\x02\x03"))
    pieces = message(5, SIX[:2].tobytes()) + sizes + message(6, SIX.tobytes()) + message(5, SIX[2:].tobytes())
    doubles = message(7, message(1, b"\x02")) + message(8, np.array([0.1, -1e300]).tobytes())
    data = integer(5, 1) + layer("relu", kind="ReLU") + message(1234, b"?") + layer("fc/a.b", pieces, doubles)
    assert_same(read(data), {"fc/a.b.0": SIX.reshape(2, 3), "fc/a.b.1": np.array([0.1, -1e300])})


def test_names_that_are_no_text(read):
    assert list(read(layer("conv", blob(SIX)).replace(b"conv", b"a\xff/b"))) == ["a\ufffd/b.0"]


GOOD = layer("conv", blob(SIX.reshape(1, 1, 2, 3)), blob(SIX[:1]))


def sized(*lengths: int, legacy: bool = False, numbers: bytes = SIX.tobytes()) -> bytes:
    """A layer whose blob has these lengths, whatever its numbers."""
    if legacy:
        shape = b"".join(integer(number, length) for number, length in enumerate(lengths, 1))
    else:
        shape = message(7, *(integer(1, length) for length in lengths))
    return layer("conv", shape + message(5, numbers))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sized(2**40, 2**40), "24 bytes of numbers"),
        (sized(2**62, 4), "24 bytes"),
        (sized(2**40, 1, 1, 1, legacy=True), "24 bytes"),
        (sized(2, 4), r"shape (2, 4)"),
        (sized(5), "(5,)"),
        (sized(-2, -3), "(-2, -3)"),
        (sized(0), "(0,)"),
        (sized(0, 6), "(0, 6)"),
        (sized(*[1] * 40, 6), "should have the shape"),
        (sized(6, numbers=SIX.tobytes()[:-1]), "23 bytes"),
        (sized(6, numbers=b""), "0 bytes of numbers"),
        (layer("conv", message(5, SIX.tobytes())), "shape (0, 0, 0, 0)"),
        (layer("fc", message(5, SIX.tobytes()), kind="InnerProduct"), "shape (0, 0, 0, 0)"),
        (layer("conv", b""), "conv.0"),
        (GOOD + GOOD, "two blobs are named 'conv.0'"),
        (GOOD + v1_layer("conv", blob(SIX)), "two blobs are named 'conv.0'"),
        (layer("relu", kind="ReLU"), "no layer of this file has weights"),
        (message(2, message(1, message(50, blob(SIX)))), "upgrade_net_proto_binary"),
        (b"\xa2\x06\x00" * 200_001, "more than 200,000 fields"),
        (GOOD[:-1], "not a whole message of Caffe"),
        (message(100, b"\x0a\xff\xff\xff\xff\x0f"), "not a whole message of Caffe"),
        (b"\xa2\x06" + b"\xff" * 9 + b"\x01", "not a whole message of Caffe"),
        (b"\xa3" * 10_000, "not a whole message of Caffe"),
        (b'name: "AlexNet"\nlayer { }', "looks like text"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "torch.save"),
        (b"", "empty"),
        (bytes(64), "not a whole message of Caffe"),
    ],
)
def test_damaged_and_other_files(path, data, words):
    assert words in refusal(read_caffemodel, path, data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x12\x00" * 5_000,
        message(100, b"\x3a\x00" * 2_000),
        layer("conv", b"\x2a\x00" * 2_000),
        layer("conv", message(7, b"\x08\x01" * 2_000)),
        layer("conv", message(7, message(1, b"\x01" * 2_000))),
        b"\x1b" + b"\xa2\x06\x00" * 2_000 + b"\x1c",
    ],
)
def test_more_fields_than_any_network_has(path, data, monkeypatch):
    """Wherever they are; counted to fewer here, as counting to 200,000 takes a second."""
    monkeypatch.setattr(caffe_file, "_MAX_FIELDS", 2_000)
    assert "more than 2,000 fields" in refusal(read_caffemodel, path, data)


def test_larger_than_any_message(path):
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(WeightsError, match="2,147,483,648 bytes, where a protobuf message has at most 2,147,483,647"):
        read_caffemodel(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.caffemodel"):
        read_caffemodel(tmp_path / "nowhere.caffemodel")
    with pytest.raises(WeightsError, match="a directory"):
        read_mean_binaryproto(tmp_path)


@pytest.mark.parametrize("v1", [False, True])
def test_truncation_is_an_error_or_ends_behind_a_layer(path, v1):
    net = small_net()
    arrays = random_weights(net, 0)
    data = caffemodel(net, arrays, v1=v1)
    read = set()
    for length in range(1, len(data), 7):
        path.write_bytes(data[:length])
        try:
            found = read_caffemodel(path)
        except WeightsError:
            continue
        read.add(length)
        assert_same(found, dict(list(arrays.items())[: len(found)]))
        assert len(found) % 2 == 0
    # There are three layers; the file ends with the last.
    assert len(read) <= 2


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("legacy", [True, False])
def test_mean_image_by_hand(path, kind, legacy):
    # Blue is 0..5, green 10..15, red 20..25 over two rows of three pixels.
    mean = np.stack([SIX, SIX + 10, SIX + 20]).reshape(1, 3, 2, 3).astype(kind)
    path.write_bytes(blob(mean, legacy=legacy))
    found = read_mean_binaryproto(path)
    expected = [[[20, 10, 0], [21, 11, 1], [22, 12, 2]], [[23, 13, 3], [24, 14, 4], [25, 15, 5]]]
    np.testing.assert_array_equal(found, np.array(expected, np.float32), strict=True)
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (blob(np.zeros((1, 1, 2, 3), np.float32)), "a blob of shape (1, 1, 2, 3)"),
        (blob(np.zeros((2, 3, 2, 3), np.float32)), "a blob of shape (2, 3, 2, 3)"),
        (blob(SIX), "a blob of shape (6,)"),
        (blob(np.zeros((1, 3, 2, 3), np.float32), legacy=True)[:-4], "not a whole message of Caffe"),
        (integer(1, 1) + integer(2, 3) + integer(3, 2**30) + integer(4, 2**30) + message(5, bytes(12)), "12 bytes"),
        (blob(np.full((1, 3, 2, 3), np.nan, np.float32)), "values that are NaN or infinite"),
        (GOOD, "not a mean image"),
        (b"hello", "text"),
        (b"", "empty"),
    ],
)
def test_no_mean_image(path, data, words):
    assert words in refusal(read_mean_binaryproto, path, data)


@pytest.mark.parametrize("suffix", [".caffemodel", ".CAFFEMODEL"])
def test_read_by_its_suffix(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(GOOD)
    assert list(read_tensors(path)) == ["conv.0", "conv.1"]


def fuzz_both(path, seeds: range) -> None:
    net = Net(3, 3)
    net.conv("conv1", 2, 1)
    net.dense("fc", 2)
    arrays = random_weights(net, 0)
    for v1 in (False, True):
        fuzz(read_caffemodel, path, caffemodel(net, arrays, v1=v1), seeds)
    fuzz(
        lambda path: {"mean": read_mean_binaryproto(path)},
        path,
        blob(SIX.repeat(3).reshape(1, 3, 2, 3), legacy=True),
        seeds,
    )


def test_mutated_files(path):
    fuzz_both(path, range(150))


@pytest.mark.long
def test_many_mutated_files(path):
    fuzz_both(path, range(1000, 3000))
