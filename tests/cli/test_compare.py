import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
from conftest import random_network
from PIL import Image

import camjax
from camjax.cli import compare, compilation_cache
from camjax.cli.main import main
from camjax.weights.camjax_file import write_camjax_file

CAT = Path(skimage.data_dir, "chelsea.png")


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Arguments for a network that compiles soon, with random weights; the file says what it is of."""
    monkeypatch.setattr(compilation_cache, "keep_compiled_programs", lambda: None)
    path = tmp_path / "a [" / "x] :cat:.safetensors"  # as markup, a closing tag
    path.parent.mkdir()
    model = random_network("small_gap", 9)
    model.class_names = tuple(f"[/x] :cat: {i}" for i in range(9))
    write_camjax_file(model, path, version=camjax.__version__)
    return ["--weights", str(path)]


def test_a_grid_of_methods_by_classes(network, tmp_path, capsys):
    out = tmp_path / "a [" / "x] [bold] :cat:.png"
    methods = ["hirescam", "cam", "ablationcam"]  # in no alphabetical order
    assert main(["compare", str(CAT), *network, "--method", *methods, "--classes", "3", "8", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if any(method in line.split() for method in methods)]
    assert [[word for word in row if word in methods] for row in rows] == [[method] for method in methods] * 2
    assert [rows[0][:3], rows[3][:3]] == [["[/x]", ":cat:", "3"], ["[/x]", ":cat:", "8"]]
    assert lines[-1] == f"Saved {out}"
    # Behind average pooling HiResCAM is CAM over the number of cells: their boxes are the same.
    assert rows[0][4:] == rows[1][1:] and rows[3][4:] == rows[4][1:]
    with Image.open(out) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # Four columns of 2.1 inches at 150 dpi, two rows of a photograph of 451 x 300, and what is said of the colors.
    assert 1260 < pixels.shape[1] < 1320 and 560 < pixels.shape[0] < 680


def test_several_photographs_as_json_and_in_one_figure(network, tmp_path, capsys):
    # Side by side, since a title is the path below the folder that both have in common.
    narrow, cat, out = (tmp_path / name for name in ("narrow.png", "chelsea.png", "methods.svg"))
    Image.fromarray(np.asarray(Image.open(CAT))[:, :100]).save(narrow)
    shutil.copy(CAT, cat)
    words = [
        "compare",
        str(narrow),
        str(cat),
        *network,
        "--method",
        "hirescam",
        "cam",
        "--top-k",
        "2",
        "--threshold",
        "0.3",
    ]
    assert main([*words, "--out", str(out), "--json", "--save-maps", "--scale", "5", "--columns", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "compare" and found["figure"] == str(out)
    assert [image["size"] for image in found["images"]] == [[300, 100], [300, 451]]
    for image in found["images"]:
        rows = image["classes"]
        assert [row["method"] for row in rows] == ["hirescam"] * 2 + ["cam"] * 2
        # Behind average pooling HiResCAM is CAM over the number of cells.
        assert [{**row, "method": ""} for row in rows[:2]] == [{**row, "method": ""} for row in rows[2:]]
        assert [row["rank"] for row in rows] == [1, 2, 1, 2] and rows[0]["name"].startswith("[/x] :cat: ")
        hires, cam = (np.load(image["maps"][method])["maps"] for method in ("hirescam", "cam"))
        np.testing.assert_allclose(hires * cam[0].size, cam, rtol=1e-4, atol=1e-4)
    text = out.read_text()
    words = ("narrow.png", "chelsea.png", "Colors: from 0 to 5 in all maps.")
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.long)])
def test_without_methods_it_takes_those_of_one_pass(network, tmp_path, capsys, monkeypatch, all_of_them):
    """All are a dozen maps, compiled and drawn: the short case draws two of them."""
    monkeypatch.chdir(tmp_path)
    chosen, choose = [], compare._methods_of_one_pass

    def few(*of):
        chosen.extend(choose(*of))
        return tuple(chosen if all_of_them else chosen[:2])

    monkeypatch.setattr(compare, "_methods_of_one_pass", few)
    assert main(["compare", str(CAT), *network, "--top-k", "1"]) == 0
    words = capsys.readouterr().out.split()
    named = {"cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "layercam", "eigencam", "eigengradcam"}
    assert named <= set(chosen) and not {"scorecam", "finercam", "refinecam", "cam_ten_crop"} & set(chosen)
    assert [words.count(name) for name in chosen] == [1 if all_of_them else int(i < 2) for i in range(len(chosen))]
    assert (tmp_path / "chelsea_methods.png").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (["--methods", "magic"], "'magic': expected one of cam, "),
        (["--method", "cam", "cam"], "each once"),
        (["--classes", "10"], "--classes 10: out of range"),
        (["--top-k", "0"], "--top-k: 0 classes"),
        (["--top-k", "9"], "expected 1..8"),
        (["--chunk-size", "0"], "--chunk-size 0"),
        (["--threshold", "1"], "threshold=1"),
        (["--out", "a.xyz"], "ends in .png"),
    ],
)
def test_bad_input_is_described_and_nothing_is_written(network, args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = os.listdir(tmp_path)
    assert main(["compare", str(CAT), *network, *args]) == 1
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("camjax: ") and output.out == ""
    assert os.listdir(tmp_path) == before


def test_the_layer_that_is_measured_to_be_the_most_faithful(network, tmp_path, capsys):
    words = [
        "compare",
        str(CAT),
        *network,
        "--layer",
        "auto",
        "--json",
        "--save-maps",
        "--out",
        str(tmp_path / "c.png"),
    ]
    assert main([*words, "--method", "layercam"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    chosen = re.match(r"Layer (\S+): of 1 image its maps have .* insertion - deletion: layers", printed.err)[1]
    cam_fn = camjax.make_cam_fn(camjax.load_model("small_gap", network[1]), "layercam", layer=chosen, top_k=2)
    expected = cam_fn(camjax.load_images([CAT], size=(64, 64))).maps[0]
    np.testing.assert_allclose(np.load(found["images"][0]["maps"]["layercam"])["maps"], expected, rtol=1e-4, atol=1e-6)
    assert found["layer"] == chosen and main([*words, "--method", "cam"]) == 1
    assert "of cam: expected methods that are defined at any layer, gradcam, " in capsys.readouterr().err
