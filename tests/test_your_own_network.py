"""docs/your_own_network.md runs as it stands there, from top to bottom; its Equinox among the parity tests."""

import contextlib
import re
import shlex
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.ndimage
from flax import nnx
from PIL import Image
from skimage import data

import camjax
from camjax.attribution import explain_nnx
from camjax.cli.main import main
from camjax.models import registry

GUIDE = (Path(__file__).parents[1] / "docs" / "your_own_network.md").read_text()


def blocks(heading: str, language: str = "python") -> list[str]:
    """The code under a heading."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", GUIDE, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Where a reader works: a photograph, and folders of photographs with their boxes."""
    directory = tmp_path_factory.mktemp("guide")
    Image.fromarray(data.chelsea()).save(directory / "cat.jpg")
    for split in ("train", "val"):
        for name, photo in (("cat", data.chelsea()), ("cup", data.coffee())):
            (directory / "photos" / split / name).mkdir(parents=True)
            Image.fromarray(photo[:256, :256]).save(directory / "photos" / split / name / "0.jpg")
    (directory / "boxes.csv").write_text(
        "filename,xmin,ymin,xmax,ymax\ncat/0.jpg,40,40,200,200\ncup/0.jpg,90,20,250,250\n"
    )
    return directory


@pytest.fixture(autouse=True)
def working(directory, monkeypatch):
    monkeypatch.chdir(directory)


@pytest.fixture(scope="module")
def beginning(directory):
    """The names after the guide's first example."""
    with contextlib.chdir(directory):
        names = {}
        exec(blocks("Two functions")[0], names)
        return names


def run(beginning: dict, *headings: str) -> dict:
    """The names after further sections."""
    names = dict(beginning)
    for block in (block for heading in headings for block in blocks(heading)):
        exec(block, names)
    return names


def test_two_functions(beginning):
    (first, second), names = blocks("Two functions"), dict(beginning)
    shapes = next(line for line in first.splitlines() if line.startswith("found.outputs")).split("#")[1]
    assert shapes.strip() == ", ".join(str(array.shape) for array in names["found"])
    assert names["valid"].all()
    for map, box in zip(camjax.resize_map(names["found"].maps, 64)[0], names["boxes"][0], strict=True):
        regions, count = scipy.ndimage.label(np.asarray(map > 0.2 * map.max()), np.ones((3, 3)))
        largest = np.argwhere(regions == 1 + np.argmax(np.bincount(regions.ravel(), minlength=count + 1)[1:]))
        np.testing.assert_allclose(box, np.concatenate([largest.min(0), largest.max(0) + 1]) / 64, atol=1e-6)
    exec(second, names)
    # Behind global average pooling the map of a difference is the difference of two class activation maps.
    features = names["features_fn"](names["weights"], names["images"])
    kernel = names["weights"]["dense"]
    cam = camjax.class_activation_map(features, kernel[:, 4:] - kernel[:, :1])
    np.testing.assert_allclose(names["found"].maps, cam / 16**2, atol=1e-6)


def test_nnx(beginning):
    names = run(beginning, "Flax NNX")
    assert names["found"].maps.shape == names["both"].maps.shape == names["inside"].maps.shape == (1, 2, 16, 16)
    np.testing.assert_allclose(
        names["found"].outputs, camjax.inference.inference_view(names["model"])(names["images"]), atol=1e-4
    )


def test_linen(beginning):
    names = run(beginning, "Flax Linen")
    logits = names["module"].apply(names["variables"], names["images"], train=False)
    np.testing.assert_allclose(names["found"].outputs, logits, atol=1e-4)
    assert names["found"].maps.shape == (1, 2, 16, 16)


@pytest.mark.parity
def test_equinox(beginning):
    pytest.importorskip("equinox", reason="to install: python -m benchmarks.peers")
    names = run(beginning, "Equinox")
    logits = jax.vmap(names["model"])(names["images"].transpose(0, 3, 1, 2))
    np.testing.assert_allclose(names["found"].outputs, logits, atol=1e-4)
    assert names["found"].maps.shape == (1, 2, 16, 16)


def test_token_networks(beginning):
    first, second = blocks("Token networks")
    names = {**beginning, "nnx": nnx, "explain_nnx": explain_nnx}
    exec(first, names)
    assert names["found"].maps.shape == (1, 2, 8, 8) and np.asarray(names["found"].maps).max() > 0
    np.testing.assert_allclose(names["found"].outputs, jax.jit(names["model"].__call__)(names["images"]), atol=1e-4)
    exec(second, names)
    assert names["found"].maps.shape == (1, 1, 8, 8)


def test_a_model_with_a_name(directory, monkeypatch, capsys):
    module, training = blocks("A model with a name")
    (commands,) = blocks("A model with a name", "sh")
    (directory / "my_nets.py").write_text(module)
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setitem(sys.modules, "my_nets", None)
    del sys.modules["my_nets"]
    with monkeypatch.context() as patch:
        patch.syspath_prepend(directory)
        names = {"camjax": camjax}
        exec(training, names)
    assert names["model"].created_as["name"] == "my_nets:my_net"
    for command in commands.splitlines():
        assert main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)
    assert (directory / "cat_cam.png").is_file() and (directory / "evaluation" / "results.json").is_file()
    again = camjax.load_model("my_nets:my_net", weights="my_net.safetensors", num_classes=2)
    np.testing.assert_array_equal(again.head.kernel[...], names["model"].head.kernel[...])
    assert again.class_names == ("cat", "cup")
