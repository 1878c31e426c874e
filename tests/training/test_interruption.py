"""Signals: remembered while a run goes on, and as they were after it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tiny_run import Colors, Net, tiny_recipe

from camjax.training import Checkpoints, fit
from camjax.training.interruption import EXIT_CODE, Interruption


def test_sigterm_is_remembered(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert not interruption.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested() and interruption.requested()
        with pytest.raises(SystemExit) as left:
            interruption.leave("saved.")
    assert left.value.code == EXIT_CODE == 143
    assert capsys.readouterr().err == "SIGTERM: saved.\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_interrupt_is_at_once():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interruption.leave("saved.")


def test_what_a_long_step_and_a_script_show(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: shown.append(error))
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        assert capsys.readouterr().err.startswith("SIGINT: the run stops after the current step")
        with pytest.raises(KeyboardInterrupt) as left:
            interruption.leave("saved.")
    assert capsys.readouterr().err == "SIGINT: saved.\n"
    other = KeyboardInterrupt()
    for error in (left.value, other):
        sys.excepthook(KeyboardInterrupt, error, None)
    assert shown == [other]


def test_a_wait_for_data_ends_with_a_signal():
    with Interruption() as interruption:
        assert interruption.unless_requested(next, iter("a")) == "a"
        with pytest.raises(StopIteration):
            interruption.unless_requested(next, iter(""))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert interruption.unless_requested(threading.Event().wait, 60) is None
        assert interruption.requested()
        assert interruption.unless_requested(next, iter("a")) is None


def test_another_thread_catches_nothing():
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def work():
        with Interruption():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


WITH_WORKERS = """
import sys
from tiny_run import Colors, Net, tiny_recipe
from camjax.cli.errors import run_command
from camjax.training import fit

def main():
    fit(Net(), Colors(0.01), tiny_recipe(9999), run_dir=sys.argv[1], log_every=1, num_workers=2, progress=False)

if __name__ == "__main__":
    sys.exit(run_command("program", main))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    "to_workers, to_run, code, words",
    [
        (signal.SIGKILL, None, 1, "program: An input worker"),
        (signal.SIGSTOP, signal.SIGTERM, 143, "SIGTERM: the run stopped after step"),
        (signal.SIGSTOP, signal.SIGINT, 130, "SIGINT: the run stopped after step"),
    ],
)
def test_a_run_whose_workers_die_or_hang(tmp_path, to_workers, to_run, code, words):
    script, run_dir = tmp_path / "script.py", tmp_path / "run"
    script.write_text(WITH_WORKERS)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, script, run_dir], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True
    )
    try:
        metrics = run_dir / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") > 2):
            assert process.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        for pid in workers:
            os.kill(int(pid), to_workers)
        time.sleep(1)
        if to_run is not None:
            process.send_signal(to_run)
        _, said = process.communicate(timeout=30)  # until the workers have closed the pipe, too
    finally:
        process.kill()
    assert process.returncode == code
    assert words in said and "Traceback" not in said and "leaked" not in said


class Interrupting(Colors):
    """Presses Ctrl-C at a read."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def __getitem__(self, index):
        if self.reads == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


def test_an_interrupt_in_the_last_evaluation_is_made_up_for(tmp_path, capsys):
    options = {"run_dir": tmp_path, "eval_every": 2, "log_every": 1, "num_threads": 1, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        fit(Net(), Colors(), tiny_recipe(2), eval_source=Interrupting(20), **options)
    assert "SIGINT: the run stopped after step 2 of 2, saved" in capsys.readouterr().err
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [2]
    assert "eval/loss" not in (tmp_path / "metrics.jsonl").read_text()
    assert not (tmp_path / "run_card.json").exists()
    fit(Net(), Colors(), tiny_recipe(2), eval_source=Colors(), **options)
    assert "eval/loss" in (tmp_path / "metrics.jsonl").read_text()
    assert (tmp_path / "run_card.json").exists()


def test_without_a_directory_nothing_is_saved(capsys):
    with pytest.raises(KeyboardInterrupt):
        fit(Net(), Interrupting(9), tiny_recipe(50), num_threads=1, progress=False)
    assert "nothing was saved, because it had no run_dir" in capsys.readouterr().err
