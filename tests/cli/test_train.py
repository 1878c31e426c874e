"""`camjax train` as a user runs it: folders of pictures of one color each, and a network of two convolutions."""

import csv
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import camjax
from camjax.cli import training_report
from camjax.cli.main import main
from camjax.cli.training_run import set_image_size
from camjax.data import open_annotated
from camjax.models.shapes import model_shapes
from camjax.training import evaluate
from tests.experiments.colors import TINY
from tests.processes import together

CLASSES = {"cherry": (200, 40, 40), "leaf": (40, 180, 40), "sea water": (40, 60, 200)}
EACH = 10
ROOT = Path(__file__).parents[2]


def paint(folder: Path, name: str, numbers, seed: int) -> None:
    """Noisy pictures of a class's color, of several sizes."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in numbers:
        shape = (30 + i, 40 - i, 3)
        pixels = np.clip(CLASSES[name] + rng.integers(-40, 40, shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten pictures of each class, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate(CLASSES):
        paint(folder, name, range(EACH), seed)
    (folder / "leaf" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    return folder


def words(data, out, *more) -> list[str]:
    given = ("train", data, "--out", out, "--model", TINY, "--weights", "random", "--batch-size", 8)
    return [str(word) for word in (*given, "--learning-rate", 0.05, *more)]


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A run of four epochs, in pictures of 24 pixels."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert main(words(pictures, out, "--epochs", 4, "--image-size", 24)) == 0
    return out


@pytest.fixture(autouse=True)
def no_predictions(monkeypatch):
    """Other runs than the finished one draw no predictions, whose maps and figure take half of a run's time."""
    monkeypatch.setattr(training_report, "draw_predictions", lambda *args, **options: None)


def test_the_run_says_how_good_it_is(pictures, finished, capsys):
    assert main(words(pictures, finished, "--epochs", 4, "--image-size", 24)) == 0  # of a finished run, the same again
    printed = capsys.readouterr().out
    model = camjax.load_model(finished)
    assert model.input_size == (24, 24) and model.class_names == tuple(CLASSES)

    results = json.loads((finished / "results.json").read_text())
    validation = open_annotated(str(finished / "pictures.csv"), "validation")
    assert results["num_images"] == len(validation) == 6  # two of ten of each class
    assert results["accuracy"] == pytest.approx(evaluate(model, validation, batch_size=8)["accuracy"])
    assert results["accuracy"] > 0.8
    assert results["per_class"].keys() == CLASSES.keys()
    assert sum(row["right"] for row in results["per_class"].values()) == round(6 * results["accuracy"])
    assert sum(pair["images"] for pair in results["confused"]) == round(6 * (1 - results["accuracy"]))
    assert results["recipe"]["batch_size"] == 8 and results["recipe"]["steps"] == 12  # 4 epochs of 24
    assert list(results["unreadable"]) == ["leaf/torn.jpg"]

    assert f"Accuracy {results['accuracy']:.1%}" in printed and "leaf/torn.jpg" in printed
    assert "random weights" in printed and "24 x 24 pixels" in printed
    assert f"camjax annotate {pictures} --model {finished}" in printed
    assert Image.open(finished / "predictions.png").size[0] > 500
    card = json.loads((finished / "run_card.json").read_text())
    assert card["results"]["eval/accuracy"] == pytest.approx(results["accuracy"])


def test_the_split_is_written_down_and_kept(pictures, finished):
    with (finished / "pictures.csv").open() as file:
        rows = list(csv.DictReader(file))
    splits = [row["split"] for row in rows]
    assert (splits.count("train"), splits.count("validation"), splits.count("unreadable")) == (24, 6, 1)


def test_a_run_becomes_longer(pictures, finished, tmp_path, capsys):
    out = tmp_path / "longer"
    assert main(words(pictures, out, "--epochs", 1)) == 0
    split = (out / "pictures.csv").read_text()
    with pytest.warns(UserWarning, match="lengthened from 3 to 6 steps"):
        assert main(words(pictures, out, "--epochs", 2)) == 0
    assert (out / "pictures.csv").read_text() == split
    assert json.loads((out / "results.json").read_text())["recipe"]["steps"] == 6
    # Another split, or pictures that came since, would be measured on what was trained on.
    capsys.readouterr()
    assert main(words(pictures, out, "--epochs", 2, "--validation", 0.5)) == 1
    assert "pictures.csv" in capsys.readouterr().err
    assert main(words(pictures, out, "--epochs", 2, "--seed", 3)) == 1
    assert (out / "pictures.csv").read_text() == split


def test_a_training_method(pictures, tmp_path, capsys):
    out = tmp_path / "has"
    assert main(words(pictures, out, "--steps", 1, "--wsol", "has", "grid_size=8")) == 0
    assert "has (8, 0.5), which changes training images" in capsys.readouterr().out
    assert camjax.load_model(out).created_as["wsol"] == {"method": "has", "grid_size": 8, "drop_rate": 0.5}
    assert main(words(pictures, out, "--steps", 1, "--wsol", "has", "grid_size=4")) == 1
    assert "model.wsol" in capsys.readouterr().err
    assert main(words(pictures, tmp_path / "other", "--wsol", "haas")) == 1
    assert "Did you mean 'has'?" in capsys.readouterr().err


def test_pictures_that_came_since_are_an_error(tmp_path, capsys):
    for seed, name in enumerate(CLASSES):
        paint(tmp_path / "some", name, range(4), seed)
    out = tmp_path / "run"
    assert main(words(tmp_path / "some", out, "--steps", 1)) == 0
    paint(tmp_path / "some", "leaf", [7], 9)
    assert main(words(tmp_path / "some", out, "--steps", 1)) == 1
    error = capsys.readouterr().err
    assert "leaf/7.png" in error and "--out" in error


def test_from_a_run_with_the_same_classes_all_is_kept(pictures, finished, tmp_path, capsys):
    given = ["train", pictures, "--out", tmp_path / "more", "--model", f"{finished}/", "--steps", 1]
    given += ["--batch-size", 8, "--learning-rate", 1e-9]
    assert main([str(word) for word in given]) == 0
    assert "its classes are the same" in capsys.readouterr().out
    before, after = (camjax.load_model(path) for path in (finished, tmp_path / "more"))
    np.testing.assert_allclose(after.head.kernel[...], before.head.kernel[...], atol=1e-6)
    assert after.input_size == (24, 24)


def test_a_dry_run_writes_nothing(pictures, tmp_path, capsys):
    of_two = ("--coordinator", "127.0.0.1:1", "--num-processes", "2", "--process-id", "1")
    assert main(words(pictures, tmp_path / "run", "--dry-run", *of_two)) == 0
    printed = capsys.readouterr().out
    assert "100 steps of 8 images (33.3 epochs of 24)" in printed and "MB on each device" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--validation", "1"], "--validation 1.0: expected a share"),
        (["--image-size", "0"], "--image-size 0"),
        (["--epochs", "0"], "--epochs 0"),
        (["--freeze", "backbone"], "the weights that it would keep are random"),
        (["--batch-size", "-4"], "--batch-size -4: expected more than 0"),
        (["--model", "resnet51"], "resnet51"),
        (["--model", "small_gap", "--image-size", "3"], "--image-size 3"),
        (["--out", "hf://bucket/run"], "hf://bucket/run is no address of a bucket: expected a folder, or gs://"),
        (["--data-dir", "gs://bucket/tfds"], "--data-dir gs://bucket/tfds: expected a folder or file of this machine"),
    ],
)
def test_options_that_do_not_fit(pictures, tmp_path, monkeypatch, capsys, change, said):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(words(pictures, "run", *change))
    except SystemExit as exit_code:
        code = exit_code.code
    assert code in (1, 2) and said in capsys.readouterr().err
    assert not list(tmp_path.glob("run/checkpoints"))


def test_fully_connected_layers_take_one_size():
    model = model_shapes("vgg16", 2)
    with pytest.raises(ValueError, match=r"--image-size 96: a feature map of 3 x 3"):
        set_image_size(model, (96, 96))
    set_image_size(model, (224, 224))


def test_one_class_is_no_task(tmp_path, capsys):
    paint(tmp_path / "some", "leaf", range(3), 0)
    assert main(words(tmp_path / "some", tmp_path / "run")) == 1
    assert "leaf" in capsys.readouterr().err and not (tmp_path / "run").exists()


def in_processes(lines: list[list[str]], wait: float | None = None) -> list[int]:
    """Runs commands as processes of their own, at once; `wait` seconds later the last is killed. Their exit codes."""
    code = "import sys, tests.experiments.colors; from camjax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    processes = [subprocess.Popen([sys.executable, "-c", code, *line], cwd=ROOT) for line in lines]
    if wait is not None:
        time.sleep(wait)
        processes[-1].kill()
    return [process.wait(300) for process in processes]


@pytest.mark.long
def test_two_processes_and_killed_ones_end_as_one(pictures, tmp_path):
    """With the same split, and the same accuracy but for the order of sums."""
    one, killed, two = (words(pictures, tmp_path / name, "--epochs", 2) for name in ("one", "killed", "two"))
    began = time.monotonic()
    assert in_processes([one]) == [0]
    seconds = time.monotonic() - began
    for share in (0.3, 0.6, 0.9):
        in_processes([killed], seconds * share)
    assert in_processes([killed]) == [0]
    names = ("--coordinator", "--num-processes", "--process-id")
    joined = [zip(names, map(str, options["joined"]), strict=True) for options in together(2)]
    assert in_processes([[*two, *itertools.chain(*words)] for words in joined]) == [0, 0]

    def kernel(name):
        return camjax.load_model(tmp_path / name).head.kernel[...]

    np.testing.assert_array_equal(kernel("killed"), kernel("one"))
    np.testing.assert_allclose(kernel("two"), kernel("one"), atol=1e-5)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "killed", "two")]
    assert results[0] == results[1]
    for key in ("accuracy", "per_class", "confused", "unreadable", "recipe"):
        assert results[2][key] == results[0][key], key
    splits = {(tmp_path / name / "pictures.csv").read_text() for name in ("one", "killed", "two")}
    assert len(splits) == 1
