"""`camjax evaluate` as a user runs it: a folder of photographs with a CSV of boxes, and a run of our own training."""

import csv
import json

import numpy as np
import pytest
from conftest import random_network
from PIL import Image
from skimage import data

import camjax
from camjax.app.results import open_results
from camjax.cli.main import main
from camjax.training import Recipe, fit

CUP, CAT = (18, 172, 307, 401), (30, 60, 280, 440)  # first and last rows and columns: ymin, xmin, ymax, xmax


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of photographs: pieces of a cat and of a cup, one file that is no image, one without a box."""
    root = tmp_path_factory.mktemp("photos")
    lines = ["filename,xmin,ymin,xmax,ymax"]
    for name, photo, box in (("cat", data.chelsea(), CAT), ("cup", data.coffee(), CUP)):
        (root / "val" / name).mkdir(parents=True)
        for shift in (0, 5, 10):
            piece = photo[shift:, shift:]
            Image.fromarray(piece).save(root / "val" / name / f"{shift}.png")
            ymin, xmin, ymax, xmax = (edge - shift for edge in box)
            lines.append(f"{name}/{shift}.png,{xmin},{ymin},{xmax},{ymax}")
    Image.fromarray(data.rocket()).save(root / "val" / "cup" / "no_box.png")
    (root / "val" / "cat" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    lines.append("cat/torn.jpg,0,0,5,5")
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a small network that hardly trained."""
    directory = tmp_path_factory.mktemp("run") / "small"
    rng = np.random.default_rng(0)
    images = [{"image": rng.integers(0, 255, (64, 64, 3), np.uint8), "label": i % 2} for i in range(8)]
    model = random_network("small_gap", 2)
    model.class_names = ("cat", "cup")
    fit(model, images, Recipe(steps=2, batch_size=4, learning_rate=0.01), run_dir=directory, progress=False)
    return directory


def arguments(folder, run, out, *more):
    data = ["--dataset", folder, "--split", "val", "--boxes", folder / "boxes.csv"]
    given = [*data, "--model", f"{run}/", "--batch-size", 3]
    return [str(word) for word in ("evaluate", *given, "--out", out, *more)]


def test_table_and_files(folder, run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "ev [run] [/x] :cat:"  # a name that rich would change
    methods = ["--methods", "cam", "backprop"]
    metrics = ["--metrics", "ilsvrc", "maxboxacc", "maxboxaccv2", "pointing", "thresholds"]
    more = ["--threshold-step", "0.001", "--save-maps"]
    assert main(arguments(folder, run, out, *methods, *metrics, *more)) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "MaxBoxAcc, threshold in steps of 0.001" in printed
    assert "8 images: 6 scored, 1 without boxes, 1 unreadable." in printed
    assert f"Saved {out / 'results.json'}\n" in printed and "[bold]" not in printed.replace(str(out), "")
    assert "MaxBoxAccV2" in printed and "gt known localization" in printed

    results = json.loads((out / "results.json").read_text())
    assert results["images"] == {"scored": 6, "without boxes": 1, "unreadable": 1} and results["num_images"] == 8
    assert results["model"] == f"{run}/" and len(results["weights_sha256"]) == 64
    assert results["threshold_step"] == 0.001
    assert results["versions"]["camjax"] == camjax.__version__
    assert set(results["results"]) == {"cam", "backprop"}
    numbers = results["results"]
    top1 = {method: of["ilsvrc"]["top1_classification_error"] for method, of in numbers.items()}
    assert len(set(top1.values())) == 1
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["weights_sha256"] for row in rows} == {results["weights_sha256"]}
    for row in rows:
        assert float(row["value"]) == numbers[row["method"]][row["metric"]][row["name"]]
    with (out / "images.csv").open() as file:
        images = list(csv.DictReader(file))
    assert {row["filename"]: row["status"] for row in images} == {
        "cat/0.png": "scored",
        "cat/5.png": "scored",
        "cat/10.png": "scored",
        "cat/torn.jpg": "unreadable",
        "cup/0.png": "scored",
        "cup/5.png": "scored",
        "cup/10.png": "scored",
        "cup/no_box.png": "without boxes",
    }
    scored = [row for row in images if row["status"] == "scored"]
    for row in scored:
        edges = [float(row[f"cam_{edge}"] or 0) for edge in ("ymin", "xmin", "ymax", "xmax")]
        ymin, xmin, ymax, xmax = CUP if row["filename"].startswith("cup") else CAT
        shift, shape = (
            int(row["filename"][4:-4]),
            np.array((400, 600) if row["filename"].startswith("cup") else (300, 451)),
        )
        true = (np.array([ymin, xmin, ymax + 1, xmax + 1]) - shift) / np.tile(shape - shift, 2)
        assert float(camjax.box_iou(edges, true)) == pytest.approx(float(row["cam_iou"]), abs=1e-3)
    # The page of `camjax app` opens the pictures and their boxes again, from any directory.
    monkeypatch.chdir(tmp_path)
    shown = {row["name"]: row for row in open_results(out).page()["rows"]}
    assert [*shown][-1] == "cat/torn.jpg" and len(shown) == 8
    assert not any(row["note"] for name, row in shown.items() if name != "cat/torn.jpg")
    np.testing.assert_allclose(shown["cup/5.png"]["true"][0]["box"], np.array([13, 167, 303, 397]) / ([395, 595] * 2))
    for name in ("thresholds.png", "cases.png"):
        with Image.open(out / name) as figure:
            assert min(figure.size) > 300
    for method in ("cam", "backprop"):
        assert np.load(out / "scoremaps" / method / "cup" / "0.png.npy").shape == (224, 224)
    assert "scoremaps" in printed


def test_faithfulness_beside_localization(folder, run, tmp_path, capsys):
    out = tmp_path / "evaluation"
    words = ["--method", "gradcam", "ablationcam", "--metrics", "ilsvrc", "confidence", "sparsity", "random_logit"]
    words += ["relevance", "--layer", "layers.3"]
    words += ["--format", "svg", "--columns", "2", "--no-box", "--scale", "all", "--colormap", "magma"]
    assert main(arguments(folder, run, out, *words)) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    numbers = json.loads((out / "results.json").read_text())["results"]
    for method in ("gradcam", "ablationcam"):
        assert -1 <= numbers[method]["random_logit"]["random_logit"] <= 1
        assert set(numbers[method]["relevance"]) == {"relevance_mass", "relevance_rank"}
        assert set(numbers[method]["confidence"]) == {"average_drop", "increase_in_confidence", "average_gain"}
        # Rates in percent with two digits, an index in 0..1 with three.
        assert f"{numbers[method]['confidence']['average_drop']:.2f}" in printed
        assert f"{numbers[method]['sparsity']['sparsity']:.3f}" in printed
    assert "Change in confidence" in printed
    cases = (out / "cases.svg").read_text()
    assert "in all maps." in cases and "predicted box" not in cases


def test_an_evaluation_is_not_overwritten_and_can_be_resumed(folder, run, tmp_path, capsys):
    words = arguments(folder, run, tmp_path / "e", "--limit", "4", "--metrics", "ilsvrc")
    exported, of_model = str(tmp_path / "two.safetensors"), words.index("--model")
    assert main(["convert", str(run), exported, "--model", "small_gap"]) == 0
    words[of_model : of_model + 2] = ["--weights", exported]  # which says what it is of
    assert main(words) == 0
    results = json.loads((tmp_path / "e" / "results.json").read_text())
    assert (results["model"], results["weights"]) == ("small_gap", exported)
    first = results["results"]
    assert main(words) == 1
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert json.loads((tmp_path / "e" / "results.json").read_text())["results"] == first


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--metrics", "pxap"], "masks"),
        (["--metrics", "accuracy"], "expected some of ilsvrc"),
        (["--methods", "magic"], "magic"),
        (["--threshold", "1"], "0 <= threshold < 1"),
        (["--crop", "center"], "whole images"),
        (["--lists", "nowhere"], "cannot be used with"),
    ],
)
def test_wrong_combinations_are_said(folder, run, tmp_path, capsys, more, message):
    assert main(arguments(folder, run, tmp_path / "e", *more)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "e" / "results.json").exists()
