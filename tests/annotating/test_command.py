"""`camjax annotate` as a user runs it."""

import json
import shlex

import pytest
from colored import Colors, random_folder, save, tree

from camjax.cli.main import main


@pytest.fixture(autouse=True)
def colors(monkeypatch):
    monkeypatch.setattr("camjax.loading.load_model", lambda *given, **options: Colors())


@pytest.fixture
def folder(tmp_path):
    """Its name is one that rich would change."""
    return random_folder(tmp_path / "my [red] pictures :cat:", 5)


def annotate(*words) -> int:
    return main(["annotate", *map(str, words), "--batch-size", "4"])


def test_summary_and_what_to_type_next(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert annotate(folder, "--out", out, "--boxes", "components", "--classes", "azure", "0", "--maps") == 0
    printed = capsys.readouterr()
    assert "7 pictures: 5 annotated, " in printed.out and " 2 unreadable. " in printed.out
    assert "\n  a b/empty.png: the file is empty (0 bytes); get a complete copy of it\n" in printed.out
    assert (
        f"Saved {out / 'coco.json'}\nSaved {out / 'boxes.csv'}\nSaved {out / 'voc'}\nSaved {out / 'maps'}"
        in printed.out
    )
    assert "annotating 7/7" in printed.err
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert (settings["classes"], settings["boxes"], settings["model"]) == ([2, 0], "components", "efficientnet_lite0")
    before = tree(out)
    assert annotate(folder, "--out", out, "--boxes", "components", "--classes", "azure", "0", "--maps") == 0
    assert tree(out) == before and "7 pictures: 5 annotated" in capsys.readouterr().out


def test_the_commands_to_type_next_run(tmp_path, capsys):
    pictures, out = tmp_path / "p", tmp_path / "o ut"
    save(pictures / "red/1.png", [(0, 2, 4, 10, 14)])
    save(pictures / "2.png", [(1, 2, 4, 10, 14)])
    (pictures / "torn.png").write_bytes(b"torn")
    assert annotate(pictures, "--out", out) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  camjax evaluate "))
    words = shlex.split(line.replace("--model ...", "--model efficientnet_lite0"))[1:]
    assert main([*words, "--out", str(tmp_path / "evaluation"), "--batch-size", "1", "--metrics", "ilsvrc"]) == 0
    assert "3 images: 2 scored, 1 without a class" in capsys.readouterr().out
    results = json.loads((tmp_path / "evaluation/results.json").read_text())["results"]["cam"]["ilsvrc"]
    assert results["top1_localization_error"] == 0  # of boxes with themselves


def test_folders_that_are_no_classes_cannot_be_measured(tmp_path, capsys):
    save(tmp_path / "p/2024/05/1.png", [(0, 2, 4, 10, 14)])
    save(tmp_path / "p/red/1.png", [(0, 2, 4, 10, 14)])
    assert annotate(tmp_path / "p", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "this network has no 2024: to measure the boxes, sort" in said and "camjax evaluate --" not in said


def test_shards(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert annotate(folder, "--out", out, "--shard", "0/2") == 0
    assert "Shard 0/2 is finished. After all of them, run the command with --merge." in capsys.readouterr().out
    assert annotate(folder, "--out", out, "--merge") == 0  # the second shard has no part: there are few pictures
    assert (out / "manifest.json").exists()


def test_no_picture_can_be_read(tmp_path, capsys):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/torn.png").write_bytes(b"torn")
    assert annotate(tmp_path / "p", "--out", tmp_path / "out") == 1
    assert "none of the 1 pictures can be read" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/manifest.json").read_text())["unreadable"][0]["file"] == "torn.png"


JOINED = ["--coordinator", "127.0.0.1:1", "--num-processes", "2", "--process-id", "0"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--shard", "8/8"], "--shard 8/8: expected I/N with I below N, since the first of eight shards is 0/8."),
        (["--shard", "1"], "--shard 1: expected I/N, as 0/8 for the first of eight shards."),
        (["--shard", "0/2", "--merge"], "--merge and --shard: first run all shards, then --merge alone."),
        (["--shard", "0/2", *JOINED], "--shard and --merge are for processes that do not know of each other"),
        (["--classes", "red", "--top-k", "2"], "--classes and --top-k: leave out one of them."),
        (["--classes", "rad"], "--classes 'rad': no class of this network has that name. Did you mean 'red'?"),
        (["--threshold", "0.2", "1"], "thresholds=(0.2, 1.0): expected shares of the map's maximum, each once"),
        (["--min-area", "2"], "min_area=2.0: expected a share, 0 to 1."),
        (["--top-k", "0"], "top_k=0: expected at least 1."),
        (["--merge"], "no shard has begun"),
    ],
)
def test_what_is_refused(folder, tmp_path, capsys, words, message):
    assert annotate(folder, "--out", tmp_path / "out", *words) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("camjax: ")
    assert not (tmp_path / "out").exists()
