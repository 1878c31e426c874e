import contextlib
import importlib.util
import io
import json
import re
import shutil
import tarfile
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.utils import tqdm_utils

from camjax.cli import prepare_progress
from camjax.cli.main import main
from camjax.cli.prepare import next_command
from camjax.data import archives as known_archives
from camjax.data.preparing import prepare
from camjax.data.sources import open_source
from camjax.terminal import Console

INSTALL = 'pip install "camjax[prepare]"'


# tfds copies the bytes of a file; for arrays it would need TensorFlow.
JPEG = cv2.imencode(".jpg", np.zeros((2, 2, 3), np.uint8))[1].tobytes()


class TinyBirds(tfds.core.GeneratorBasedBuilder):
    """As many examples as its archive has bytes; its builder does without TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = {  # noqa: RUF012
        "https://birds.example/tiny.txt?download=1": checksums.UrlInfo(
            size=tfds.core.utils.Size(3), checksum=checksums.sha256("abc"), filename="tiny.txt"
        )
    }

    def _info(self):
        features = {"image": tfds.features.Image(shape=(2, 2, 3)), "label": tfds.features.ClassLabel(num_classes=2)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        path = dl_manager.download("https://birds.example/tiny.txt?download=1")
        return {"train": self._generate_examples(path.read_text())}

    def _generate_examples(self, text):
        for i, letter in enumerate(text):
            if letter == "!":
                raise RuntimeError("what a builder says")
            yield i, {"image": io.BytesIO(JPEG), "label": 0}


@pytest.fixture
def tensorflow(monkeypatch):
    """As if TensorFlow were installed, for a builder that does without it."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorflow" or find(name))


@pytest.fixture
def no_tensorflow(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))


@pytest.fixture
def published_tiny(monkeypatch):
    monkeypatch.setitem(known_archives._PUBLISHED, "tiny_birds", known_archives.Published({"train": 3}))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "archives").mkdir()
    return tmp_path / "archives"


def run(*words) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(["prepare", *map(str, words)])
    return code, out.getvalue(), err.getvalue()


def refused(*words) -> str:
    """stderr of a command that fails."""
    code, out, err = run(*words)
    assert code == 1 and out == ""
    return err


def sparse(path, size: int) -> None:
    """A file of zeros that takes no space."""
    with path.open("wb") as file:
        file.truncate(size)


def test_from_an_archive_to_examples(tensorflow, tmp_path, folder):
    (folder / "tiny.txt").write_text("abc")
    code, out, _ = run("tiny_birds", "--data-dir", tmp_path / "tfds", "--archives", folder)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"Prepared tiny_birds in {tmp_path / 'tfds' / 'tiny_birds' / '1.0.0'}"
    assert lines[1].split() == ["train", "3", "examples"]
    command = f"camjax evaluate --dataset tiny_birds --split train --data-dir {tmp_path / 'tfds'} --model RUN"
    assert lines[-2:] == ["Next:", f"  {command}"]
    assert len(open_source("tiny_birds", "train", data_dir=tmp_path / "tfds")) == 3
    assert not list((tmp_path / "tfds").glob("incomplete*"))


def test_what_is_prepared_is_left_as_it_is(no_tensorflow, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TinyBirds, "_split_generators", lambda self, _: {"train": self._generate_examples("abc")})
        TinyBirds(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    code, out, _ = run("tiny_birds", "--data-dir", tmp_path)
    assert code == 0
    assert out.startswith(f"tiny_birds is prepared in {tmp_path / 'tiny_birds' / '1.0.0'}\n  train")
    assert "Next:\n  camjax evaluate --dataset tiny_birds" in out
    assert prepare("tiny_birds", data_dir=tmp_path).made is False


def test_the_folder_may_have_the_name_that_tfds_gives_it(no_tensorflow, tmp_path, folder):
    assert "ILSVRC2012_img_train.tar" in refused("imagenet2012", "--manual-dir", folder, "--data-dir", tmp_path)


def test_tfrecord_gets_the_command_that_converts(tensorflow, tmp_path, folder):
    (folder / "tiny.txt").write_text("abc")
    directory = prepare("tiny_birds", data_dir=tmp_path, archives=folder).directory
    info = directory / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    command = f"tfds convert_format --dataset_version_dir={directory} --out_file_format=array_record"
    assert command in refused("tiny_birds", "--data-dir", tmp_path)


@pytest.mark.parametrize("name, near", [("caltech_bird2011", "caltech_birds2011"), ("imagenet", "imagenet")])
def test_an_unknown_name_gets_near_ones(tmp_path, name, near):
    assert near in refused(name, "--data-dir", tmp_path).split("did you mean")[1]


def test_without_tensorflow_nothing_is_begun(no_tensorflow, tmp_path, monkeypatch):
    monkeypatch.setattr(requests.Session, "request", lambda *_, **__: pytest.fail("a download"))
    message = refused("caltech_birds2011", "--data-dir", tmp_path / "tfds")
    assert INSTALL in message and "TensorFlow" in message
    assert not (tmp_path / "tfds").exists()


def test_missing_birds_are_listed_with_size_and_address(tmp_path, folder):
    sparse(folder / "CUB_200_2011.tgz", 1_150_585_339)
    message = refused("caltech_birds2011", "--data-dir", tmp_path / "tfds", "--archives", folder)
    url = "https://data.caltech.edu/records/w9d68-gec53/files/segmentations.tgz?download=1"
    assert f"missing in {folder}:\n  segmentations.tgz  39.3 MB  {url}\n" in message
    assert "CUB_200_2011.tgz" not in message
    assert not (tmp_path / "tfds").exists()


def test_missing_imagenet_is_listed_with_sizes_and_where_to_get_it(tmp_path):
    message = refused("imagenet2012", "--data-dir", tmp_path)
    assert f"missing in {tmp_path / 'downloads' / 'manual'}:" in message
    assert "\n  ILSVRC2012_img_train.tar  147.9 GB\n  ILSVRC2012_img_val.tar  6.7 GB\n" in message
    assert "https://image-net.org/download-images" in message and "--archives DIR" in message
    assert "--unverified" not in message


def test_a_part_of_imagenet_needs_to_be_asked_for(no_tensorflow, tmp_path, folder):
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("ILSVRC2012_val_00000001.JPEG"))
    words = ("imagenet2012", "--data-dir", tmp_path / "tfds", "--archives", folder)
    message = refused(*words)
    assert "ILSVRC2012_img_train.tar  147.9 GB" in message and "--unverified" in message
    assert INSTALL in refused(*words, "--unverified")  # the next thing that is missing


def test_a_folder_that_is_not_there(tmp_path):
    message = refused("imagenet2012", "--data-dir", tmp_path, "--archives", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message and "no such folder" in message


def test_a_download_that_broke_off_is_found_before_hours_of_work(tmp_path, folder):
    sparse(folder / "ILSVRC2012_img_train.tar", 147_897_477_119)
    sparse(folder / "ILSVRC2012_img_val.tar", 6_744_924_160)
    message = refused("imagenet2012", "--data-dir", tmp_path, "--archives", folder)
    assert "ILSVRC2012_img_train.tar has 147,897,477,119 bytes; expected 147,897,477,120" in message


@pytest.mark.parametrize(
    "names, first",
    [
        (["val/ILSVRC2012_val_00000001.JPEG"], "val/ILSVRC2012_val_00000001.JPEG"),
        (["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000003.JPEG"], "ILSVRC2012_val_00000003.JPEG"),
        (["ILSVRC2012_val_00000001.JPEG", "."], "."),
    ],
)
def test_validation_images_that_would_get_the_labels_of_others(tmp_path, folder, names, first):
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    message = refused("imagenet2012", "--data-dir", tmp_path, "--archives", folder, "--unverified")
    assert f"is {first!r}; expected 'ILSVRC2012_val_0000000" in message and "wrong" in message


def test_a_validation_archive_that_is_none(tmp_path, folder):
    (folder / "ILSVRC2012_img_val.tar").write_text("<html>Please log in</html>")
    message = refused("imagenet2012", "--data-dir", tmp_path, "--archives", folder, "--unverified")
    assert "ILSVRC2012_img_val.tar is not a tar archive, or damaged" in message


def test_another_archive_than_the_published_one(tensorflow, tmp_path, folder):
    words = ("tiny_birds", "--data-dir", tmp_path / "tfds", "--archives", folder)
    (folder / "tiny.txt").write_text("ab")
    assert "tiny.txt has 2 bytes; expected 3" in refused(*words)
    (folder / "tiny.txt").write_text("abd")  # of the right size
    message = refused(*words)
    assert "wrong checksum" in message and "--unverified" in message
    assert not (tmp_path / "tfds" / "tiny_birds" / "1.0.0").exists()
    (folder / "tiny.txt").write_text("ab")
    code, out, _ = run(*words, "--unverified")
    assert code == 0 and out.splitlines()[1].split() == ["train", "2", "examples"]
    published = next(iter(TinyBirds.url_infos.values()))
    assert published.size == 3 and published.checksum == checksums.sha256("abc")


def test_counts_that_are_not_the_published_ones(published_tiny, tensorflow, tmp_path, folder):
    (folder / "tiny.txt").write_text("ab")
    words = ("tiny_birds", "--data-dir", tmp_path / "tfds", "--archives", folder)
    code, out, _ = run(*words, "--unverified")
    assert code == 0 and out.splitlines()[1].split() == ["train", "2", "examples", "(published:", "3)"]
    message = refused(*words)
    assert "train: 2 examples; expected 3" in message and "--unverified" in message
    assert str(tmp_path / "tfds" / "tiny_birds" / "1.0.0") in message


def test_a_split_that_few_people_have_may_be_absent(tmp_path, monkeypatch):
    counts = {"train": 1_281_167, "validation": 50_000}

    def prepared(counts):
        splits = {split: SimpleNamespace(num_examples=count) for split, count in counts.items()}
        builder = SimpleNamespace(data_dir=str(tmp_path), info=SimpleNamespace(splits=splits))
        monkeypatch.setattr("camjax.data.preparing.prepared_builder", lambda *_, **__: builder)
        return prepare("imagenet2012:5.1.0")

    assert prepared(counts).counts == counts
    with pytest.raises(ValueError, match="test: 99,999 examples; expected 100,000"):
        prepared(counts | {"test": 99_999})
    with pytest.raises(ValueError, match="validation: 0 examples; expected 50,000"):
        prepared({"train": 1_281_167})


def test_too_small_a_disk(tmp_path, monkeypatch):
    left = tmp_path / "caltech_birds2011" / "incomplete.ABCDEF_0.2.0"
    left.mkdir(parents=True)
    words = ("caltech_birds2011", "--data-dir", tmp_path)
    # 1.19 GB of archives: downloaded, unpacked, and written again.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_600_000_000))
    message = refused(*words)
    assert (
        "takes about 3.7 GB (downloads: 1.2 GB, unpacked: 1.2 GB, prepared: 1.3 GB)" in message
        and "3.6 GB are free" in message
    )
    assert str(left) in message
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_700_000_000))
    assert "GB" not in refused(*words)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    message = refused("caltech_birds2011", "--data-dir", tmp_path / "file" / "tfds")
    assert f"{tmp_path / 'file'} is not a folder" in message
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)  # root may write everywhere
    assert f"no permission to write in {tmp_path};" in refused("caltech_birds2011", "--data-dir", tmp_path / "tfds")


def test_a_download_that_fails(tensorflow, tmp_path, monkeypatch):
    def get(*_, **__):
        raise requests.ConnectionError("no route to birds.example")

    monkeypatch.setattr(requests.Session, "get", get)
    message = refused("tiny_birds", "--data-dir", tmp_path)
    assert "no route to birds.example" in message and "--archives DIR" in message
    assert "tiny.txt  0.0 MB  https://birds.example/tiny.txt?download=1" in message


def test_a_builder_that_fails(tensorflow, tmp_path, folder):
    (folder / "tiny.txt").write_text("ab!")
    message = refused("tiny_birds", "--data-dir", tmp_path, "--archives", folder, "--unverified")
    assert "'tiny_birds': tfds' builder failed" in message and "RuntimeError: what a builder says" in message
    assert not list((tmp_path / "tiny_birds").glob("*"))


def test_progress_in_a_log(tensorflow, tmp_path, folder, monkeypatch):
    monkeypatch.setattr(prepare_progress, "_LINE_EVERY", 0)
    (folder / "tiny.txt").write_text("abc")
    log = Console(file=io.StringIO(), force_terminal=False)
    with prepare_progress.prepare_progress(log, {"train": 3}):
        prepare("tiny_birds", data_dir=tmp_path, archives=folder)
    lines = [line for line in log.file.getvalue().splitlines() if line.startswith("train")]
    assert [line.split(",")[0] for line in lines] == [
        *(f"train: reading {i}/3" for i in (1, 2, 3)),
        *(f"train: writing {i}/3" for i in (1, 2, 3)),
    ]


def test_progress_of_a_download_leaves_out_what_was_there(monkeypatch):
    monkeypatch.setattr(prepare_progress, "_LINE_EVERY", 0)
    log = Console(file=io.StringIO(), force_terminal=False)
    with (
        prepare_progress.prepare_progress(log, {}),
        tqdm_utils.async_tqdm(total=0, desc="Dl Size...", unit=" MiB", mininterval=1.0) as bar,
    ):
        for size in (1_150_585_339, 14_989):  # bytes of files on disk
            bar.update_total(size)
            bar.update(size)
        bar.update_total(37)  # MiB of one that is fetched
        bar.update(1)
        bar.update(2)
    assert [line.split(" MiB")[0] for line in log.file.getvalue().splitlines()] == [
        "downloading 1/37",
        "downloading 3/37",
    ]


def test_progress_on_a_terminal():
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    with prepare_progress.prepare_progress(terminal, {"train": 4}):
        for _ in tqdm_utils.tqdm(range(3), desc="Generating train examples...", unit=" examples", total=None):
            time.sleep(0.15)  # longer than from one picture of the bar to the next
    assert re.search(r"train: reading .* 2/4,.*/s", terminal.file.getvalue())


def test_the_next_command():
    assert (
        next_command("imagenet2012", {"train": 1, "validation": 1, "test": 1}, None)
        == "camjax evaluate --dataset imagenet2012 --split validation --model efficientnet_lite0 "
        "--boxes ILSVRC2012_bbox_val_v3.tgz"
    )
    assert "--split test " in next_command("caltech_birds2011", {"train": 1, "test": 1}, None)
    assert "--data-dir '/data/my sets'" in next_command("caltech_birds2011", {"train": 1}, "/data/my sets")
