"""Real processes that are killed and started again: they end with the same bits as an uninterrupted run.

Also: two processes against one with two devices, and what happens to a process when the other one dies.
"""

import contextlib
import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_run import Colors, Net, arrays, start, tiny_recipe

from camjax.training import Checkpoints, TrainState, fit
from tests.processes import together

STEPS = 20
TIMEOUT = 150


class Runs:
    """Starts runs, and ends those that a failing test leaves."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.log = directory / "log.txt"
        self._started = []

    def start(self, name: str, **options):
        process = start({"run_dir": str(self.directory / name), "steps": STEPS, **options}, self.log)
        self._started.append(process)
        return process

    def start_two(self, name: str, **options) -> list:
        """Two processes, without dropout."""
        return [self.start(name, **own) for own in together(2, dropout=0.0, **options)]

    def end(self, *processes) -> list[int]:
        """Waits for processes; their exit codes."""
        for process in processes:
            process.join(TIMEOUT)
            assert process.exitcode is not None, f"still running after {TIMEOUT} s:\n{self.log.read_text()[-3000:]}"
        return [process.exitcode for process in processes]

    def check_finished(self, *processes) -> None:
        assert self.end(*processes) == [0] * len(processes), self.log.read_text()[-3000:]

    def close(self):
        for process in self._started:
            process.kill()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with contextlib.closing(Runs(tmp_path_factory.mktemp("runs"))) as runs:
        start({}, runs.log, dict).join()  # starts the process that the others are forked from, which takes seconds
        yield runs


@pytest.fixture(scope="module")
def one_process(runs):
    """An uninterrupted run with a checkpoint after each step: its directory and its seconds."""
    began = time.monotonic()
    runs.check_finished(runs.start("one", checkpoint_every=1))
    return runs.directory / "one", time.monotonic() - began


def test_one_run_at_a_time_in_a_directory_and_none_after_a_kill(runs):
    process = runs.start("locked", wait=0.2)
    directory = runs.directory / "locked"
    while not (directory / "run.lock.json").exists():
        time.sleep(0.05)
    with pytest.raises(ValueError, match=rf"locked is in use: process {process.pid} on "):
        fit(Net(), Colors(), tiny_recipe(STEPS), run_dir=directory, progress=False)
    process.kill()
    process.join()
    fit(Net(), Colors(), tiny_recipe(STEPS), run_dir=directory, progress=False)
    assert not (directory / "run.lock.json").exists()


@pytest.fixture(scope="module")
def two_devices(runs):
    runs.check_finished(runs.start("two_devices", devices=2, dropout=0.0, checkpoint_every=5))
    return runs.directory / "two_devices"


@pytest.fixture(scope="module")
def two_processes(runs):
    runs.check_finished(*runs.start_two("two", checkpoint_every=5))
    return runs.directory / "two"


def assert_same_bits(a, b):
    a, b = arrays(a), arrays(b)
    assert a["newest"] == b["newest"] == STEPS
    assert a.keys() == b.keys() and len(a) > 10
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def metrics(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "per_second" not in name} for line in lines]


def drafts(run_dir) -> list[Path]:
    """Checkpoints that are being written, or that a killed process left unfinished."""
    return list((run_dir / "checkpoints").glob("*tmp*"))


def wait_for(condition, process, seconds=60.0):
    """Waits until a condition holds or the process has ended."""
    deadline = time.monotonic() + seconds
    while not condition() and process.exitcode is None and time.monotonic() < deadline:
        time.sleep(0.002)


def newest_step(run_dir) -> int:
    return max((int(p.name) for p in (run_dir / "checkpoints").glob("*") if p.name.isdecimal()), default=0)


@pytest.mark.parametrize("kills", [1, pytest.param(18, marks=pytest.mark.long)])
def test_kills_at_random_moments(runs, one_process, kills):
    uninterrupted, seconds = one_process
    moments = random.Random(kills)
    done, during_a_save = 0, 0
    names = (f"killed_{kills}_{i}" for i in range(3 * kills))
    run_dir = runs.directory / next(names)
    while done < kills:
        process = runs.start(run_dir.name, checkpoint_every=1)
        if done % 3 == 0:
            wait_for(lambda run_dir=run_dir: drafts(run_dir), process)
        else:
            process.join(moments.uniform(0.0, 0.7) * seconds)
        process.kill()
        (code,) = runs.end(process)
        if code == -signal.SIGKILL:
            done += 1
            during_a_save += bool(drafts(run_dir))
        else:
            assert code == 0, runs.log.read_text()[-3000:]
        if done == kills or newest_step(run_dir) == STEPS:
            runs.check_finished(runs.start(run_dir.name, checkpoint_every=1))
            assert_same_bits(run_dir, uninterrupted)
            assert metrics(run_dir) == metrics(uninterrupted)
            assert drafts(run_dir) == []
            run_dir = runs.directory / next(names)
    assert during_a_save >= kills // 4


def test_sigterm_saves_and_leaves(runs, one_process):
    uninterrupted, _ = one_process
    run_dir = runs.directory / "terminated"
    log_before = len(runs.log.read_text())
    process = runs.start("terminated", checkpoint_every=1000, wait=0.02)
    wait_for(lambda: (run_dir / "metrics.jsonl").exists() and len(metrics(run_dir)) >= 3, process)
    process.terminate()
    assert runs.end(process) == [143]
    stopped = newest_step(run_dir)
    assert 3 <= stopped < STEPS
    assert (
        f"SIGTERM: the run stopped after step {stopped} of {STEPS}, saved in {run_dir}"
        in (runs.log.read_text()[log_before:])
    )
    runs.check_finished(runs.start("terminated", checkpoint_every=1000))
    assert_same_bits(run_dir, uninterrupted)


def test_two_processes_train_as_one_with_two_devices(two_devices, two_processes):
    """To the bit: each device gets the same images, and two sums have one order."""
    assert_same_bits(two_processes, two_devices)
    assert metrics(two_processes) == metrics(two_devices)


# Most of its time it waits for a death to be noticed: after fewer seconds than users have, but in the long cases.
@pytest.mark.parametrize(
    ("victim", "seconds"),
    [
        (1, None),
        *(pytest.param(*of, marks=pytest.mark.long) for of in ((1, {"heartbeat_seconds": 4}), (0, {}), (1, {}))),
    ],
)
def test_two_processes_are_ended_together_and_go_on(runs, two_processes, victim, seconds):
    """One gets SIGTERM, and both save and leave; in long cases one is killed then, and the other soon ends."""
    name = f"two_ended_{victim}_{seconds is None or len(seconds)}"
    run_dir = runs.directory / name
    processes = runs.start_two(name, checkpoint_every=1000, wait=0.03)
    wait_for(lambda: (run_dir / "metrics.jsonl").exists() and len(metrics(run_dir)) >= 2, processes[0])
    processes[victim].terminate()
    assert runs.end(*processes) == [143, 143], runs.log.read_text()[-3000:]
    stopped = newest_step(run_dir)
    assert 2 <= stopped < STEPS - 4
    if seconds is not None:
        one_is_killed(runs, name, stopped, victim, seconds)
    runs.check_finished(*runs.start_two(name, checkpoint_every=5))
    assert_same_bits(run_dir, two_processes)


def one_is_killed(runs, name, stopped, victim, seconds):
    """After a step later than `stopped`."""
    run_dir, log_before = runs.directory / name, len(runs.log.read_text())
    processes = runs.start_two(name, checkpoint_every=2, wait=0.03, **seconds)
    killed_after = random.Random(victim).randint(stopped + 1, STEPS - 2)
    wait_for(lambda: newest_step(run_dir) >= killed_after, processes[0])
    processes[victim].kill()
    began = time.monotonic()
    codes = runs.end(*processes)
    assert time.monotonic() - began < 30
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] in (1, -signal.SIGABRT)
    log = runs.log.read_text()[log_before:]
    assert "another process has died first" in log or "another task died" in log


def test_a_run_moves_from_one_device_to_four_and_back(runs, two_devices):
    options = {"checkpoint_every": 6, "num_threads": 1, "progress": False}
    with pytest.raises(ValueError, match="the disk is gone"):
        fit(Net(0.0), Colors(breaks_after=100), tiny_recipe(STEPS), run_dir=runs.directory / "moved", **options)
    assert newest_step(runs.directory / "moved") == 12
    runs.check_finished(runs.start("moved", devices=4, dropout=0.0, checkpoint_every=10))

    moved, stayed = arrays(runs.directory / "moved"), arrays(two_devices)
    for name, value in stayed.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    with Checkpoints(runs.directory / "moved" / "checkpoints", read_only=True) as checkpoints:
        state = checkpoints.restore(TrainState.create(Net(0.0), tiny_recipe(STEPS)))
    np.testing.assert_array_equal(state.model.head.kernel[...], moved["model['head']['kernel']"])
