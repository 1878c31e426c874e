"""The state of an evaluation on disk: what is read back, and what is refused."""

import json

import numpy as np
import pytest

from camjax.errors import InputError
from camjax.evaluation.run_files import FORMAT, RunFiles
from camjax.metrics import Truth, score_map

OPTIONS = {"threshold": 0.2, "methods": ["cam"]}


def saved(directory):
    files = RunFiles(directory, OPTIONS, ["index", "iou"], resume=False)
    files.write_images([[0, 0.5], [1, 0.25]])
    files.save({"batches": 1, "seconds": 2.5, "counts": {}, "metrics": {}}, {"maps": np.arange(6.0).reshape(2, 3)})
    files.write_images([[2, 0.75]])  # after the last save: gone once the run is resumed
    files.close()


def resumed(directory, options=OPTIONS):
    return RunFiles(directory, options, ["index", "iou"], resume=True)


def test_a_state_comes_back_with_its_rows_and_arrays(tmp_path):
    saved(tmp_path)
    files = resumed(tmp_path)
    assert files.state["batches"] == 1
    np.testing.assert_array_equal(files.arrays["maps"], [[0, 1, 2], [3, 4, 5]])
    files.write_images([[3, 1]])
    files.close()
    assert (tmp_path / "images.csv").read_text().split() == ["index,iou", "0,0.5", "1,0.25", "3,1"]


def test_a_state_of_another_version_is_refused(tmp_path):
    saved(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    for version in (None, FORMAT + 1):
        other = {key: value for key, value in state.items() if key != "format"}
        (tmp_path / "state.json").write_text(json.dumps(other | ({"format": version} if version else {})))
        with pytest.raises(ValueError, match=rf"format {version or 1}, of another version .* reads format {FORMAT}"):
            resumed(tmp_path)


def test_an_evaluation_of_the_version_before_had_no_file_of_cases(tmp_path):
    saved(tmp_path)
    (tmp_path / "cases.npz").unlink()
    state = json.loads((tmp_path / "state.json").read_text())
    del state["format"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match="format 1, of another version"):
        resumed(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "cases.npz", "images.csv"])
def test_what_is_cut_short_is_refused(tmp_path, name):
    saved(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 3])
    with pytest.raises(ValueError, match="start again"):
        resumed(tmp_path)


@pytest.mark.parametrize("name", ["cases.npz", "images.csv"])
def test_what_is_missing_is_refused(tmp_path, name):
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="start again"):
        resumed(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "expected|should be"),
        ("[" * 100_000, "state.json is damaged"),
        ("{", "state.json is damaged"),
        ({"batches": -1}, "batches is -1"),
        ({"batches": "1"}, "batches is '1'"),
        ({"images_bytes": 1.5}, "images_bytes is 1.5"),
        ({"metrics": {"cam": {"ilsvrc": {"metric": "X", "options": {}}}}}, r"metrics\.cam\.ilsvrc\.sums is missing"),
        ({"options": None}, "options is None"),
        ({"batches": 2}, "is damaged: it is not what was written"),
    ],
)
def test_a_state_of_another_form_is_an_error_that_names_the_field(tmp_path, content, message):
    saved(tmp_path)
    path = tmp_path / "state.json"
    path.write_text(content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(InputError, match=f"(?s){message}.*start again"):
        resumed(tmp_path)


def test_without_a_state_an_evaluation_begins_from_the_start(tmp_path):
    saved(tmp_path)
    (tmp_path / "state.json").unlink()
    files = resumed(tmp_path)
    files.close()
    assert files.state is None and (tmp_path / "images.csv").read_text().split() == ["index,iou"]


def test_other_options_are_refused(tmp_path):
    saved(tmp_path)
    with pytest.raises(ValueError, match=r"threshold was 0\.2, is 0\.3"):
        resumed(tmp_path, OPTIONS | {"threshold": 0.3})
    with pytest.raises(FileExistsError, match="--resume"):
        RunFiles(tmp_path, OPTIONS, [], resume=False)


def test_maps_are_files_in_a_folder_that_no_name_leaves(tmp_path):
    maps = np.random.default_rng(0).normal(size=(2, 3, 4))
    files = RunFiles(tmp_path, OPTIONS, [], resume=False)

    def write(filename):
        files.write_maps(Truth(np.zeros(2), [], [], np.ones((2, 2)), np.array([True, False]), [filename, "x"]), maps)

    write("a/0.png")
    with pytest.raises(ValueError, match=r"'\.\./1\.png' leads out"):
        write("../1.png")
    files.close()
    (written,) = tmp_path.rglob("*.npy")
    assert written == tmp_path / "scoremaps" / "a" / "0.png.npy"
    np.testing.assert_array_equal(np.load(written), score_map(maps[0]))
