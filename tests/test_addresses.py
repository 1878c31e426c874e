"""Addresses of buckets, as far as no server is needed; tests/training/test_buckets.py has the rest."""

import importlib.util
from pathlib import Path

import pytest

from camjax.addresses import as_path, is_address, local_path, make_folder
from camjax.checkpoints import tensorstore_utils
from camjax.cli.main import main
from camjax.errors import InputError

RUN = {"gs": "gs://bucket/a/run", "s3": "s3://bucket/a/run"}


@pytest.fixture
def with_clients(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.parametrize("scheme", RUN)
def test_an_address_is_one_however_it_is_given(scheme, with_clients):
    for given in (RUN[scheme], Path(RUN[scheme]), as_path(RUN[scheme])):  # a pathlib.Path drops a slash
        path = as_path(given)
        assert is_address(given) and str(path) == RUN[scheme] and str(path / "b.json") == f"{RUN[scheme]}/b.json"
        assert path.name == "run" and str(path.parent) == f"{scheme}://bucket/a"
    assert str(as_path(f"{scheme}://bucket")) == f"{scheme}://bucket"


@pytest.mark.parametrize("name", ["runs/a", "./gs", "gs:run", "/a:/b", "C:/a", "imagenet2012:5.1.0", ".", "a b/s3"])
def test_other_names_are_paths_of_this_machine(name):
    assert not is_address(name)
    assert type(as_path(name)) is type(Path()) and as_path(name) == local_path(name, "") == Path(name)
    assert as_path("~/runs") == Path.home() / "runs"


@pytest.mark.parametrize(
    "name", ["gs://", "s3:///run", "hf://bucket/run", "https://a/b", "gs://bucket/r*n", "s3://b/[1]"]
)
def test_what_is_no_address_of_a_bucket(name, with_clients):
    with pytest.raises(InputError, match="is no address of a bucket: expected a folder, or gs://BUCKET/NAME"):
        as_path(name)


@pytest.mark.parametrize("scheme, client", [("gs", "gcsfs"), ("s3", "s3fs")])
def test_without_its_client_a_sentence_says_what_to_install(scheme, client, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf'needs the package {client}[^"]*pip install "camjax\[buckets\]"'):
        make_folder(as_path(RUN[scheme]))


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "cat.png", "--separate", "--out", "{}"),
        ("train", "{}", "--out", "run"),
        ("train", "scenes", "--data-dir", "{}", "--out", "run"),
        ("evaluate", "--dataset", "{}"),
        ("evaluate", "--dataset", "scenes", "--data-dir", "{}"),
        ("annotate", "{}"),
        ("prepare", "scenes", "--data-dir", "{}"),
        ("convert", "a.pth", "{}.safetensors", "--model", "resnet50"),
    ],
    ids=" ".join,
)
def test_where_only_folders_do_the_mount_is_named_and_nothing_is_written(
    words, tmp_path, monkeypatch, capsys, with_clients
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat.png").write_bytes(b"")
    assert main([word.format("gs://bucket/name") for word in words]) == 1
    said = capsys.readouterr().err
    assert "gs://bucket/name" in said and "not an address. Mount the bucket as a folder" in said, said
    assert not (tmp_path / "gs:").exists() and not (tmp_path / "run").exists()


def test_orbax_hands_s3_to_tensorstore(monkeypatch):
    """The one private name of Orbax that camjax replaces. It can go if Orbax itself gives s3:// the driver s3."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    build = tensorstore_utils.build_kvstore_tspec
    base = {"driver": "s3", "bucket": "b", "path": "run/1/model"}
    assert build("s3:/b/run/1/model", use_ocdbt=False) == base
    assert build("s3://b/run/1/model")["base"] == base and build("gs://b/x")["base"]["driver"] == "gcs"
    assert build("/tmp/x")["base"]["driver"] == "file"
    with pytest.raises(ValueError, match="should be absolute"):
        build.__wrapped__("s3://b/run/1/model")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    assert build("s3://b/x", use_ocdbt=False) == {
        **{"driver": "s3", "bucket": "b", "path": "x", "endpoint": "http://localhost:1", "aws_region": "us-east-1"},
        "aws_credentials": {"type": "environment"},
    }
