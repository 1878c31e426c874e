import functools
import io
import pickle
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tiny_tfds import prepare_tfds

from camjax.data import scenes
from camjax.data.preparing import prepare
from camjax.data.sources import open_source
from camjax.errors import InputError

FEW = {"train": 60, "validation": 30, "test": 30}  # as `scenes_dir` has


def _jpeg(photo, exif):
    stream = io.BytesIO()
    photo.save(stream, format="JPEG", exif=exif)
    return stream.getvalue()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, scenes_dir):
    data_dir = tmp_path_factory.mktemp("tfds")
    (data_dir / "scenes").symlink_to(scenes_dir / "scenes")
    # JPEGs with an EXIF tag that says "turned", as imagenet2012 has them: no box, and file_name.
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=["dark", "light"]),
        "file_name": tfds.features.Text(),
        "note": tfds.features.Text(),
    }
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = [_jpeg(Image.new("RGB", (20, 10 + i), (60 * i, 60 * i, 60 * i)), exif) for i in range(4)]
    examples = [{"image": p, "label": i // 2, "file_name": f"/tmp/{i}.jpg", "note": ""} for i, p in enumerate(photos)]
    prepare_tfds(data_dir, "tiny_photos", features, {"train": examples})
    prepare_tfds(data_dir, "tiny_numbers", {"number": np.int64}, {"train": [{"number": 1}]})  # no classification
    return data_dir


@pytest.fixture
def own_data_dir(data_dir, tmp_path):
    shutil.copytree(data_dir / "scenes", tmp_path / "scenes")
    return tmp_path


def test_scenes_prepare_themselves_once_and_say_so(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(scenes, "NUM_SCENES", FEW)
    assert len(open_source("scenes", "test", data_dir=tmp_path)) == 30
    said = capfd.readouterr()
    assert said.out.count("\n") == 1 and str(tmp_path / "scenes") in said.out
    open_source("scenes", "test", data_dir=tmp_path)
    assert capfd.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_an_example_is_what_the_builder_wrote(data_dir):
    source = open_source("scenes", "validation", data_dir=data_dir)
    stored = scenes.Scenes(data_dir=data_dir).as_data_source(split="validation")
    assert source.info.keys == ("image", "label", "bbox", "filename")
    assert source.info.class_names == scenes.CLASS_NAMES and source.info.num_classes == 10
    assert source.info.num_examples == len(source) == 30
    for example, expected in zip(source, stored, strict=True):
        assert tuple(example) == source.info.keys
        np.testing.assert_array_equal(example["image"], expected["image"])
        assert example["image"].dtype == np.uint8
        assert type(example["label"]) is int and example["label"] == expected["label"]
        np.testing.assert_array_equal(example["bbox"], expected["bbox"])
        assert example["bbox"].dtype == np.float32
        assert example["filename"] == expected["image/filename"].decode()


def test_slices_are_those_of_tfds(data_dir):
    whole = [example["filename"] for example in open_source("scenes", "train", data_dir=data_dir)]
    for split, expected in {
        "train[:90%]": whole[:54],
        "train[90%:]": whole[54:],
        "train[5:8]": whole[5:8],
        "train[:2]+train[-1:]": whole[:2] + whole[-1:],
    }.items():
        source = open_source("scenes", split, data_dir=data_dir)
        assert [example["filename"] for example in source] == expected
        assert source.info.num_examples == len(expected) and source.info.split == split


def test_a_data_set_without_boxes_and_with_exif_tags(data_dir):
    source = open_source("tiny_photos", "train", data_dir=data_dir)
    assert source.info.keys == ("image", "label", "filename")
    assert source.info.class_names == ("dark", "light")
    for example in source:
        number = int(re.fullmatch(r"/tmp/(\d)\.jpg", example["filename"])[1])
        assert example["image"].shape == (10 + number, 20, 3)  # as stored, not turned
        assert abs(int(example["image"][0, 0, 0]) - 60 * number) <= 2
        assert example["label"] == number // 2


def test_a_source_can_be_pickled(data_dir):
    source = open_source("scenes", "test[:7]", data_dir=data_dir)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.info == source.info and len(copy) == 7
    np.testing.assert_array_equal(copy[6]["image"], source[6]["image"])


def test_an_index_out_of_range(data_dir):
    source = open_source("scenes", "test", data_dir=data_dir)
    for index in (30, -1):
        with pytest.raises(IndexError, match="30 examples"):
            source[index]


def test_an_unknown_data_set_names_the_near_ones(data_dir):
    with pytest.raises(ValueError, match=r"'scene'.*'scenes'"):
        open_source("scene", "train", data_dir=data_dir)


def test_a_data_set_that_is_not_prepared_says_what_to_run(data_dir):
    with pytest.raises(FileNotFoundError) as error:
        open_source("caltech_birds2011", "train", data_dir=data_dir)
    command = f"camjax prepare caltech_birds2011 --data-dir {data_dir}"
    assert command in str(error.value)


@pytest.mark.parametrize("split", ["trian", "train[:", "", "train[bla]"])
def test_an_unknown_split_names_those_that_are_there(data_dir, split):
    with pytest.raises(ValueError, match="test, train, validation"):
        open_source("scenes", split, data_dir=data_dir)


def test_tfrecord_names_the_command_that_converts(own_data_dir):
    directory = own_data_dir / "scenes" / "1.0.0"
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError) as error:
        open_source("scenes", "train", data_dir=own_data_dir)
    command = f"tfds convert_format --dataset_version_dir={directory} --out_file_format=array_record"
    assert command in str(error.value)


def test_features_without_image_and_label(data_dir):
    with pytest.raises(ValueError, match="'tiny_numbers' has the features number; expected an 'image'"):
        open_source("tiny_numbers", "train", data_dir=data_dir)


def test_a_half_prepared_directory_is_not_taken_for_whole(own_data_dir):
    (own_data_dir / "scenes" / "1.0.0" / "dataset_info.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no complete copy.*Delete"):
        open_source("scenes", "train", data_dir=own_data_dir)


@pytest.mark.parametrize("name", ["a [x]", "a*b", "what?"])
def test_a_folder_that_tfds_would_take_for_a_pattern_is_refused_before_anything_is_prepared(tmp_path, name):
    for open_there in (open_source, functools.partial(prepare, verify=False)):
        with pytest.raises(InputError, match=r"takes .* in it for a pattern of file names.*Rename it"):
            open_there("scenes", *["test"] * (open_there is open_source), data_dir=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a\\b", "a]b", "{a,b}", "~a@2 $HOME %d"])
def test_folders_of_any_other_name(data_dir, tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "tiny_photos").symlink_to(data_dir / "tiny_photos")
    assert len(open_source("tiny_photos", "train", data_dir=tmp_path / name)) == 4


def test_missing_files_are_named(own_data_dir):
    shard = next((own_data_dir / "scenes" / "1.0.0").glob("*train*"))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 of 1 files are missing, such as .*{shard.name}"):
        open_source("scenes", "train", data_dir=own_data_dir)
    assert len(open_source("scenes", "test", data_dir=own_data_dir)) == 30


def test_a_damaged_record_names_data_set_split_index_and_file(own_data_dir):
    shard = next((own_data_dir / "scenes" / "1.0.0").glob("*test*"))
    with shard.open("r+b") as file:
        file.seek(20_000)  # behind the header and within the first records, of about 9,000 bytes each
        file.write(bytes(100))
    source = open_source("scenes", "test", data_dir=own_data_dir)
    damaged = []
    for index in range(len(source)):
        try:
            source[index]
        except ValueError as error:
            assert f"example {index} of data set 'scenes', split 'test' ({shard})" in str(error)
            damaged.append(index)
    assert len(damaged) == 1


def test_an_image_that_cannot_be_decoded_names_its_example(data_dir, monkeypatch):
    monkeypatch.setattr("camjax.data.sources.decode_image", cv2.imdecode)
    source = open_source("scenes", "train", data_dir=data_dir)
    name = source.without_image(3)["filename"]
    with pytest.raises(ValueError, match=rf"example 3 of data set 'scenes', split 'train' \({name} in .*train.*\)"):
        source[3]


def test_the_file_that_is_named_is_the_one_that_holds_the_record(own_data_dir):
    source = open_source("scenes", "train[50:]+test[5:8]", data_dir=own_data_dir)
    shard = next((own_data_dir / "scenes" / "1.0.0").glob("*test*"))
    shard.write_bytes(bytes(shard.stat().st_size))
    for index in range(10):
        source[index]
    for index in (10, 12):
        with pytest.raises(ValueError, match=rf"example {index} of .*{shard.name}\)"):
            source[index]


def test_another_process_may_prepare_faster(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "NUM_SCENES", dict.fromkeys(FEW, 10))
    prepare, calls = scenes.Scenes.download_and_prepare, []

    def overtaken(self, **options):
        if not calls:
            calls.append(self)
            open_source("scenes", "train", data_dir=tmp_path)  # as the other process does
        prepare(self, **options)

    monkeypatch.setattr(scenes.Scenes, "download_and_prepare", overtaken)
    assert len(open_source("scenes", "train", data_dir=tmp_path)) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert [path.name for path in (tmp_path / "scenes").iterdir()] == ["1.0.0"]


@pytest.mark.long
def test_two_processes_prepare_at_once(tmp_path):
    """They also prepare and read without TensorFlow."""
    # The same seed in both: tfds names its temporary directory by the global random generator.
    code = (
        "import random, sys\n"
        "from camjax.data import scenes\n"
        "from camjax.data.sources import open_source\n"
        f"scenes.NUM_SCENES = {FEW}\n"
        "sys.stdin.readline()\n"
        "random.seed(0)\n"
        f"source = open_source('scenes', 'train', data_dir={str(tmp_path)!r})\n"
        "assert len([example['filename'] for example in source]) == 60\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert [path.name for path in (tmp_path / "scenes").iterdir()] == ["1.0.0"]
