"""Runs: what they write, how they resume, and how they load as a model."""

import dataclasses
import functools
import json
import os
import re
import shutil
import socket
import struct
import sys

import jax
import numpy as np
import pytest
from conftest import random_network
from flax import nnx
from tensorboardX.proto import event_pb2
from tiny_run import Colors, Net, tiny_recipe

import camjax
from camjax.data.sources import SourceInfo
from camjax.data.transforms import compose, random_horizontal_flip, random_resized_crop, random_translation
from camjax.errors import InputError
from camjax.runs import read_run
from camjax.training import Checkpoints, Recipe, SoftmaxCrossEntropy, evaluate, fit, loop
from camjax.training.interruption import Interruption
from camjax.training.logs import MetricsLog, read_metrics
from camjax.training.run_lock import run_lock
from camjax.training.runs import describe_data, describe_run, start_run
from camjax.weights.fingerprint import weights_sha256

RECIPE = tiny_recipe(6, batch_size=4, seed=3)
NAMES = tuple("abc")


def leaves(model):
    state = nnx.to_pure_dict(nnx.state(model, (nnx.Param, nnx.BatchStat)))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    start = Net()
    model = fit(start, Colors(), RECIPE, run_dir=directory, **options())
    for a, b in zip(leaves(start), leaves(Net()), strict=True):  # the model given is left unchanged
        np.testing.assert_array_equal(a, b)
    return model, directory


def options(**changes):
    return {
        "eval_source": Colors(),
        "eval_every": 3,
        "checkpoint_every": 2,
        "log_every": 1,
        "progress": False,
        **changes,
    }


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def events(directory):
    """{(name, step): value} of all event files: records of length, checksum, data, checksum."""
    found = {}
    for path in sorted(directory.glob("events.out.tfevents*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run of a network of the registry: where it started, what it learned, and its directory."""
    start = random_network("small_gap", 3)
    start.class_names, start.input_size = NAMES, (16, 24)
    mean_image = np.random.default_rng(0).uniform(90, 130, (16, 16, 3)).astype(np.float32)
    start.set_input_rule(mean=(104, 117, 123), std=(60, 60, 60), channel_order="bgr", mean_image=mean_image)
    recipe = Recipe(steps=20, batch_size=10, learning_rate=0.05, warmup_steps=5)
    directory = tmp_path_factory.mktemp("small")
    return start, fit(start, Colors(), recipe, run_dir=directory, progress=False), directory


def test_it_learns_and_comes_back_by_its_directory(small):
    """With weights, class names, input rule and dtype."""
    start, model, directory = small
    assert evaluate(start, Colors(), batch_size=8)["accuracy"] < 0.5
    assert evaluate(model, Colors(), batch_size=8)["accuracy"] > 0.9

    loaded = camjax.load_model(directory)
    assert loaded.class_names == NAMES and loaded.input_size == (16, 24)
    assert loaded.created_as == {"name": "small_gap", "num_classes": 3, "pool": "gap"}
    np.testing.assert_array_equal(loaded.mean_image[...], start.mean_image[...])
    images = np.stack([Colors()[i]["image"] for i in range(4)])
    for a, b in zip(camjax.cam_fn(model, images), camjax.cam_fn(loaded, images), strict=True):
        np.testing.assert_array_equal(a, b)
    assert camjax.load_model(str(directory), dtype="bfloat16").dtype == "bfloat16"


def test_another_run_of_one_kind_traces_nothing():
    """But for a loss of one's own, which may have changed and be the same function."""
    traced = []

    class Counted(Net):
        def backbone(self, x):
            traced.append(x.shape)
            return super().backbone(x)

    def own(logits, labels):
        return SoftmaxCrossEntropy()(logits, labels)

    counts = []
    for run in (
        *[lambda: fit(Counted(), Colors(), tiny_recipe(2), progress=False)] * 2,
        *[lambda loss=loss: evaluate(Counted(), Colors(), batch_size=8, loss=loss) for loss in (None, None, own, own)],
    ):
        run()
        counts.append(len(traced))
    assert counts[0] == counts[1] < counts[2] == counts[3] < counts[4] < counts[5]


def test_metrics_as_lines_and_events(uninterrupted):
    _, directory = uninterrupted
    written = lines(directory)
    assert [line["step"] for line in written if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in written if "eval/loss" in line] == [3, 6]
    assert [line["train/learning_rate"] for line in written if "train/loss" in line] == pytest.approx(
        [float(RECIPE.schedule()(step)) for step in range(6)]
    )
    scalars = {(name, line["step"]): value for line in written for name, value in line.items() if name != "step"}
    assert events(directory) == pytest.approx(scalars)


def test_reading_leaves_a_run_as_it_is(uninterrupted):
    _, directory = uninterrupted
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        checkpoints.restore_model(Net())
        with pytest.raises(ValueError, match="opened with read_only"):
            checkpoints.save(None)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


def test_a_run_of_a_model_that_has_no_name(uninterrupted):
    model, directory = uninterrupted
    with pytest.raises(ValueError, match="create_model did not make"):
        camjax.load_model(directory)
    with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore_model(Net())
    for a, b in zip(leaves(model), leaves(restored), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_broke_off_ends_as_one_that_did_not(uninterrupted, tmp_path):
    model, directory = uninterrupted
    with pytest.raises(ValueError, match="the disk is gone"):
        # Reads ahead take some, so that it breaks before the end and after the first checkpoint.
        fit(Net(), Colors(breaks_after=18), RECIPE, run_dir=tmp_path, num_threads=1, **options())
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() and checkpoints.steps()[-1] < 6
    resumed = fit(Net(), Colors(), RECIPE, run_dir=tmp_path, num_threads=3, **options())
    for a, b in zip(leaves(model), leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    speed = "train/images_per_second"
    assert [line | {speed: 0} for line in lines(tmp_path)] == [line | {speed: 0} for line in lines(directory)]


def test_a_finished_run_stays_as_it_is(uninterrupted):
    model, directory = uninterrupted
    before = lines(directory)
    again = fit(Net(), Colors(), RECIPE, run_dir=directory, **options())
    for a, b in zip(leaves(model), leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert lines(directory) == before


def test_a_run_becomes_longer(tmp_path):
    """Its warm-up is the same share of its steps."""
    longer = tiny_recipe(9, warmup_steps=4)
    fit(Net(), Colors(), tiny_recipe(4), run_dir=tmp_path, progress=False)
    with pytest.warns(UserWarning, match=r"lengthened from 4 to 9 steps.* schedule of 9 steps"):
        fit(Net(), Colors(), longer, run_dir=tmp_path, progress=False)
    assert [line["step"] for line in lines(tmp_path)] == [4, 9]
    rates = [line["train/learning_rate"] for line in lines(tmp_path)]
    assert rates == pytest.approx([float(tiny_recipe(4).schedule()(3)), float(longer.schedule()(8))])
    assert read_run(tmp_path)["lengthened"] == [[4, 9]]
    assert read_run(tmp_path)["recipe"] == dataclasses.asdict(longer)
    card = json.loads((tmp_path / "run_card.json").read_text())
    assert card["lengthened"] == [[4, 9]] and card["wall_time"]["to_step"] == 9
    with pytest.raises(ValueError, match=r"recipe\.steps: 9 there, 8 now"):
        fit(Net(), Colors(), tiny_recipe(8), run_dir=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"recipe\.learning_rate: 0\.05 there, 0\.1 now"):
        fit(Net(), Colors(), tiny_recipe(12, learning_rate=0.1), run_dir=tmp_path, progress=False)


def test_the_evaluation_that_a_stopped_run_missed_is_made_up_for(uninterrupted, tmp_path, monkeypatch):
    """SIGTERM came while step 3 was evaluated: its checkpoint has no metrics, and may be the best."""
    _, directory = uninterrupted
    monkeypatch.setattr(loop, "evaluate", lambda *args, **options: None)  # as when it is stopped
    monkeypatch.setattr(Interruption, "leave", lambda self, message: sys.exit(143))
    with pytest.raises(SystemExit):
        fit(Net(), Colors(), RECIPE, run_dir=tmp_path, **options())
    monkeypatch.undo()
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 3] and not checkpoints.has_metrics(3)
    fit(Net(), Colors(), RECIPE, run_dir=tmp_path, **options())
    evaluations = [[line for line in lines(where) if "eval/loss" in line] for where in (tmp_path, directory)]
    assert evaluations[0] == evaluations[1]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(uninterrupted, tmp_path):
    model, directory = uninterrupted
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run_card.json").unlink()
    for path in (tmp_path / "checkpoints" / "6").rglob("*"):
        if path.is_file() and path.stat().st_size > 300:
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning) as caught:
        resumed = fit(Net(), Colors(), RECIPE, run_dir=tmp_path, **options())
    said = [str(warning.message) for warning in caught]
    assert any("checkpoints/6" in text and "checkpoint of step 4 is used" in text for text in said), said
    assert any(f"goes on from step 4. Moved aside: {tmp_path}/checkpoints.damaged-6" in text for text in said), said
    for a, b in zip(leaves(model), leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [line["step"] for line in lines(tmp_path)] == [line["step"] for line in lines(directory)]


def test_the_home_directory_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(Net(), Colors(), tiny_recipe(2), run_dir="~/run", progress=False)
    assert (tmp_path / "run" / "run_card.json").is_file()
    assert read_run("~/run")["recipe"]["steps"] == 2 and len(read_metrics("~/run")) == 1
    with Checkpoints("~/run/checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [2]


def test_a_directory_in_use_is_said(tmp_path):
    with run_lock(tmp_path):
        words = rf"in use: process {os.getpid()} on {socket.gethostname()}, since 2\d{{3}}-.*another run_dir"
        with pytest.raises(InputError, match=words):
            fit(Net(), Colors(), tiny_recipe(2), run_dir=tmp_path, progress=False)
    fit(Net(), Colors(), tiny_recipe(2), run_dir=tmp_path, progress=False)


def test_a_line_for_each_report_where_there_is_no_terminal(capsys):
    fit(Net(), Colors(), tiny_recipe(4), log_every=2)
    printed = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in printed] == ["step 2/4", "step 4/4"]
    assert re.fullmatch(r"step 2/4  loss \d+\.\d{3}  accuracy \d\.\d{3}  \d+ images/s", printed[0])


def test_events_are_in_one_file_however_often_the_run_starts(uninterrupted, tmp_path):
    _, directory = uninterrupted
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("events*")
    path.write_bytes(path.read_bytes()[:-5])  # killed while it wrote
    log = MetricsLog(tmp_path, 6)
    log.write(6, "eval", {"loss": 7.0})  # there already
    log.close()
    assert lines(tmp_path) == lines(directory)
    assert len(list(tmp_path.glob("events*"))) == 1
    expected = events(directory)
    found = events(tmp_path)
    assert len(found) == len(expected) - 1 and found.items() <= expected.items()
    log = MetricsLog(tmp_path, 3)
    log.write(4, "train", {"loss": 9.0})
    log.close()
    kept = {key: value for key, value in expected.items() if key[1] <= 3}
    assert events(tmp_path) == {**kept, ("train/loss", 4): 9.0}


def test_half_a_line_is_not_a_metric(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": NaN}\n{"step": 2, "tra')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1]
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": "2"}\n{"step": 3}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2 .*step"):
        read_metrics(tmp_path)


def test_what_a_run_is(uninterrupted):
    _, directory = uninterrupted
    run = read_run(directory)
    assert run["data"] == run["evaluation"] == {"name": None, "split": None, "examples": 40}
    assert (run["augmentation"], run["input_size"]) == (None, [8, 8])
    assert run["starting_weights"]["sha256"] == weights_sha256(Net())
    values = np.concatenate([leaf.ravel() for leaf in leaves(Net())]).astype(np.float64)
    assert run["starting_weights"]["sum"] == pytest.approx(values.sum(), abs=1e-9)
    assert run["starting_weights"]["norm"] == pytest.approx(np.linalg.norm(values), rel=1e-12)


class Named(Colors):
    """Colors as a data set with a name."""

    info = SourceInfo("colors", "train[:40]", NAMES, 40, ("image", "label"))


def with_changed_head(change):
    model = Net()
    model.head.kernel[...] = change(model.head.kernel[...])
    return model


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"model": with_changed_head(lambda kernel: 1.01 * kernel)},
            r"starting_weights\.sha256: \w{64} there, \w{64} now",
        ),
        ({"source": Named()}, r"data\.name: None there, colors now\n  data\.split: None there, train\[:40\] now"),
        ({"augment": random_horizontal_flip}, "augmentation: None there, random_horizontal_flip now"),
        ({"eval_source": None}, "evaluation: .*'examples': 40.* there, None now"),
        (
            {"recipe": tiny_recipe(6, batch_size=4, seed=3, learning_rate=0.1)},
            r"recipe\.learning_rate: 0\.05 there, 0\.1 now",
        ),
    ],
)
def test_a_directory_of_another_run(uninterrupted, changes, said):
    _, directory = uninterrupted
    call = {"model": Net(), "source": Colors(), "recipe": RECIPE, "run_dir": directory, **options(), **changes}
    with pytest.raises(ValueError, match=rf"holds a run that differs from this one.*\n  {said}$"):
        fit(**call)


def test_weights_that_another_processor_draws_are_the_same(uninterrupted):
    """Their last bits differ."""
    _, directory = uninterrupted
    model = with_changed_head(lambda kernel: np.nextafter(kernel, 1))
    assert weights_sha256(model) != weights_sha256(Net())
    start_run(directory, describe_run(model, RECIPE) | describe_data(Colors(), eval_source=Colors()))


def test_a_run_of_an_older_version_is_taken_up(uninterrupted, tmp_path):
    _, directory = uninterrupted
    later = {"input_size", "starting_weights", "data", "augmentation", "evaluation"}
    older = {key: value for key, value in read_run(directory).items() if key not in later}
    (tmp_path / "run.json").write_text(json.dumps(older))
    start_run(tmp_path, describe_run(Net(), RECIPE) | describe_data(Named()))
    with pytest.raises(ValueError, match=r"  dtype: float32 there, bfloat16 now$"):
        start_run(tmp_path, describe_run(Net(), RECIPE) | {"dtype": "bfloat16"})


def test_an_augmentation_is_said_without_addresses():
    def said(augment):
        return describe_data(Colors(), augment=augment)["augmentation"]

    crop = random_resized_crop(32, scale=(0.5, 1.0))
    assert said(compose(crop, random_horizontal_flip)) == f"compose({crop!r}, random_horizontal_flip)"
    shift = functools.partial(random_translation, max_shift=3)
    assert said(shift) == "functools.partial(random_translation, max_shift=3)"
    assert said(Colors()).endswith(".Colors object>")


class Labeled(Colors):
    """`Colors` with other labels."""

    def __init__(self, labels):
        super().__init__()
        self.labels = labels

    def __getitem__(self, index):
        return {**super().__getitem__(index), "label": self.labels[index % len(self.labels)]}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("label", "facts"),
    [
        (-1, ["the label -1", "3 classes", "0..2"]),
        (3, ["the label 3", "3 classes", "0..2"]),
        (0.9, ["0.9", "whole number"]),
        (np.float32(1), ["whole number"]),
        (2**40, ["1099511627776", "whole number"]),
        (np.array([0, 1, 0]), ["array([0, 1, 0])", "one class"]),
        ("cat", ["'cat'", "whole number"]),
    ],
)
def test_a_label_that_the_model_has_no_class_for(label, facts, smoothing):
    source = Labeled([0, 1, label, 2])
    with pytest.raises(InputError) as caught:
        fit(Net(), source, tiny_recipe(9, label_smoothing=smoothing), progress=False)
    assert all(fact in str(caught.value) for fact in facts), caught.value
    with pytest.raises(InputError) as caught:
        evaluate(Net(), source, batch_size=8)
    assert all(fact in str(caught.value) for fact in ["example 2", *facts]), caught.value


class WithNames(Labeled):
    """`Colors` with names of its classes, of which some may be missing."""

    def __init__(self, names, labels=(0, 1, 2)):
        super().__init__(labels)
        self.info = SourceInfo("colors", "all", names, len(self), ("image", "label"))


def test_the_trained_model_has_the_class_names_of_its_data(tmp_path):
    start = Net()
    model = fit(start, WithNames(NAMES), tiny_recipe(2), run_dir=tmp_path, progress=False)
    assert model.class_names == NAMES and start.class_names is None
    assert read_run(tmp_path)["class_names"] == list(NAMES)
    again = fit(Net(), WithNames(NAMES), tiny_recipe(2), run_dir=tmp_path, progress=False)
    assert again.class_names == NAMES


def test_data_without_a_class_is_measured_by_names(tmp_path):
    """Of the evaluation data's classes "c" and "b", in the model's order 2 and 1, none is the class at its position."""
    model = Net()
    model.class_names = NAMES
    whole = evaluate(model, Labeled([1, 2]), batch_size=8)
    part = WithNames(("c", "b"), [1, 0])
    assert evaluate(model, part, batch_size=8) == whole
    logged = fit(Net(), WithNames(NAMES), tiny_recipe(2), run_dir=tmp_path, eval_source=part, progress=False)
    assert lines(tmp_path)[-1]["eval/accuracy"] == evaluate(logged, Labeled([1, 2]), batch_size=8)["accuracy"]


def test_the_same_classes_in_another_order_train_the_same_model():
    expected = leaves(fit(Net(), WithNames(NAMES), tiny_recipe(2), progress=False))
    model = Net()
    model.class_names = NAMES
    found = leaves(fit(model, WithNames(("c", "a", "b"), [1, 2, 0]), tiny_recipe(2), progress=False))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (("a", "b"), None, r"has 2 classes, and the model 3.* num_classes=2"),
        (NAMES, ("a", "x"), "classes that the model does not have: 'x'"),
        (None, ("a", "b"), "has 2 classes, and the model 3"),
    ],
)
def test_classes_that_differ(train, test, message):
    source = Colors() if train is None else WithNames(train)
    with pytest.raises(InputError, match=message):
        fit(Net(), source, tiny_recipe(9), eval_source=None if test is None else WithNames(test), progress=False)


def test_directories_that_are_no_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        camjax.load_model(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99; this camjax reads 1"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        (lambda run: '{"format": 1', ["EOF"]),
        (lambda run: "[" * 100_000, ["recursion"]),
        (
            lambda run: run | {"model": {"name": 3, "num_classes": "x", "pool": "max"}},
            ["model.name is 3", "model.pool"],
        ),
        (lambda run: run | {"input": None}, ["input is None"]),
        (lambda run: {key: value for key, value in run.items() if key != "dtype"}, ["dtype is missing"]),
        (lambda run: run | {"dtype": "float99"}, ["float99"]),
        (lambda run: run | {"input_size": [64]}, ["input_size=[64]", "height and width"]),
        (lambda run: run | {"class_names": ["a"]}, ["1 class names for a head of 3"]),
        (lambda run: run | {"model": run["model"] | {"num_classes": -1}}, ["num_classes"]),
        (lambda run: run | {"model": run["model"] | {"name": "no_such"}}, ["no_such"]),
        (
            lambda run: run | {"model": run["model"] | {"num_classes": 10**9}, "class_names": None},
            ["head.kernel is (", "1000000000"],
        ),
        (lambda run: run | {"input": run["input"] | {"mean_image": [10**5, 10**5, 3]}}, ["mean_image", "100000"]),
    ],
)
def test_a_run_that_is_damaged_or_absurd_names_what_is_wrong(small, tmp_path, change, facts):
    *_, directory = small
    run = tmp_path / "run"
    run.mkdir()
    (run / "checkpoints").symlink_to(directory / "checkpoints")
    changed = change(json.loads((directory / "run.json").read_text()))
    (run / "run.json").write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(InputError) as caught:
        camjax.load_model(run)
    assert str(run) in str(caught.value) and all(fact in str(caught.value) for fact in facts), caught.value


def test_loading_a_run_imports_no_module_without_trust(small, tmp_path, monkeypatch):
    run, marker = tmp_path / "run", tmp_path / "imported"
    shutil.copytree(small[-1], run)
    (tmp_path / "evil_nets.py").write_text(
        f"import camjax, pathlib\npathlib.Path({str(marker)!r}).touch()\n"
        "from camjax.models.small_gap import SmallGap\ncamjax.register_model('evil', SmallGap, num_classes=3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    changed = json.loads((run / "run.json").read_text())
    changed["model"]["name"] = "evil_nets:evil"
    (run / "run.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"imports the module evil_nets, which runs its code.*--trust or trust=True"):
        camjax.load_model(run)
    assert not marker.exists()
    assert camjax.load_model(run, trust=True).head.num_classes == 3 and marker.exists()
    assert camjax.load_model(run).head.num_classes == 3  # the module is imported now


def test_a_checkpoint_of_another_model(uninterrupted):
    _, directory = uninterrupted
    with (
        Checkpoints(directory / "checkpoints", read_only=True) as checkpoints,
        pytest.raises(ValueError, match="does not fit"),
    ):
        checkpoints.restore_model(camjax.create_model("small_gap", num_classes=6))


def test_no_checkpoint_yet(uninterrupted, tmp_path):
    _, directory = uninterrupted
    run = json.loads((directory / "run.json").read_text())
    run["model"] = {"name": "small_gap", "num_classes": 5, "pool": "gap"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(FileNotFoundError, match="there is none"):
        camjax.load_model(tmp_path)
    with (
        Checkpoints(directory / "checkpoints", read_only=True) as checkpoints,
        pytest.raises(FileNotFoundError, match=r"expected the checkpoint of step 5; there are \[.*6\]"),
    ):
        checkpoints.restore_model(Net(), step=5)
