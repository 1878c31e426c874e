"""What experiments share: stages, layouts, and views of the sample photographs."""

import io
import json

import numpy as np
import pytest

from camjax.errors import InputError
from camjax.features.svm import LinearSVM
from camjax.terminal import Console
from experiments.common.features import report_unreadable
from experiments.common.layouts import check_layout, missing_layout
from experiments.common.sample import Views, part_of_image, photograph
from experiments.common.stages import Stages
from experiments.common.svm import load_svm, save_svm

# --- Layouts.

TREE = """
    Images/
      bedroom/
        a.jpg
    TrainImages.txt
"""
WHERE = "Fetch it from http://example.org, and give its folder as --indoor."


def test_the_tree_is_shown_as_it_is_written(tmp_path):
    error = missing_layout(tmp_path / "indoor", TREE, WHERE)
    assert str(error).splitlines() == [
        f"{tmp_path}/indoor is missing. Expected:",
        f"  {tmp_path}/indoor/",
        "    Images/",
        "      bedroom/",
        "        a.jpg",
        "    TrainImages.txt",
        WHERE,
    ]


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (["a"], "ROOT/a is missing."),
        (["a", "b/c"], "ROOT/a, ROOT/b/c are missing."),
        (list("abcde"), "ROOT/a, ROOT/b, ROOT/c and 2 others are missing."),
    ],
)
def test_what_is_missing_is_named(tmp_path, missing, expected):
    (tmp_path / "x").write_text("")
    with pytest.raises(FileNotFoundError) as caught:
        check_layout(tmp_path, ["x", *missing], TREE, WHERE)
    assert str(caught.value).startswith(expected.replace("ROOT", str(tmp_path)))


def test_a_folder_that_is_complete_passes(tmp_path):
    (tmp_path / "Images").mkdir()
    (tmp_path / "TrainImages.txt").write_text("")
    check_layout(tmp_path, ["Images", "TrainImages.txt"], TREE, WHERE)
    with pytest.raises(FileNotFoundError, match=r"TrainImages\.txt is missing"):
        check_layout(tmp_path / "TrainImages.txt", [], TREE, WHERE)


# --- Stages.


def test_a_stage_is_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        (tmp_path / "boxes.npz").touch()
        return {"accuracy": 50.0, "of": (1, 2)}

    def run(options):
        return Stages(tmp_path).run("crop", options, compute, files=[tmp_path / "boxes.npz"])

    first = run({"threshold": 0.2, "images": (3, 4)})
    assert first == run({"threshold": 0.2, "images": (3, 4)}) == {"accuracy": 50.0, "of": [1, 2]}
    assert len(calls) == 1
    with pytest.raises(ValueError, match=r"threshold was 0\.2, is 0\.3"):
        run({"threshold": 0.3, "images": (3, 4)})
    (tmp_path / "boxes.npz").unlink()
    run({"threshold": 0.2, "images": (3, 4)})
    assert len(calls) == 2 and (tmp_path / "boxes.npz").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "EOF"),
        ("[" * 5000, "recursion"),
        ("[]", r"the content is \[\]"),
        ('{"crop": {"options": {}, "seconds": 1}}', r"crop\.results is missing"),
        ('{"crop": {"options": {}, "seconds": 1, "results": 3}}', r"crop\.results is 3"),
    ],
)
def test_stages_of_another_form_are_named(tmp_path, content, message):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=rf"results\.json is damaged.*{message}.*Delete it to compute all stages"):
        Stages(tmp_path)


def test_changed_results_are_not_taken_for_those_of_the_stage(tmp_path):
    rng = np.random.default_rng(0)
    values = [*rng.normal(size=200).tolist(), *(10 ** rng.uniform(-300, 300, 200)).tolist(), 1.0, 3, 10**20]
    results = {"accuracy": 63.25, "curve": values, "nan": float("nan"), "class": "Möwe \x1b", "none": None}
    path = tmp_path / "results.json"

    def run():
        return Stages(tmp_path).run("crop", {"threshold": 0.2}, lambda: results)

    run()
    np.testing.assert_equal(run(), results)
    whole = path.read_text()
    path.write_text(whole.replace("63.25", "83.25"))
    with pytest.raises(InputError, match=r"results of 'crop' have changed since they were written"):
        run()
    kept = json.loads(whole)
    del kept["crop"]["crc32"]  # as it was written before
    path.write_text(json.dumps(kept))
    np.testing.assert_equal(run(), results)


def test_what_a_stage_wrote_is_read_or_refused(tmp_path):
    path = tmp_path / "svm.npz"
    svm = LinearSVM(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), 1.0, {})
    save_svm(path, svm)
    whole = path.read_bytes()
    np.testing.assert_array_equal(load_svm(path)[0], svm.kernel)
    for content in (whole[:-40], whole[:90] + b"?" + whole[91:], whole.replace(b"bias.npy", b"bien.npy"), b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"svm\.npz is not arrays of a stage, or damaged .*Delete it, and start"):
            load_svm(path)


def test_a_stage_that_fails_leaves_the_others(tmp_path):
    Stages(tmp_path).run("first", {}, lambda: {"a": 1})
    with pytest.raises(ZeroDivisionError):
        Stages(tmp_path).run("second", {}, lambda: {"a": 1 / 0})
    assert list(json.loads((tmp_path / "results.json").read_text())) == ["first"]


# --- Messages, and the sample.


def test_three_unreadable_images_are_named():
    console = Console(file=io.StringIO(), width=200)
    report_unreadable({}, console)
    assert console.file.getvalue() == ""
    report_unreadable({number: f"image {number} is damaged" for number in range(5)}, console, title="Caltech101")
    printed = console.file.getvalue()
    assert "Caltech101: 5 images can't be read" in printed
    assert "image 2 is damaged" in printed and "image 3" not in printed


def test_views_are_the_same_in_every_run_and_others_in_another_split():
    train, again, test = (Views(("cat", "rocket"), 2, split) for split in ("train", "train", "test"))
    assert train.labels.tolist() == [0, 0, 1, 1] and train.info.class_names == ("cat", "rocket")
    for index in range(4):
        image = train[index]["image"]
        assert min(image.shape[:2]) == 256 and image.dtype == np.uint8
        np.testing.assert_array_equal(image, again[index]["image"])
        assert image.shape != test[index]["image"].shape or (image != test[index]["image"]).any()


def test_a_part_of_an_image():
    pixels = photograph("cat")
    height, width = pixels.shape[:2]
    part = part_of_image(pixels, (0, 0.5, 1, 1), height)
    # Of the full height, at its own scale: the right half, pixel by pixel.
    side = min(height, width / 2)
    assert part.shape[:2] == (round(height * height / side), round(width / 2 * height / side))
    np.testing.assert_array_equal(part_of_image(pixels, (0, 0, 1, 1), height), pixels)
