"""Annotations in real processes that are killed, shared and started again: the same bits as from one call."""

import random
import signal
import time

import pytest
from colored import Colors, random_folder, run, start, tree

from camjax.annotating import Options, annotate_folder
from camjax.errors import InputError
from tests.processes import together

NUMBER = 61  # with two unreadable ones, 8 parts
TIMEOUT = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_folder(tmp_path_factory.mktemp("pictures"), NUMBER)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The files of one uninterrupted call."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run({"folder": folder, "out": out})
    files = tree(out)
    assert {"coco.json", "boxes.csv", "manifest.json", "maps/maps-000007.npz"} < files.keys() and len(files) == 72
    return files


def end(process) -> int:
    process.join(TIMEOUT)
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_kills_at_random_moments(folder, whole, tmp_path, kills):
    moments, log, done, rounds, between = random.Random(kills), tmp_path / "log.txt", 0, 0, set()
    while done < kills:
        out = tmp_path / f"out{rounds}"
        rounds += 1
        while done < kills:
            process = start({"folder": folder, "out": out, "wait": 0.02}, log)
            awaited = out / moments.choice(["parts", *(f"parts/part-{part:06}.json" for part in range(8)), "coco.json"])
            while process.exitcode is None and not awaited.exists():
                time.sleep(0.002)
            process.join(moments.uniform(0, 0.05))
            process.kill()
            if end(process) != -signal.SIGKILL:
                assert process.exitcode == 0, log.read_text()
                break
            done += 1
            between.add(len(list(out.glob("parts/part-*.json"))))
        assert end(start({"folder": folder, "out": out}, log)) == 0, log.read_text()
        assert tree(out) == whole
    assert max(between) > 0, "always before the first part"


def test_a_kill_while_files_are_written(folder, whole, tmp_path, monkeypatch):
    """Drafts and halves of files that a killed process leaves are gone in the end."""
    from camjax.annotating import formats

    def broken(path, finished):
        path.with_name(f"{path.name}.1.draft").write_text("{")
        (path.parent / "maps/maps-000001.npz.1.draft").write_bytes(b"PK")
        (path.parent / "voc").mkdir(exist_ok=True)
        (path.parent / "voc/000.xml").write_text("<annota")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(formats.FORMATS, "coco.json", broken)
        with pytest.raises(KeyboardInterrupt):
            run({"folder": folder, "out": tmp_path / "out"})
    assert not (tmp_path / "out/manifest.json").exists()
    run({"folder": folder, "out": tmp_path / "out"})
    assert tree(tmp_path / "out") == whole


def test_shards_give_the_files_of_one(folder, whole, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="8 of 8 parts are missing: no shard has begun\\. Run"):
        run({"folder": folder, "out": out, "merge": True})
    assert not out.exists()
    run({"folder": folder, "out": out, "shard": (1, 3)})
    with pytest.raises(InputError, match=r"5 of 8 parts are missing: those of --shard 0/3, 2/3\. Run"):
        run({"folder": folder, "out": out, "merge": True})
    run({"folder": folder, "out": out, "shard": (2, 3)})
    run({"folder": folder, "out": out, "shard": (0, 3)})
    assert not (out / "coco.json").exists()
    run({"folder": folder, "out": out, "merge": True})
    assert tree(out) == whole
    for again in ({}, {"merge": True}, {"shard": (0, 3)}):  # all is there, and stays
        run({"folder": folder, "out": out, **again})
        assert tree(out) == whole


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.long)])
def test_processes_of_two_devices_give_the_files_of_one(folder, whole, tmp_path, count):
    given = together(count, folder=folder, out=tmp_path / "out", wait=0.02, devices=2)
    processes = [start(options, tmp_path / "log.txt") for options in given]
    assert [end(process) for process in processes] == [0] * count, (tmp_path / "log.txt").read_text()
    assert tree(tmp_path / "out") == whole


def test_one_process_at_a_time(folder, whole, tmp_path):
    out = tmp_path / "out"
    process = start({"folder": folder, "out": out, "wait": 0.3}, tmp_path / "log.txt")
    while not (out / "parts/all.started").exists():
        time.sleep(0.01)
    for other in ({}, {"shard": (0, 2)}):
        with pytest.raises(InputError, match=rf"parts is in use: process {process.pid} on .* annotates there"):
            run({"folder": folder, "out": out, **other})
    process.kill()
    process.join()
    shard = start({"folder": folder, "out": out, "wait": 0.3, "shard": (0, 2)}, tmp_path / "log.txt")
    while not (out / "parts/shard-0-of-2.started").exists():
        time.sleep(0.01)
    run({"folder": folder, "out": out, "shard": (1, 2)})  # beside the first
    for other in ({}, {"shard": (0, 2)}, {"shard": (1, 3)}):
        with pytest.raises(InputError, match=f"parts is in use: process {shard.pid} on "):
            run({"folder": folder, "out": out, **other})
    shard.kill()
    shard.join()
    run({"folder": folder, "out": out})
    assert tree(out) == whole


@pytest.mark.parametrize("complete", [True, False])
def test_another_annotation_in_the_same_folder(folder, tmp_path, complete):
    pictures = random_folder(tmp_path / "pictures", 3)
    out, model = tmp_path / "out", Colors()
    annotate_folder(model, pictures, out, Options(), shard=None if complete else (0, 1))
    before = tree(out)
    other = Colors()
    other.head.bias[...] += 1
    for network, options, message in (
        (model, Options(thresholds=(0.3,)), r"out holds another annotation: thresholds was \[0.2\], is \[0.3\]\. Give"),
        (model, Options(classes=(1,), maps=True), r"classes was \[\], is \[1\]; maps was False, is True"),
        (other, Options(), "weights_sha256 was '[0-9a-f]{64}', is '"),
    ):
        with pytest.raises(InputError, match=message):
            annotate_folder(network, pictures, out, options)
    (pictures / "new.png").write_bytes(b"")
    with pytest.raises(InputError, match="pictures was 5, is 6; list_sha256 was "):
        annotate_folder(model, pictures, out, Options())
    (pictures / "new.png").unlink()
    assert tree(out) == before
    annotate_folder(model, pictures, out, Options())
    assert (out / "manifest.json").exists() and not (out / "parts").exists()


def test_damaged_state_is_an_error(folder, tmp_path):
    out = tmp_path / "out"
    run({"folder": folder, "out": out, "shard": (0, 2)})
    run({"folder": folder, "out": out, "shard": (1, 2)})
    (out / "parts/part-000003.json").write_text("[]")
    with pytest.raises(InputError, match=r"part-000003.json is damaged: it has 0 pictures. Delete .*parts, and start"):
        run({"folder": folder, "out": out, "merge": True})
    assert not (out / "manifest.json").exists()


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    from benchmarks.annotate import most_memory

    assert most_memory(tmp_path, 10_000) <= 1.05 * most_memory(tmp_path, 1000)
