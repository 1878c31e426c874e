"""Files that are written aside and then renamed."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from camjax.files import whole_file, write_whole


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["größer\nzwei\n", b"\x00\r\n\xff"])
def test_content_and_nothing_left_beside_it(tmp_path, content):
    path = tmp_path / "a.json"
    for before in (None, "longer than what comes after it, by far"):
        if before:
            path.write_text(before)
        write_whole(str(path), content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert names(tmp_path) == ["a.json"]


def test_nobody_sees_half_of_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with whole_file(path) as draft:
        draft.write_text("ne")
        assert path.read_text() == "old" and draft.parent == tmp_path
        draft.write_text("new")
    assert path.read_text() == "new"


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="full disk"), whole_file(path) as draft:
        draft.write_text("half")
        raise RuntimeError("full disk")
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_mode_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a.txt", "text")
        with whole_file(tmp_path / "a.safetensors") as draft:
            save_file({"x": np.arange(3)}, draft)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "a.txt": mode,
        "a.safetensors": mode,  # the library gives its files the mode 0600
    }
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")["x"], np.arange(3))


KILLED = """
import os, signal, sys
from pathlib import Path
from camjax.files import whole_file
with whole_file(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_drafts_of_killed_processes_go_and_others_stay(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == -signal.SIGKILL
    (draft,) = tmp_path.glob("*.draft")
    machine, _, process = draft.name.split(".")[2].partition("-")
    elsewhere = f"a.txt.{int(machine, 16) ^ 1:08x}-{process}.draft"
    others = {f"a.txt.{machine}-1.draft", elsewhere, f"b.{process}.draft", "c.draft"}
    for name in others:
        (tmp_path / name).touch()
    write_whole(tmp_path / "b.txt", "new")
    assert {*names(tmp_path)} == {"a.txt", "b.txt", *others} and path.read_text() == "old"


def test_a_missing_folder_is_made_where_asked(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with pytest.raises(FileNotFoundError):
        write_whole(path, "text")
    assert names(tmp_path) == []
    write_whole(path, "text", make_parent=True)
    assert path.read_text() == "text"


def test_it_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    order, replace, fsync = [], type(tmp_path).replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(type(tmp_path), "replace", lambda *args: (order.append("rename"), replace(*args))[1])
    write_whole(tmp_path / "a.txt", "text")
    assert order == ["fsync", "rename"]
