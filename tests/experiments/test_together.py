"""Experiments in two processes: the results of one, in the same files, and printed once."""

import json
import re
from pathlib import Path

import pytest
import tyro
from flax import nnx

import camjax
from camjax.terminal import Console
from camjax.weights.camjax_file import write_camjax_file
from tests.experiments.colors import TINY
from tests.experiments.test_cub import Shapes
from tests.experiments.test_doors import door
from tests.processes import end, join, start, together

WORDS = {
    "class_units": "--sample --classes 0 1",
    "concepts": "--sample",
    "cub": "--epochs 0.2",
    "generic_features": "--sample",
    "scene_objects": "--sample",
    "text_detector": "--sample",
    "vqa": "--sample --epochs 2 --width 8 --answers 5",
}


def experiment(options: dict) -> None:
    """Runs an experiment; the program of a process."""
    join(options)
    module = door(options["name"])
    words = f"{WORDS[options['name']]} --model {TINY} --weights {options['weights']} --out {options['out']}"
    chosen = tyro.cli(module.Options, args=words.split())
    if options["name"] == "cub":
        quiet = "joined" in options and options["joined"][-1] > 0
        module.run(chosen, Shapes("train", 96), Shapes("test", 33), Console(quiet=quiet))
    else:
        module.main(chosen)


def results_of(out: Path) -> dict[str, bytes]:
    """Features and results, without the time that they took."""
    files = [path for path in out.rglob("*") if path.suffix in (".npy", ".npz", ".json") and "run" not in path.name]
    return {
        path.relative_to(out).as_posix(): re.sub(rb'"seconds": [0-9.]+', b'"seconds": 0', path.read_bytes())
        for path in files
        if "finetuning" not in path.parts
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    write_camjax_file(camjax.create_model(TINY, 10, rngs=nnx.Rngs(0)), path, version="0")
    return path


@pytest.mark.long
@pytest.mark.parametrize("name", WORDS)
def test_two_processes_leave_the_results_of_one(name, weights, tmp_path):
    log, given = tmp_path / "log.txt", {"name": name, "weights": str(weights)}
    one = start(experiment, {**given, "out": str(tmp_path / "one"), "devices": 2}, tmp_path / "one.txt")
    two = [start(experiment, own, log) for own in together(2, **given, out=str(tmp_path / "two"))]
    assert end([one, *two], log) == [0, 0, 0], (tmp_path / "one.txt").read_text()[-2000:] + log.read_text()[-3000:]
    expected, found = (results_of(tmp_path / of) for of in ("one", "two"))
    assert found.keys() == expected.keys() and json.loads(expected["results.json"])
    for file, content in expected.items():
        assert found[file].replace(b"/two/", b"/one/") == content, file
    assert log.read_text().count("Saved ") == (tmp_path / "one.txt").read_text().count("Saved ") > 0
