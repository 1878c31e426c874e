"""Functions in processes of their own, for tests that join or kill them: forked from one that has imported all."""

import atexit
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import matplotlib.figure  # noqa: F401  once, before the fork
import pytest

import camjax.annotating
import camjax.evaluation
import camjax.features
import camjax.training.event_file  # noqa: F401  tensorboardX imports PyTorch, where there is one, for seconds
from camjax import processes

TIMEOUT = 300


def start(function: Callable[[dict], object], options: dict, log) -> multiprocessing.Process:
    """Starts a function of options in a process of its own. Its output is appended to the file `log`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.processes"])
    process = context.Process(target=_child, args=(function, options, str(log), dict(os.environ)))
    with pytest.MonkeyPatch.context() as patch:
        # Where the process that the others are forked from finds this module.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        process.start()
    return process


def together(count: int, **options) -> list[dict]:
    """The options of each of some processes that `join` joins."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    return [{**options, "joined": (coordinator, count, index)} for index in range(count)]


def join(options: dict) -> None:
    """Joins the processes of `together`, each with so many "devices", that notice a death after "heartbeat_seconds"."""
    jax.config.update("jax_num_cpu_devices", options.get("devices", 1))
    processes.HEARTBEAT_SECONDS = options.get("heartbeat_seconds", processes.HEARTBEAT_SECONDS)
    processes.initialize(*options.get("joined", ()), preemption=options.get("preemption", True))


def end(started: Sequence[multiprocessing.Process], log) -> list[int]:
    """Waits for processes; their exit codes."""
    try:
        for process in started:
            process.join(TIMEOUT)
            assert process.exitcode is not None, f"still running after {TIMEOUT} s:\n{Path(log).read_text()[-3000:]}"
    finally:
        for process in started:
            process.kill()
    return [process.exitcode for process in started]


def _child(function: Callable[[dict], object], options: dict, log: str, environment: dict[str, str]) -> None:
    """Runs a function as the program of this process: multiprocessing's children skip the interpreter's last steps.

    Its environment would be that of the first process that was started, which others are forked from.
    """
    os.environ |= environment
    output = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 0
    try:
        function(options)
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)
