"""Commands at gs:// and s3:// addresses, against servers of both protocols on this machine: make test-buckets."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_checkpoints import state_of
from tiny_run import Colors, Net, start, tiny_recipe

import camjax
from camjax import files, locks
from camjax.addresses import as_path, upload
from camjax.checkpoints import Checkpoints
from camjax.cli.main import main
from camjax.runs import checkpoints_of
from camjax.training import fit
from camjax.training.logs import read_metrics
from camjax.training.run_lock import run_lock
from camjax.weights.fingerprint import weights_sha256
from tests.experiments.colors import TINY
from tests.processes import end, join, together

pytestmark = pytest.mark.buckets
ROOT = Path(__file__).parents[2]
SERVERS = Path(os.environ.get("CAMJAX_BUCKET_SERVERS", ROOT / ".venv-servers" / "bin"))
BUCKET = "bucket"


GCS = """
import contextlib
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

def download(request, response, storage, *rest, plain=objects.download, **options):
    with contextlib.suppress(NotFound):
        found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found["generation"]
    plain(request, response, storage, *rest, **options)

objects.download = download
from gcp_storage_emulator.__main__ import main
main()
"""
"""The emulator, with a header that Google sends and TensorStore needs: without it, it refuses to write now and then."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def servers(tmp_path_factory):
    """An S3 and a Google Cloud Storage server, each with a bucket; the environment names them to all libraries."""
    s3, gcs = free_port(), free_port()
    log = (tmp_path_factory.mktemp("servers") / "log").open("w")
    commands = (
        [SERVERS / "moto_server", "-H", "127.0.0.1", "-p", str(s3)],
        [SERVERS / "python", "-c", GCS, "start", "--host=127.0.0.1", f"--port={gcs}", "--in-memory"],
    )
    commands[1].append(f"--default-bucket={BUCKET}")
    started = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **{"AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}", "AWS_DEFAULT_REGION": "us-east-1"},
            **{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"},
            # Of gcsfs and Google's client, and of TensorStore.
            **{"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{gcs}", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"},
            **{"TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{gcs}", "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token"},
            "PYTHONPATH": str(ROOT),
        }.items():
            patch.setenv(name, value)
        try:
            for port in (s3, gcs):
                wait_for(lambda port=port: socket.create_connection(("127.0.0.1", port), 1).close() is None, OSError)
            import s3fs

            s3fs.S3FileSystem().mkdir(BUCKET)
            yield
        finally:
            for server in started:
                server.kill()
                server.wait()


def wait_for(there, *errors, seconds=300):
    """Waits until a function returns something true."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := there():
                return found
        except errors:
            pass
        assert time.monotonic() < deadline, "too late"
        time.sleep(0.05)


@pytest.fixture(params=["gs", "s3"])
def bucket(request, tmp_path):
    """An address that only this test has."""
    return f"{request.param}://{BUCKET}/{tmp_path.name}"


def names(address) -> set[str]:
    """The names of all objects below an address."""
    import fsspec

    system, name = fsspec.url_to_fs(str(address))
    return {found.removeprefix(f"{name}/") for found in system.find(name)}


def test_a_killed_run_leaves_a_whole_checkpoint_and_is_taken_up_again(bucket, tmp_path):
    """Logs are there while it runs; in the end all is as in a run on a disk without interruption, to the bit."""
    files_of = {"run_dir": bucket, "steps": 12, "checkpoint_every": 3, "dropout": 0.2}
    log = tmp_path / "log"
    process = start({**files_of, "wait": 0.02}, log)
    committed = as_path(bucket) / "checkpoints" / "6" / "commit_success.txt"
    wait_for(lambda: committed.exists() or not process.is_alive())
    steps = [line["step"] for line in read_metrics(bucket)]
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    assert steps[:6] == [1, 2, 3, 4, 5, 6]  # they were there before the checkpoint
    assert any(name.startswith("events.out.tfevents") for name in names(bucket))
    with Checkpoints(checkpoints_of(bucket), read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] >= 6

    process = start(files_of, log)
    process.join()
    assert process.exitcode == 0, log.read_text()
    whole = fit(Net(0.2), Colors(), tiny_recipe(12), run_dir=tmp_path / "run", checkpoint_every=3, log_every=1)
    with Checkpoints(checkpoints_of(bucket), read_only=True) as checkpoints:
        assert checkpoints.steps() == [9, 12]
        resumed = checkpoints.restore_model(Net(0.2))
    assert weights_sha256(resumed) == weights_sha256(whole)
    losses = [[line["train/loss"] for line in read_metrics(run)] for run in (bucket, tmp_path / "run")]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    kept = {name for name in names(bucket) if not name.startswith(("checkpoints/", "events"))}
    assert kept == {"curves.png", "metrics.jsonl", "run.json", "run_card.json", "run_card.md"}  # and no lock


@pytest.mark.long
def test_joined_processes_go_on_after_one_of_them_was_killed(bucket, tmp_path):
    """First the one that writes, then the other one; in the end all is as on a disk without interruption."""
    log = tmp_path / "log"
    given = {"steps": 12, "checkpoint_every": 3, "dropout": 0.2, "devices": 2, "heartbeat_seconds": 5}
    for victim, step in ((0, 3), (1, 9)):
        two = [start(own, log) for own in together(2, **given, run_dir=bucket, wait=0.05)]
        committed = as_path(bucket) / "checkpoints" / str(step) / "commit_success.txt"
        wait_for(lambda committed=committed, two=two: committed.exists() or not all(one.is_alive() for one in two))
        two[victim].kill()
        codes = end(two, log)
        assert codes.pop(victim) == -signal.SIGKILL and {*codes} <= {1, -signal.SIGABRT}, log.read_text()[-3000:]
    for run in (bucket, tmp_path / "run"):
        assert end([start(own, log) for own in together(2, **given, run_dir=run)], log) == [0, 0], log.read_text()
    weights, losses = [], []
    for run in (bucket, tmp_path / "run"):
        with Checkpoints(checkpoints_of(as_path(run)), read_only=True) as checkpoints:
            assert checkpoints.steps() == [9, 12]
            weights.append(weights_sha256(checkpoints.restore_model(Net(0.2))))
        losses.append([line["train/loss"] for line in read_metrics(run)])
    assert weights[0] == weights[1] and losses[0] == losses[1] and len(losses[0]) == 12
    assert not any("lock" in name for name in names(bucket))


def test_a_damaged_checkpoint_is_moved_aside(bucket):
    """Moving is copying there, which a kill may cut: what is left has fewer arrays, and is damaged still."""
    with Checkpoints(bucket) as checkpoints:
        for step in (3, 6):
            checkpoints.save(state_of(step))
    for part in names(f"{bucket}/6/model"):
        if part.startswith("d/"):
            upload(as_path(f"{bucket}/6/model/{part}"), b"damaged")
    with Checkpoints(bucket) as checkpoints:
        with pytest.warns(UserWarning, match=f"{bucket}/6 .* The checkpoint of step 3 is used in its place"):
            assert int(checkpoints.restore(state_of(0)).step) == 3
        (moved,) = checkpoints.set_aside(3)
        assert str(moved) == f"{bucket}.damaged-6" and checkpoints.steps() == [3]
    assert not any(name.startswith("6/") for name in names(bucket)) and len(names(moved)) > 5


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve pictures of noise on each of two colors."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, color in {"cherry": (200, 40, 40), "leaf": (40, 180, 40)}.items():
        (folder / name).mkdir()
        for i in range(12):
            pixels = np.clip(color + rng.integers(-40, 40, (30 + i, 40 - i, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def run_commands(options: dict) -> None:
    """Trains, evaluates and annotates at an address or in a folder, "root"; alone, or "joined" to others."""
    pictures, root = options["pictures"], options["root"]
    annotate = ("annotate", pictures, "--model", f"{root}/run", "--out", f"{root}/boxes", "--batch-size", 8, "--maps")
    ways = [("--shard", "0/2"), ("--shard", "1/2"), ("--merge",)]
    if "joined" in options:
        join(options)
        ways = [()]
    commands: list[tuple] = [
        (
            *("train", pictures, "--out", f"{root}/run", "--model", TINY, "--weights", "random", "--epochs", 1),
            *("--batch-size", 8, "--image-size", 24),
        ),
        (
            *("evaluate", "--dataset", f"{root}/run/pictures.csv", "--split", "validation", "--model", f"{root}/run"),
            *("--metrics", "insertion", "--batch-size", 2, "--out", f"{root}/evaluation", "--save-maps"),
        ),
        *((*annotate, *way) for way in ways),
    ]
    for words in commands:
        assert main([str(word) for word in words]) == 0


def check_same_files(bucket, disk, picture):
    """The same files, and the same content where it says nothing of place and time; a picture is explained, too."""
    for root in (bucket, disk):
        assert main(["explain", str(picture), "--model", f"{root}/run", "--out", f"{root}/leaf.png"]) == 0
    there = {path.relative_to(disk).as_posix() for path in disk.rglob("*") if path.is_file()}
    apart = ("run/checkpoints/", "run/events", "run/run.lock")
    assert {name for name in names(bucket) if not name.startswith(apart)} == {
        name for name in there if not name.startswith(apart)
    }
    same = ["run/pictures.csv", "boxes/coco.json", "boxes/boxes.csv", "boxes/maps/maps-000000.npz", "leaf.png"]
    same += sorted(name for name in there if name.endswith((".xml", ".npy")))
    assert len(same) > 30
    for name in same:
        assert as_path(f"{bucket}/{name}").read_bytes() == (disk / name).read_bytes(), name
    results = [
        json.loads(as_path(f"{root}/{part}/results.json").read_bytes())
        for part in ("run", "evaluation")
        for root in (bucket, disk)
    ]
    assert results[0] == results[1] and results[2]["results"] == results[3]["results"]


def test_train_evaluate_and_annotate(bucket, pictures, tmp_path, capsys):
    for root in (bucket, tmp_path):
        run_commands({"pictures": pictures, "root": root})
    assert f"Saved {bucket}/boxes/coco.json" in capsys.readouterr().out
    check_same_files(bucket, tmp_path, pictures / "leaf" / "0.png")

    capsys.readouterr()
    words = ("evaluate", "--dataset", f"{bucket}/run/pictures.csv", "--split", "validation", "--model", f"{bucket}/run")
    assert main([*words, "--metrics", "insertion", "--out", f"{bucket}/evaluation"]) == 1
    assert "holds an evaluation already" in capsys.readouterr().err


@pytest.mark.long
def test_joined_processes_train_evaluate_and_annotate(bucket, pictures, tmp_path):
    log = tmp_path / "log"
    for root in (bucket, tmp_path / "disk"):
        given = {"pictures": pictures, "root": root}
        two = [start(own, log, run_commands) for own in together(2, **given)]
        assert end(two, log) == [0, 0], log.read_text()[-3000:]
    assert log.read_text().count(f"Saved {bucket}/boxes/coco.json") == 1
    check_same_files(bucket, tmp_path / "disk", pictures / "leaf" / "0.png")


def test_one_run_at_a_time_and_one_of_a_dead_machine_does_not_count(bucket, monkeypatch, capfd):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.3)
    monkeypatch.setattr(locks, "STALE_SECONDS", 2.0)
    directory = as_path(bucket)
    with run_lock(directory), pytest.raises(ValueError, match=rf"{bucket} is in use: process {os.getpid()} on "):
        fit(Net(), Colors(), tiny_recipe(2), run_dir=bucket, progress=False)
    assert names(bucket) == set()
    note = {"process": 1, "host": "another", "since": "yesterday", "token": "a", "beat": 7}
    upload(directory / "run.lock.json", json.dumps(note).encode())
    began = time.monotonic()
    with run_lock(directory):
        assert time.monotonic() - began > 2
    assert "waiting to see whether process 1 on another still works in it" in capfd.readouterr().err


def test_an_object_is_whole_or_as_it_was_and_a_log_grows(bucket, monkeypatch):
    path = as_path(bucket) / "a.txt"
    files.write_whole(path, "old")
    with pytest.raises(RuntimeError), files.whole_file(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    log = files.GrowingFile(path, b"1")
    log.write(b"2")
    assert path.read_text() == "1"  # not yet
    log.flush()
    assert path.read_text() == "12"
    monkeypatch.setattr(files, "UPLOAD_SECONDS", 0)
    log.write(b"3")
    wait_for(lambda: path.read_text() == "123")
    log.close()
    assert names(bucket) == {"a.txt"}


def test_a_bucket_that_is_not_there_and_a_run_that_is_not(bucket, pictures, capsys):
    scheme = bucket.partition(":")[0]
    missing = f"{scheme}://no-such-bucket/run"
    assert main(["train", str(pictures), "--out", missing, "--model", TINY, "--weights", "random"]) == 1
    said = capsys.readouterr().err
    assert f"{missing} is not writable" in said and "can't be reached" in said and said.count("\n") < 3, said
    with pytest.raises(FileNotFoundError, match=r"Run directory .*/nothing not found"):
        camjax.load_model(f"{bucket}/nothing")


@pytest.mark.parametrize("scheme, variable", [("gs", "STORAGE_EMULATOR_HOST"), ("s3", "AWS_ENDPOINT_URL")])
def test_without_a_network_a_sentence_says_so(scheme, variable, tmp_path):
    environment = {**os.environ, variable: f"http://127.0.0.1:{free_port()}"}
    words = ["explain", "a.png", "--model", f"{scheme}://{BUCKET}/run", "--out", str(tmp_path / "a.png")]
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    words[1], words[-1] = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    done = subprocess.run(
        [sys.executable, "-m", "camjax.cli.main", *words], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert f"{scheme}://{BUCKET}/run can't be reached" in done.stderr and "Traceback" not in done.stderr
