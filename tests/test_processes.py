"""Joining processes: what is refused in words, and what does nothing; `training/test_survival.py` has real ones."""

import json
import re
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import camjax
from camjax.cli.main import main
from camjax.data import open_annotated
from camjax.evaluation import evaluate_localization, runner
from camjax.evaluation.truth import First
from camjax.features import extract_features, gap_features
from camjax.processes import in_first
from camjax.training import fit, initialize
from camjax.weights.camjax_file import write_camjax_file
from tests.experiments.colors import TINY
from tests.processes import end, join, start, together
from tests.training.tiny_run import Colors, Net, tiny_recipe


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("10.0.0.1:8476",), "coordinator='10.0.0.1:8476' without num_processes and process_id: give all three"),
        ((None, 2, 0), "num_processes=2, process_id=0 without coordinator: give all three, or none"),
        (("10.0.0.1", 2, 0), "coordinator='10.0.0.1': expected host:port"),
        (("10.0.0.1:port", 2, 0), "expected host:port"),
        (("10.0.0.1:8476", 2, 2), "process_id=2 of num_processes=2: expected 0..num_processes-1"),
        (("10.0.0.1:8476", 0, 0), "num_processes=0"),
    ],
)
def test_what_does_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        initialize(*arguments)


@pytest.mark.parametrize("command", ["evaluate --dataset x", "annotate x", "train x --out y"])
def test_commands_take_all_three_or_none(command, capsys):
    assert main([*command.split(), "--coordinator", "10.0.0.1:8476"]) == 1
    assert capsys.readouterr().err == "camjax: --coordinator, --num-processes, --process-id: all three, or none.\n"


def test_one_process_without_arguments_is_left_alone():
    hook = sys.excepthook
    initialize()
    initialize()
    assert not jax.distributed.is_initialized()
    assert sys.excepthook is hook


def test_too_late():
    """Once JAX has been used, joining others is an error, not a run alone."""
    jax.devices()
    with pytest.raises(RuntimeError, match="must be called before"):
        initialize("127.0.0.1:1", 2, 0)
    assert not jax.distributed.is_initialized()


# --- Real processes, each with two devices, against one with as many.

COLORS = ("blue", "green", "red")


def paint(folder: Path, number: int) -> Path:
    """Pictures of three classes with a box each, of two sizes, one of them torn; and a file of boxes."""
    rng = np.random.default_rng(0)
    lines = ["filename,xmin,ymin,xmax,ymax"]
    for i in range(number):
        image = rng.integers(0, 90, (40 + 8 * (i % 2), 40, 3), np.uint8)
        y, x = rng.integers(0, 20, 2)
        image[y : y + 16, x : x + 16, 2 - i % 3] = 255
        path = folder / "pictures" / COLORS[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        lines.append(f"{path.parent.name}/{path.name},{x},{y},{x + 15},{y + 15}")
    if number > 3:
        (folder / "pictures/red/torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder


def work(options: dict) -> None:
    """Evaluates, extracts features and trains, as commands do, and writes everything to "out"."""
    join(options)
    weights, out, size = options["weights"], Path(options["out"]), str(options["batch"])
    model = camjax.load_model(TINY, weights)
    for folder in map(Path, options["folders"]):
        pictures, written = str(folder / "pictures"), out / folder.name
        network = ["--model", TINY, "--weights", weights]
        words = ["evaluate", "--dataset", pictures, "--split", "all", "--boxes", str(folder / "boxes.csv"), *network]
        words += ["--out", str(written / "evaluation"), "--batch-size", size, "--save-maps", "--resume"]
        others = ["maxboxaccv2", "insertion"] if folder.name == "many" else []  # which compile anew in each process
        assert main([*words, "--metrics", "ilsvrc", *others]) == 0
        source = open_annotated(pictures, "all")
        store = extract_features(model, source, written / "features", batch_size=2, shard_size=4)
        pooled = gap_features(model, First(source, int(store.readable.argmin()) or len(source)), batch_size=2)
        in_first(lambda written=written, pooled=pooled: np.save(written / "pooled.npy", pooled))
    # With dropout: each device draws the same, too.
    fit(Net(0.2), Colors(), tiny_recipe(4, batch_size=options["batch"]), run_dir=out / "run", log_every=1)
    in_first(lambda: None)


def results_of(out: Path) -> dict:
    """What all kinds of processes have to leave alike: files by their names, and the training's numbers."""
    own = re.compile(r"^(state|cases|images)-\d+\.|^state|^cases\.npz|png$|lock")
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    found: dict = {
        name: re.sub(rb'"seconds": [0-9.]+', b"", path.read_bytes())
        for name, path in files.items()
        if not name.startswith("run/") and not own.search(path.name)
    }
    for line in (out / "run" / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        found[f"step {metrics['step']}"] = {name: n for name, n in metrics.items() if "per_second" not in name}
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten pictures and a torn one; a single picture, fewer than processes; and weights."""
    root = tmp_path_factory.mktemp("data")
    weights = root / "net.safetensors"
    model = camjax.create_model(TINY, 3, rngs=nnx.Rngs(0))
    model.class_names = COLORS
    write_camjax_file(model, weights, version="0")
    folders = [str(paint(root / name, number)) for name, number in (("many", 10), ("one", 1))]
    return {"folders": folders, "weights": str(weights)}


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_leave_the_files_of_one_with_as_many_devices(data, tmp_path, count):
    """To the bit, but for training: Gloo adds the gradients of four devices in another order than one process does."""
    log, devices = tmp_path / "log.txt", 2 * count
    given = {**data, "batch": devices * 2}
    one = start(work, {**given, "out": str(tmp_path / "one"), "devices": devices}, log)
    shared = [start(work, own, log) for own in together(count, **given, out=str(tmp_path / "shared"), devices=2)]
    assert end([one, *shared], log) == [0] * (count + 1), log.read_text()[-3000:]
    expected, found = (results_of(tmp_path / name) for name in ("one", "shared"))
    assert len(expected) > 20 and found.keys() == expected.keys()
    assert {"many/evaluation/results.json", "many/evaluation/images.csv", "one/pooled.npy"} <= expected.keys()
    for name, value in expected.items():
        if name.startswith("step "):
            assert found[name] == pytest.approx(value, rel=1e-5), name
        else:
            assert found[name] == value, name
    # The first one prints, and no other.
    saved = [line for line in log.read_text().splitlines() if line.endswith("results.json")]
    assert len(saved) == 2 * len(data["folders"])


class Slow(First):
    """A source whose images take "wait" seconds each; in the process "broken", the fifth one takes the disk with it."""

    def __init__(self, source, wait, broken=None):
        super().__init__(source, len(source))
        self.wait, self.broken, self.reads = wait, broken, 0

    def __getitem__(self, index):
        time.sleep(self.wait)
        self.reads += 1
        if self.reads > 4 and self.broken == jax.process_index():
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def slow_work(options: dict) -> None:
    """Evaluates and extracts features, and saves after each batch."""
    join({"preemption": False, **options})
    runner.SAVE_SECONDS = 0
    out = Path(options["out"])
    model = camjax.load_model(TINY, options["weights"])
    pictures = open_annotated(
        f"{options['folders'][0]}/pictures", "all", boxes=Path(options["folders"][0], "boxes.csv")
    )
    source = Slow(pictures, options.get("wait", 0), options.get("broken"))
    directory = out / "evaluation"
    evaluate_localization(
        model, source, batch_size=options["batch"], run_dir=directory, resume=True, num_threads=1, metrics=["maxboxacc"]
    )
    extract_features(model, source, out / "features", batch_size=1, shard_size=1, num_threads=1)
    in_first(lambda: None)


def finished(out: Path) -> dict[str, bytes]:
    """The files, without drafts that a process that was killed has left."""
    paths = (*out.glob("evaluation/images.csv"), *out.glob("features/*"))
    return {path.name: path.read_bytes() for path in paths if path.suffix != ".draft"}


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    log = out / "log.txt"
    assert end([start(slow_work, {**data, "batch": 8, "out": str(out), "devices": 8}, log)], log) == [0], (
        log.read_text()
    )
    return finished(out)


@pytest.mark.long
@pytest.mark.parametrize(
    ("victim", "reached"), [(1, "evaluation/state-*.json"), (3, "features/*.npy"), (0, "features/*.npy")]
)
def test_one_of_four_is_killed_and_the_next_start_goes_on(data, uninterrupted, tmp_path, victim, reached):
    log, given = tmp_path / "log.txt", {**data, "batch": 8, "out": str(tmp_path), "devices": 2}
    four = [start(slow_work, own, log) for own in together(4, **given, wait=0.5)]
    while not list(tmp_path.glob(reached)) and four[victim].exitcode is None:
        time.sleep(0.01)
    four[victim].kill()
    began = time.monotonic()
    codes = end(four, log)
    assert time.monotonic() - began < 60
    assert codes.pop(victim) == -signal.SIGKILL and {*codes} <= {1, -signal.SIGABRT}, log.read_text()[-3000:]
    said = log.read_text()
    for process in range(4):
        assert f"Process {process} of 4 " in said
    assert said.count("Start all processes again with the same commands") >= 4
    assert f"Process {victim} of 4 has ended before its work was done" in said
    assert finished(tmp_path).keys() < uninterrupted.keys()
    four = [start(slow_work, own, log) for own in together(4, **given)]
    assert end(four, log) == [0] * 4, log.read_text()[-3000:]
    assert finished(tmp_path) == uninterrupted and not list(tmp_path.rglob("*.draft"))


@pytest.mark.long
@pytest.mark.parametrize("broken", [0, 1])
def test_an_error_in_one_process_ends_the_other(data, tmp_path, broken):
    log = tmp_path / "log.txt"
    given = {**data, "batch": 8, "out": str(tmp_path), "devices": 2, "broken": broken, "heartbeat_seconds": 5}
    codes = end([start(slow_work, own, log) for own in together(2, **given)], log)
    assert codes[broken] == 1 and codes[1 - broken] in (1, -signal.SIGABRT)
    said = log.read_text()
    assert "OSError: the disk is gone" in said and f"Process {broken} of 2 ends with this error" in said


@pytest.mark.long
def test_an_evaluation_goes_on_with_as_many_processes(data, uninterrupted, tmp_path):
    log, given = tmp_path / "log.txt", {**data, "batch": 8, "out": str(tmp_path)}
    assert end([start(slow_work, {**given, "devices": 8}, log)], log) == [0]
    assert 0 not in end([start(slow_work, own, log) for own in together(2, **given, devices=4)], log)
    assert "holds an evaluation of another number of processes (state.json), and now there are 2" in log.read_text()


@pytest.mark.long
def test_sigterm_ends_what_keeps_its_state_all_the_time(data, tmp_path):
    log, given = tmp_path / "log.txt", {**data, "batch": 8, "out": str(tmp_path), "devices": 2, "wait": 1}
    two = [start(slow_work, own, log) for own in together(2, **given, heartbeat_seconds=5)]
    while not list(tmp_path.glob("evaluation/images-*.csv")) and two[1].exitcode is None:
        time.sleep(0.01)
    two[1].terminate()
    codes = end(two, log)
    assert codes[1] == -signal.SIGTERM and codes[0] in (1, -signal.SIGABRT), log.read_text()[-2000:]
