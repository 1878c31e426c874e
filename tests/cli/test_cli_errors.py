"""How commands and experiments end: one line for what the user can correct, a traceback for bugs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest

import camjax
from camjax.cli.errors import run_command
from camjax.data.decoding import decode_image
from camjax.data.rows import with_position
from camjax.errors import InputError
from camjax.training import Recipe, TrainingError


def diverge():
    raise TrainingError("the loss is nan")


def refuse_an_input():
    raise InputError("--steps 0: expected at least 1.")


def import_what_is_missing():
    import camjax.nothing_of_the_kind  # noqa: F401


@pytest.mark.parametrize(
    "command, message",
    [
        (lambda: camjax.create_model("resnet51"), "There is no model named 'resnet51'"),
        (lambda: Recipe(steps=0, batch_size=1, learning_rate=0.1), "steps=0"),
        (lambda: decode_image(b"no image", apply_exif=False), "image"),
        (lambda: Path("/nowhere/at/all").read_text(), "[Errno 2] No such file or directory: '/nowhere/at/all'"),
        (refuse_an_input, "--steps 0: expected at least 1."),
        (import_what_is_missing, "nothing_of_the_kind"),
        (diverge, "the loss is nan"),
    ],
)
def test_what_the_user_can_correct_is_one_line(capsys, command, message):
    assert run_command("program", command) == 1
    output = capsys.readouterr()
    assert output.err.startswith("program: ") and message in output.err and output.out == ""
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    "bug, kind",
    [
        (lambda: np.ones(3) + np.ones(4), ValueError),
        (lambda: jnp.concatenate([]), ValueError),
        (lambda: with_position(0, "many"), ValueError),  # from `int`, called by camjax
        (lambda: {}["key"], KeyError),
        (lambda: 1 / 0, ZeroDivisionError),
    ],
)
def test_bugs_come_back_with_their_traceback(capsys, bug, kind):
    with pytest.raises(kind) as caught:
        run_command("program", bug)
    assert len(caught.traceback) > 2
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_one_line_unless_other_processes_have_to_end(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert run_command("camjax", interrupt) == 130
    assert capsys.readouterr().err == "camjax: interrupted.\n"
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        run_command("camjax", interrupt)


LONG = """
import sys
import jax, jax.numpy as jnp
from camjax.cli.errors import run_command

def loop(x):
    return jax.lax.fori_loop(0, 2**31 - 1, lambda i, x: jnp.sin(x), x)  # half a minute

def compile(x):
    for _ in range(100):
        x = jnp.sin(x @ x) + jax.scipy.linalg.expm(x)  # about ten seconds, if optimized
    return x

def long():
    lowered = jax.jit(globals()[sys.argv[1]]).lower(jnp.ones((9, 9) if sys.argv[1] == "compile" else ()))
    compiled = lowered.compile() if sys.argv[1] == "loop" else None
    print("begins", flush=True)
    (compiled or lowered.compile())(jnp.ones(())).block_until_ready()

sys.exit(run_command("program", long))
"""


AT_ITS_END = [
    "SIGINT: program ends after the computation that runs. Ctrl-C again ends it at once.\n",
    "SIGINT: ended at once.\n",
]
# JAX 0.10 leaves a compilation that is interrupted; 0.12 waits for it, as for a computation.
COMPILING = ["program: interrupted.\n"] if jaxlib.version.__version_info__ < (0, 11) else AT_ITS_END


@pytest.mark.parametrize(("what", "words"), [("compile", COMPILING), ("loop", AT_ITS_END)])
def test_ctrl_c_in_a_long_computation(what, words):
    command = [sys.executable, "-c", LONG, what]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    others = ("XLA_FLAGS", "OPTIM", "COMPILATION_CACHE")
    optimized = {name: value for name, value in os.environ.items() if not any(part in name for part in others)}
    with subprocess.Popen(command, env=optimized, **pipes) as process:
        try:
            assert process.stdout.readline() == "begins\n"
            time.sleep(0.3)  # it says so just before
            for line in words:
                process.send_signal(signal.SIGINT)
                assert process.stderr.readline() == line
            assert process.wait(timeout=10) == 130
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_success_and_exits(capsys):
    assert run_command("program", lambda: "anything") == 0
    with pytest.raises(SystemExit) as exit_code:
        run_command("program", lambda: sys.exit(143))
    assert exit_code.value.code == 143


def test_with_several_processes_an_error_is_raised_again_to_end_all(monkeypatch, capsys):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="no model named") as caught:
        run_command("program", lambda: camjax.create_model("resnet51"))
    assert [entry.name for entry in caught.traceback][1:] == ["run_command"]
    assert capsys.readouterr().err == ""
