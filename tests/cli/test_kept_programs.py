import contextlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_network

from camjax.boxes import boxes_from_maps
from camjax.cli import kept_programs
from camjax.cli.kept_programs import find_program, keep_program, kept_file
from camjax.cli.ready_network import ReadyNetwork, ready_network

X = np.float32([1, 2])
EXAMPLE = jax.ShapeDtypeStruct((2,), "float32")
ARRAYS = [jnp.float32([3, 4]), jnp.int32(1)]


def scaled(arrays, x):
    return (arrays[0] * x + arrays[1],)


@pytest.fixture
def kept(tmp_path):
    """The file of a program that is kept, and a file that it depends on."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"12345678")
    path = kept_file(tmp_path / "traced", "scaled", None)
    arrays = [jnp.float32([3, 4]), jnp.int32(1)]
    made = keep_program(
        path, {"n": np.array(["a", "b"])}, scaled, arrays, jax.ShapeDtypeStruct((2,), "float32"), files=[weights]
    )
    np.testing.assert_array_equal(made.call(X)[0], [4, 9])
    return path, weights


def test_what_was_kept_is_found(kept):
    path, _ = kept
    found = find_program(path)
    assert list(found.about) == ["n"] and found.about["n"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(found.call(X)[0], [4, 9])
    assert os.listdir(path.parent) == [path.name]  # no draft stays
    assert kept_file(path.parent, "scaled", None) == path != kept_file(path.parent, "scaled", "w")


@pytest.mark.parametrize("change", ["cut", "flipped", "empty", "weights", "no weights", "version", "setting", "folder"])
def test_what_is_damaged_or_out_of_date_does_not_count(kept, change, monkeypatch):
    path, weights = kept
    content = path.read_bytes()
    if change == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif change == "flipped":
        middle = content.index(np.float32([3, 4]).tobytes())
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "weights":
        weights.write_bytes(b"123456789")
    elif change == "no weights":
        weights.unlink()
    elif change == "version":
        monkeypatch.setattr(kept_programs.metadata, "version", lambda package: "0")
    elif change == "folder":
        path.unlink()
        path.mkdir()
    with jax.default_matmul_precision("high") if change == "setting" else contextlib.nullcontext():
        assert find_program(path) is None


def test_what_cannot_be_kept_runs(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    for path in (None, tmp_path / "file" / "below.npz"):
        np.testing.assert_array_equal(keep_program(path, {}, scaled, ARRAYS, EXAMPLE).call(X)[0], [4, 9])
    monkeypatch.setattr(kept_programs, "MOST_BYTES", 4)
    assert keep_program(tmp_path / "large.npz", {}, scaled, ARRAYS, EXAMPLE).call(X)[0].tolist() == [4, 9]
    assert not (tmp_path / "large.npz").exists()


@pytest.mark.parametrize("network", ["small_gap", pytest.param("efficientnet_lite0", marks=pytest.mark.long)])
def test_a_network_is_loaded_once(network, tmp_path):
    """What is kept is that of a name whose weights are installed; the short case keeps a small network under it."""
    loads = []
    network = random_network(network, 9)
    network.class_names = tuple("abcdefghi")

    def load():
        loads.append(1)
        return network

    first, second = (ready_network(tmp_path, "efficientnet_lite0", None, "cam", load) for _ in range(2))
    assert len(loads) == 1 and isinstance(second, ReadyNetwork)
    assert second._replace(maps_fn=None) == first._replace(maps_fn=None)
    image = np.random.default_rng(0).integers(0, 256, (1, *network.input_size, 3), np.uint8)
    for ours, theirs in zip(first.maps_fn(image), second.maps_fn(image), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    maps = np.asarray(first.maps_fn(image)[1])[0, :3]
    expected = boxes_from_maps(maps, network.input_size, 0.3)
    for _ in range(2):  # made, and found
        for ours, theirs in zip(second.boxes_fn(maps.shape)(maps, np.float32(0.3)), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    # A method that runs from the model itself, and weights or networks that may change unseen.
    assert ready_network(tmp_path, "efficientnet_lite0", None, "gradcam", load) is network
    for model, weights in (("./run", None), ("module:net", None), ("efficientnet_lite0", "hf://owner/name")):
        ready_network(tmp_path, model, weights, "gradcam", load)
    assert len(loads) == 5 and len(list(tmp_path.iterdir())) == 2
    # Nor where a file beside the weights says how images are taken.
    for name in ("net.safetensors", "config.json"):
        (tmp_path / name).write_text("{}")
    ready_network(tmp_path, "efficientnet_lite0", str(tmp_path / "net.safetensors"), "cam", load)
    assert len(loads) == 6 and len(list(tmp_path.iterdir())) == 4
