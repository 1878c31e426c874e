"""Joining processes: what is refused in words, and what does nothing; `training/test_survival.py` has real ones."""

import sys

import jax
import pytest

from camjax.training import initialize


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
