import contextlib
import io
import json

import pytest

import camjax
from camjax.cli import model_sizes
from camjax.cli.main import main

# Parameters as the papers count them: Tan and Le's code says 4.7M and 6.1M, torchvision 11.7M and 25.6M, 138.4M. The
# paper's maps (Zhou et al. 2016, section 3): 13 x 13 of AlexNet-GAP, 14 x 14 of VGG and GoogLeNet.
KNOWN = {
    "efficientnet_lite0": ["4.7", "224x224", "7x7", "exact"],
    "efficientnet_lite2": ["6.1", "260x260", "9x9", "exact"],
    "resnet18": ["11.7", "224x224", "7x7", "exact"],
    "resnet50": ["25.6", "224x224", "7x7", "exact"],
    "vgg16": ["138.4", "224x224", "7x7", "none"],
    "alexnet_gap": ["4.5", "227x227", "13x13", "exact"],
    "vgg16_gap": ["18.1", "224x224", "14x14", "exact"],
    "googlenet_gap": ["8.3", "224x224", "14x14", "exact"],
    "inception_v3": ["23.8", "299x299", "8x8", "exact"],
}


def printed(cache, columns: int) -> list[str]:
    """The lines of `camjax models` on a terminal of some columns."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("XDG_CACHE_HOME", str(cache))
        assert main(["models"]) == 0
    return output.getvalue().splitlines()


SOME = ("efficientnet_lite0", "resnet18", "vgg16", "alexnet_gap")


@pytest.fixture(scope="module", params=[SOME, pytest.param(None, marks=pytest.mark.long)], ids=["some", "all"])
def measured(request):
    """Names of the networks whose sizes are worked out, which takes long; the others' are made up. None for all."""
    return request.param


@pytest.fixture(scope="module")
def cache(measured, tmp_path_factory):
    """Where a first command left the sizes."""
    directory, measure = tmp_path_factory.mktemp("cache"), model_sizes.measure
    made_up = model_sizes.ModelSize(138_400_000, (224, 224), (14, 14), "exact")  # as wide as any
    with pytest.MonkeyPatch.context() as patch:
        if measured is not None:
            patch.setattr(model_sizes, "measure", lambda name: measure(name) if name in measured else made_up)
        printed(directory, 200)
    return directory


@pytest.fixture(scope="module")
def rows(cache):
    """The words of each line, by the first of them."""
    lines = [line.split() for line in printed(cache, 200) if line.strip()]
    return {line[0]: line[1:] for line in lines}


def test_every_model_has_a_line(rows):
    assert set(camjax.list_models()) <= set(rows)


def test_lines_by_hand(rows, measured):
    found = {name: rows[name][:4] for name in measured or KNOWN}
    assert found == {name: KNOWN[name] for name in found}


def test_where_weights_come_from(rows):
    assert rows["efficientnet_lite1"][4:] == ["ImageNet,", "with", "camjax"]
    assert rows["small_gap"][4:] == ["none"]
    assert rows["resnet50"][4:] == ["torchvision's", "or", "timm's", "resnet50"]
    assert rows["vgg16"][4:] == ["torchvision's", "vgg16", "or", "Caffe's", "VGG_ILSVRC_16_layers.caffemodel"]


def test_short_names_have_their_addresses(cache):
    lines = printed(cache, 80)
    place = lines.index("--model googlenet_gap --weights cam-release-places205")
    folder = "http://cnnlocalization.csail.mit.edu/demoCAM/models"
    assert lines[place + 1] == f"  {folder}/places_googlenetCAM_train_iter_120000.caffemodel"
    assert "--model resnet50 --weights torchvision" in lines
    assert "--model vgg16_gap --weights torchvision" not in lines  # only the backbone


def test_it_fits_a_terminal_of_80_columns(cache, rows):
    lines = printed(cache, 80)
    assert max(len(line) for line in lines if "://" not in line) <= 80
    # Names and numbers are whole there too.
    words = [line.split() for line in lines]
    for name in camjax.list_models():
        assert any(line[:4] == [name, *rows[name][:3]] for line in words), name


def test_the_second_time_nothing_is_worked_out(cache, rows, monkeypatch):
    monkeypatch.setattr(model_sizes, "measure", None)
    assert len(printed(cache, 80)) > len(camjax.list_models())


@pytest.mark.parametrize("damage", ["version", "{", "[]", '{"version": 3}', "models", None])
def test_what_is_kept_is_not_trusted_blindly(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    right = model_sizes.model_sizes(["small_gap"])
    assert right["small_gap"].parameters == 138_498
    (file,) = (tmp_path / "camjax").iterdir()
    content = json.loads(file.read_text())
    content["models"]["small_gap"]["parameters"] = 1
    if damage == "version":  # other networks than those that the file is of
        content["version"] = "0"
    elif damage == "models":
        content["models"]["small_gap"] = {"parameters": 1}
    file.write_text(damage if damage and damage not in content else json.dumps(content))
    found = model_sizes.model_sizes(["small_gap"])
    assert (found == right) is (damage is not None)


def test_without_a_place_to_keep_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert model_sizes.model_sizes(["small_gap"])["small_gap"].map_size == (16, 16)
