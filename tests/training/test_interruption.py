"""Signals: remembered while a run goes on, and as they were after it."""

import os
import signal
import sys
import threading
import time

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
