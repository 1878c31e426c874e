"""`camjax app` until it serves; tests/browser has the page itself."""

import socket

import pytest

from camjax.cli.main import main


@pytest.fixture
def started(monkeypatch):
    """Replaces the server by a list of the sockets that it was started with."""
    uvicorn = pytest.importorskip("uvicorn", reason='camjax app needs pip install "camjax[app]"')
    given = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: given.append(sockets[0].getsockname()))
    return given


def test_it_says_where_it_is_and_what_that_means(started, capsys):
    assert main(["app", "--port", "0"]) == 0
    host, port = started[0]
    printed = capsys.readouterr()
    assert host == "127.0.0.1" and f"http://127.0.0.1:{port}\n" in printed.out
    assert "on this machine only" in printed.out and printed.err == ""
    assert main(["app", "--port", "0", "--host", "0.0.0.0"]) == 0
    printed = capsys.readouterr()
    assert started[1][0] == "0.0.0.0" and f"http://localhost:{started[1][1]}\n" in printed.out
    assert "camjax: warning: --host 0.0.0.0 lets everyone" in printed.err and "without a password" in printed.err


def test_a_port_in_use(started, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["app", "--port", str(other.getsockname()[1])]) == 1
    assert "Address already in use). Give another --port, or --port 0 for a free one." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port 70000: expected 0..65535"),
        (
            ["--host", "no.such.host.invalid"],
            "--host no.such.host.invalid --port 7860: the page cannot be opened there",
        ),
        (["."], "is nothing that camjax app can show: expected a run (run.json)"),
        (["--examples", "nowhere"], "--examples nowhere is not a folder"),
        (["--examples", "."], "--examples . has no pictures"),
        (["--model", "resnet50"], "needs trained weights"),
    ],
)
def test_what_it_cannot_show(started, capsys, monkeypatch, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["app", *words]) == 1
    assert message in capsys.readouterr().err and not started
