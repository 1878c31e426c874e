"""Features on disk: the same numbers as in memory, the same files after any interruption, nothing lost in silence."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.errors import InputError
from camjax.features import FeatureStore, extract_features, gap_features
from tests.experiments.colors import TINY

LENGTH = 53
SIZES = {"batch_size": 4, "shard_size": 8}  # seven shards, the last of five images


class Images:
    """Random images, some of which can't be read; slow ones, where a test wants the time to interrupt."""

    def __init__(self, broken=(), seconds: float = 0.0):
        self.broken, self.seconds = set(broken), seconds

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict:
        time.sleep(self.seconds)
        if index in self.broken:
            raise ValueError(f"image-{index}.jpg is no image")
        return {"image": np.random.default_rng(index).integers(0, 256, (64, 64, 3), np.uint8), "label": index % 3}


@functools.cache
def network(seed: int = 0):
    return camjax.create_model(TINY, num_classes=3, rngs=nnx.Rngs(seed))


@pytest.fixture(scope="module")
def expected():
    return gap_features(network(), Images(), batch_size=4)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_same_as_in_memory(tmp_path, expected):
    store = extract_features(network(), Images(), tmp_path, **SIZES)
    assert store.shape == expected.shape == (LENGTH, 32) and store.readable.all() and not store.unreadable
    np.testing.assert_array_equal(store[:], expected)
    order = np.random.default_rng(0).permutation(LENGTH)[:20]
    np.testing.assert_array_equal(store[order], expected[order])
    np.testing.assert_array_equal(store[np.arange(LENGTH) % 2 == 0], expected[::2])
    np.testing.assert_array_equal(store[-1], expected[-1])
    np.testing.assert_array_equal(store[np.array([], int)], expected[:0])
    with pytest.raises(IndexError):
        store[LENGTH]
    assert len(list(tmp_path.glob("*.npy"))) == 7


def test_missing_shards_alone_are_computed_again(tmp_path, expected):
    extract_features(network(), Images(), tmp_path, **SIZES)
    before = files(tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    gone = {"features-00001.npy", "features-00004.npy", "features-00005.npy"}
    for name in gone:
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"features-00001\.npy is missing"):
        FeatureStore(tmp_path)
    extract_features(network(), Images(), tmp_path, **SIZES)
    assert files(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir() if path.stat().st_mtime_ns != times[path.name]} == gone


SCRIPT = """
import sys
from camjax.features import extract_features
from tests.features.test_store import Images, SIZES, network
extract_features(network(), Images(broken=[9], seconds=0.05), sys.argv[1], **SIZES, num_threads=1)
"""


def test_killed_and_started_again_it_leaves_the_same_files(tmp_path):
    whole, broken_off = tmp_path / "whole", tmp_path / "broken off"
    extract_features(network(), Images(broken=[9]), whole, **SIZES)
    command = [sys.executable, "-c", SCRIPT, str(broken_off)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env={**os.environ, "JAX_PLATFORMS": "cpu"})
    while process.poll() is None and len(list(broken_off.glob("features-*.npy"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(list(broken_off.glob("features-*.npy"))) < 7
    extract_features(network(), Images(broken=[9]), broken_off, **SIZES)
    assert files(broken_off) == files(whole)


def test_unreadable_images_are_named_and_the_others_not_moved(tmp_path, expected):
    store = extract_features(network(), Images(broken=[0, 9, 52]), tmp_path, **SIZES)
    assert store.unreadable == {i: f"image-{i}.jpg is no image" for i in (0, 9, 52)}
    assert np.flatnonzero(~store.readable).tolist() == [0, 9, 52]
    np.testing.assert_array_equal(store[store.readable], expected[store.readable])
    assert np.isnan(store[[0, 9, 52]]).all()
    assert FeatureStore(tmp_path).unreadable == store.unreadable


def test_progress_counts_every_image(tmp_path):
    seen = []
    extract_features(network(), Images(), tmp_path, **SIZES, progress=lambda *now: seen.append(now))
    assert seen == [*((min(i, LENGTH), LENGTH) for i in range(4, LENGTH + 4, 4)), (LENGTH, LENGTH)]
    extract_features(network(), Images(), tmp_path, **SIZES, progress=lambda *now: seen.append(now))
    assert seen[-2:] == [(LENGTH, LENGTH)] * 2


def test_other_features_are_not_taken_for_these(tmp_path):
    extract_features(network(), Images(), tmp_path, **SIZES)
    with pytest.raises(ValueError, match=r"weights_sha256 was .*, is .*Give another directory"):
        extract_features(network(1), Images(), tmp_path, **SIZES)
    with pytest.raises(ValueError, match="batch_size was 4, is 8"):
        extract_features(network(), Images(), tmp_path, batch_size=8, shard_size=8)
    with pytest.raises(ValueError, match="images was 53, is 3"):
        extract_features(network(), [Images()[i] for i in range(3)], tmp_path, **SIZES)


def test_damage_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no features\.json"):
        FeatureStore(tmp_path)
    extract_features(network(), Images(), tmp_path, **SIZES)
    np.save(tmp_path / "features-00002.npy", np.zeros((8, 31), np.float32))
    with pytest.raises(ValueError, match=r"features-00002.npy has shape \(8, 31\)"):
        FeatureStore(tmp_path)
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        FeatureStore(tmp_path)


def test_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of the 53 examples"):
        extract_features(network(), Images(broken=range(LENGTH)), tmp_path, **SIZES)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store with an unreadable image, and its features."""
    directory = tmp_path_factory.mktemp("stored")
    return directory, extract_features(network(), Images(broken=[9]), directory, **SIZES)[:]


def test_a_changed_bit_never_gives_other_features(stored, tmp_path):
    """Every file of a store in turn has one bit flipped or its end cut off."""
    directory, features = stored
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    rng = np.random.default_rng(0)
    refused, names = 0, sorted(path.name for path in tmp_path.iterdir())
    for turn in range(400):
        path = tmp_path / names[turn % len(names)]
        whole = path.read_bytes()
        place = int(rng.integers(len(whole)))
        if turn % 10:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.integers(8)]) + whole[place + 1 :])
        else:
            path.write_bytes(whole[:place])
        try:
            store = FeatureStore(tmp_path)
            np.testing.assert_array_equal(store[:], features)
            assert list(store.unreadable) == [9]
        except (InputError, FileNotFoundError) as error:
            refused += 1
            assert str(tmp_path) in str(error)
        path.write_bytes(whole)
    assert refused > 350  # the rest is in names of features.json, which no number depends on


def test_a_damaged_shard_alone_is_computed_again(stored, tmp_path):
    directory, features = stored
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    shard = tmp_path / "features-00002.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-50] + bytes([whole[-50] ^ 1]) + whole[-49:])
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store[:16], features[:16])
    with pytest.raises(InputError, match=r"features-00002\.npy.* its checksum is another\. Delete it, and extract"):
        store[20]
    shard.unlink()
    np.testing.assert_array_equal(extract_features(network(), Images(broken=[9]), tmp_path, **SIZES)[:], features)
    assert shard.read_bytes() == whole


def test_stores_without_checksums_are_read(stored, tmp_path):
    directory, features = stored
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*.npy"):
        with path.open("wb") as file:
            np.save(file, np.load(directory / path.name))
        assert path.stat().st_size == (directory / path.name).stat().st_size - 4
    np.testing.assert_array_equal(FeatureStore(tmp_path)[:], features)


def test_a_shard_that_is_cut_while_open_is_an_error(stored, tmp_path):
    directory, _ = stored
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    store = FeatureStore(tmp_path)
    assert store[:].shape == store.shape
    os.truncate(tmp_path / "features-00001.npy", 200)
    with pytest.raises(InputError, match=r"features-00001\.npy was cut"):
        store[::2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": 10**18}, "features-00006.npy has shape"),
        ({"images": 10**18, "shard_size": 10**9}, "features-00000.npy has shape"),
        ({"images": 56 + 10**15}, "features-00006.npy has shape"),
        ({"channels": 10**18}, "has shape"),
        ({"shard_size": 0}, "shard_size is 0: .*greater than 0"),
        ({"images": "53"}, "images is '53': .*integer"),
    ],
)
def test_a_description_that_claims_too_much(stored, tmp_path, changed, message):
    directory, _ = stored
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    index = tmp_path / "features.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changed))
    with pytest.raises(InputError, match=message):
        FeatureStore(tmp_path)
