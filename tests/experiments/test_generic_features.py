"""Table 5: data sets in the layouts that they come in, splits, scores told by hand, and all of it on few images."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from flax import nnx
from PIL import Image
from scipy.io import savemat
from sklearn.metrics import average_precision_score
from tiny_tfds import prepare_tfds

import camjax
from camjax.data.sources import SourceInfo
from camjax.errors import InputError
from camjax.features import FeatureStore, extract_features
from camjax.terminal import Console
from camjax.weights.camjax_file import write_camjax_file
from experiments.generic_features import __main__ as generic_features
from experiments.generic_features import classifiers as generic_classifiers
from experiments.generic_features import datasets as generic_datasets
from experiments.generic_features import folders as generic_folders
from experiments.generic_features import mat_files
from experiments.generic_features.datasets import DATASETS, Dataset, splits_of
from experiments.generic_features.images import Images
from experiments.generic_features.splits import Split, attribute_split, listed_split, random_splits
from experiments.generic_features.table import summary, table5
from tests.experiments.colors import TINY, Identity

QUIET = Console(file=io.StringIO())


def save(path, gray=0):
    """A gray image of 4 x 4 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), gray).save(path, "PNG")


def grays(images, indices):
    """The value of each of these images: which file it is."""
    return [int(images.source[int(index)]["image"][0, 0, 0]) for index in indices]


# --- Layouts.


def test_indoor67_takes_the_listed_images(tmp_path):
    names = ["bar/b1.jpg", "bar/b2.jpg", "bar/b3.jpg", "attic/a1.jpg", "attic/a2.jpg", "attic/a3.jpg"]
    for gray, name in enumerate(names):
        save(tmp_path / "Images" / name, gray)
    (tmp_path / "TrainImages.txt").write_text("bar/b3.jpg\nattic/a1.jpg\n\n")
    (tmp_path / "TestImages.txt").write_text("attic/a3.jpg\nbar/b1.jpg")
    images = generic_folders.open_indoor67(tmp_path)
    (split,) = images.listed
    assert images.class_names == ("attic", "bar") and len(images.source) == 4
    assert sorted(grays(images, split.train)) == [2, 3] and sorted(grays(images, split.test)) == [0, 5]
    for index, gray in enumerate(grays(images, range(4))):
        assert images.class_names[images.labels[index]] == names[gray].split("/")[0]
    (tmp_path / "TestImages.txt").write_text("attic/a9.jpg")
    with pytest.raises(FileNotFoundError, match=r"TestImages\.txt: .*a9\.jpg is missing"):
        generic_folders.open_indoor67(tmp_path)


def test_action40_takes_class_and_split_from_the_lists(tmp_path):
    for gray, name in enumerate(["riding_a_bike_001", "riding_a_bike_002", "applauding_001", "applauding_002"]):
        save(tmp_path / "JPEGImages" / f"{name}.jpg", gray)
    for action in ("riding_a_bike", "applauding"):
        (tmp_path / "ImageSplits").mkdir(exist_ok=True)
        (tmp_path / "ImageSplits" / f"{action}_train.txt").write_text(f"{action}_002.jpg\n")
        (tmp_path / "ImageSplits" / f"{action}_test.txt").write_text(f"{action}_001.jpg\n")
    # Both lie beside the lists of the actions in the published archive.
    (tmp_path / "ImageSplits" / "actions.txt").write_text("action_name number_of_images\n")
    (tmp_path / "ImageSplits" / "train.txt").write_text("riding_a_bike_002.jpg\n")
    images = generic_folders.open_action40(tmp_path)
    (split,) = images.listed
    assert images.class_names == ("applauding", "riding a bike")
    assert grays(images, split.train) == [3, 1] and images.labels[split.train].tolist() == [0, 1]
    assert grays(images, split.test) == [2, 0] and images.labels[split.test].tolist() == [0, 1]


def cells(words):
    """What MATLAB's cell array of strings is in a file."""
    array = np.empty((len(words), 1), object)
    array[:, 0] = words
    return array


def test_sun_attribute_reads_its_tables(tmp_path):
    names = ["a/abbey/sun_1.jpg", "b/beach/sun_2.jpg", "a/abbey/sun_3.jpg"]
    votes = np.array([[1, 0], [0, 2 / 3], [1 / 3, 1]])
    for gray, name in enumerate(names):
        save(tmp_path / "images" / name, gray)
    (tmp_path / "SUNAttributeDB").mkdir()
    savemat(tmp_path / "SUNAttributeDB/images.mat", {"images": cells(names)})
    savemat(tmp_path / "SUNAttributeDB/attributes.mat", {"attributes": cells(["sailing/ boating", "grass"])})
    savemat(tmp_path / "SUNAttributeDB/attributeLabels_continuous.mat", {"labels_cv": votes})
    images = generic_folders.open_sun_attribute(tmp_path)
    assert images.class_names == ("sailing/ boating", "grass") and grays(images, range(3)) == [0, 1, 2]
    np.testing.assert_allclose(images.labels, votes, rtol=1e-6)
    savemat(tmp_path / "SUNAttributeDB/attributeLabels_continuous.mat", {"labels_cv": votes.T})
    with pytest.raises(ValueError, match=r"has shape \(2, 3\), for 3 images and 2 attributes"):
        generic_folders.open_sun_attribute(tmp_path)


def test_damaged_mat_files_are_refused(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"names": cells(["a", "bc"]), "votes": np.eye(3)})
    assert mat_files.read_mat(path, "names").tolist() == ["a", "bc"]
    np.testing.assert_array_equal(mat_files.read_mat(path, "votes"), np.eye(3))
    for damage in (path.read_bytes()[:200], b""):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"a\.mat is not a \.mat file with 'votes', or damaged \(.*Fetch it again"):
            mat_files.read_mat(path, "votes")


def test_a_mat_file_that_crashes_the_reader_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mat_files, "_READER", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(InputError, match=r"a\.mat is .*damaged \(it crashed the reader, signal 11\)"):
        mat_files.read_mat(tmp_path / "a.mat", "votes")


def test_caltech256_leaves_out_the_clutter(tmp_path):
    for number in range(1, 258):
        name = {1: "ak47", 257: "clutter"}.get(number, "thing")
        save(tmp_path / f"256_ObjectCategories/{number:03d}.{name}/{number:03d}_0001.jpg", number % 256)
    images = generic_folders.open_caltech256(tmp_path)
    assert len(images.class_names) == len(images.source) == 256
    assert images.class_names[0] == "001.ak47" and "257.clutter" not in images.class_names
    assert images.labels.tolist() == list(range(256))


@pytest.mark.parametrize(("opener", "classes"), [("open_scene15", 15), ("open_event8", 8)])
def test_a_folder_for_each_class(tmp_path, opener, classes):
    for number in range(classes):
        save(tmp_path / f"class{number:02d}/image_0001.jpg", number)
    images = getattr(generic_folders, opener)(tmp_path)
    assert grays(images, range(classes)) == images.labels.tolist() == list(range(classes))
    save(tmp_path / "one more/image_0001.jpg")
    with pytest.raises(ValueError, match=f"{classes + 1} folders .* expected {classes},"):
        getattr(generic_folders, opener)(tmp_path)


@pytest.mark.parametrize(
    "dataset", [d for d in DATASETS if d.name not in ("caltech101", "sun397")], ids=lambda d: d.name
)
def test_a_folder_that_is_not_there_shows_the_layout_and_the_option(tmp_path, dataset):
    with pytest.raises(FileNotFoundError) as caught:
        dataset.open(tmp_path / "none")
    message = str(caught.value)
    assert "Expected:" in message and f"--{dataset.name.replace('_', '-')}" in message and message.count("\n") > 4


# --- tfds.


def gray(value):
    """An image file, for tfds encodes arrays with TensorFlow."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value,) * 3).save(file, "PNG")
    return io.BytesIO(file.getvalue())


def test_caltech101_is_both_of_tfds_splits_without_the_background(tmp_path):
    names = ["accordion", "background_google", "yin_yang"]
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=names),
        "image/file_name": tfds.features.Text(),
    }
    examples = [
        {"image": gray(10 * i + label), "label": label, "image/file_name": "image_0001.jpg"}
        for i in range(4)
        for label in range(3)
    ]
    prepare_tfds(tmp_path, "caltech101", features, {"train": examples[:5], "test": examples[5:]})
    images = generic_datasets.open_caltech101(tmp_path)
    assert images.class_names == ("accordion", "yin_yang") and len(images.source) == 8
    found = grays(images, range(8))
    assert sorted(found) == [0, 2, 10, 12, 20, 22, 30, 32]
    assert [value % 10 // 2 for value in found] == images.labels.tolist()


def test_sun397_has_the_splits_of_its_lists(tmp_path):
    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=["/a/abbey", "/z/zoo"]),
        "file_name": tfds.features.Text(),
    }
    names = [f"/{place}/sun_{i}.jpg" for i in range(4) for place in ("a/abbey", "z/zoo")]
    examples = [{"image": gray(i), "label": i % 2, "file_name": name} for i, name in enumerate(names)]
    splits = {"train": examples[:3], "validation": examples[3:5], "test": examples[5:]}
    prepare_tfds(tmp_path, "sun397", features, splits, config="tfds")
    partitions = tmp_path / "partitions"
    with pytest.raises(FileNotFoundError, match=r"(?s)Training_01\.txt.*--sun397"):
        generic_datasets.open_sun397(partitions, tmp_path)
    partitions.mkdir()
    for number in range(1, 11):
        chosen = [number % 4, (number + 1) % 4]
        for part, i in zip(("Training", "Testing"), chosen, strict=True):
            lines = [names[2 * i], names[2 * i + 1], generic_datasets.SUN397_LEFT_OUT[0]]
            (partitions / f"{part}_{number:02d}.txt").write_text("\n".join(lines) + "\n")
    images = generic_datasets.open_sun397(partitions, tmp_path)
    assert len(images.listed) == 10 and len(images.source) == 8
    for number, split in enumerate(images.listed, 1):
        for part, i in zip(split, (number % 4, (number + 1) % 4), strict=True):
            assert sorted(grays(images, part)) == [2 * i, 2 * i + 1]
    (partitions / "Testing_10.txt").write_text("/z/zoo/sun_9.jpg\n")
    with pytest.raises(ValueError, match=r"Testing_10\.txt lists 1 images .* /z/zoo/sun_9\.jpg"):
        generic_datasets.open_sun397(partitions, tmp_path)


# --- Splits.

LABELS, NAMES = np.repeat([0, 1, 2], [5, 7, 9]), ("a", "b", "c")


@pytest.mark.parametrize(("test", "expected"), [(2, [2, 2, 2]), (None, [2, 3, 5])])
def test_random_splits_have_the_numbers_asked_for_and_no_image_twice(test, expected):
    usable = np.ones(21, bool)
    usable[[5, 20]] = False
    splits = random_splits(LABELS, NAMES, usable, train=3, test=test, count=4)
    for split in splits:
        assert np.bincount(LABELS[split.train]).tolist() == [3, 3, 3]
        assert np.bincount(LABELS[split.test]).tolist() == expected
        both = np.concatenate(split)
        assert len(set(both)) == len(both) and usable[both].all()
    assert len({tuple(split.train) for split in splits}) == 4
    again = random_splits(LABELS, NAMES, usable, train=3, test=test, count=2)
    assert all(
        np.array_equal(x, y) for one, two in zip(splits, again, strict=False) for x, y in zip(one, two, strict=True)
    )


def test_a_class_with_too_few_images_is_named():
    usable = np.ones(21, bool)
    usable[0] = False
    message = re.escape("of a (4), b (7): expected at least 8 of each class, 5 for training and 3 for testing")
    with pytest.raises(ValueError, match=message):
        random_splits(LABELS, NAMES, usable, train=5, test=3, count=1)
    random_splits(LABELS, NAMES, usable, train=3, test=1, count=1)
    with pytest.raises(ValueError, match="at least 1 for testing"):
        random_splits(LABELS, NAMES, usable, train=4, test=None, count=1)


def test_a_listed_split_loses_what_can_not_be_read():
    split, usable = Split(np.array([0, 1, 5, 12]), np.array([2, 6, 13, 14])), np.ones(21, bool)
    usable[[1, 14, 20]] = False
    found = listed_split(split, LABELS, NAMES, usable)
    assert found.train.tolist() == [0, 5, 12] and found.test.tolist() == [2, 6, 13]
    usable[6] = False
    with pytest.raises(ValueError, match="no test image of b"):
        listed_split(split, LABELS, NAMES, usable)


def test_attributes_are_drawn_from_clear_votes_half_and_half():
    votes = np.repeat(np.float32([0, 1 / 3, 2 / 3, 1]), [40, 30, 10, 6])
    usable = np.ones(len(votes), bool)
    usable[85] = False  # of the 16 with the attribute
    for train, expected in ((4, 4), (150, 7)):
        split = attribute_split(votes, "grass", usable, train=train, seed=(0, 0))
        for part, count in zip(split, (expected, 15 - expected), strict=True):
            assert (votes[part] > 0.5).sum() == (votes[part] == 0).sum() == count and len(part) == 2 * count
        assert not set(split.train) & set(split.test) and 85 not in np.concatenate(split)
    with pytest.raises(ValueError, match="5 images that can be read have the attribute 'fire' and 30 lack it"):
        attribute_split(np.repeat(np.float32([1, 0]), [5, 30]), "fire", np.ones(35, bool), train=1, seed=(0,))


# --- Scores.


class Blocks:
    """Images of one color each, by pixel values; None can't be read."""

    def __init__(self, colors, labels, names):
        self.colors, self.labels = colors, labels
        self.info = SourceInfo("blocks", "all", names, len(colors), ("image", "label"))

    def __len__(self):
        return len(self.colors)

    def __getitem__(self, index):
        if self.colors[index] is None:
            raise ValueError(f"block {index} is damaged")
        return {"image": np.full((40, 30, 3), self.colors[index], np.uint8), "label": int(self.labels[index])}


def blocks(count=12, unreadable=()):
    """Red, green and blue, in several shades."""
    rng = np.random.default_rng(0)
    labels = np.arange(3 * count) % 3
    colors = [rng.integers(0, 40, 3) + 200 * np.eye(3, dtype=int)[label] for label in labels]
    for index in unreadable:
        colors[index] = None
    return Images(Blocks(colors, labels, ("red", "green", "blue")), labels.astype(np.int32), ("red", "green", "blue"))


def test_the_score_is_the_mean_over_the_classes(tmp_path):
    images = blocks()
    store = extract_features(Identity(), images.source, tmp_path, batch_size=8)
    # Two of the eight red test images are labeled green in the truth.
    labels = images.labels.copy()
    split = random_splits(labels, images.class_names, np.ones(36, bool), train=4, test=8, count=1)[0]
    red = split.test[labels[split.test] == 0][:2]
    labels[red] = 1
    numbers, kernel, bias = generic_classifiers.run_split(
        store, dataclasses.replace(images, labels=labels), [split], [(1.0,)]
    )
    assert numbers["score"] == pytest.approx(100 * (6 / 6 + 8 / 10 + 8 / 8) / 3)
    assert numbers["share_of_images"] == pytest.approx(100 * 22 / 24)
    assert (numbers["train"], numbers["test"], numbers["penalty"]) == (12, 24, [1.0])
    assert kernel.shape == (3, 3) and bias.shape == (3,)


def test_attributes_are_scored_by_average_precision(tmp_path):
    rng = np.random.default_rng(1)
    colors = [rng.integers(0, 256, 3) for _ in range(60)]
    # Bright red, by noisy votes; and nothing that can be seen.
    votes = np.stack([[float(c[0] + rng.normal(0, 60) > 128) for c in colors], rng.integers(0, 2, 60)], 1)
    images = Images(Blocks(colors, np.zeros(60), ("red", "x")), votes.astype(np.float32), ("red", "x"))
    store = extract_features(Identity(), images.source, tmp_path, batch_size=16)
    dataset = Dataset("attributes", "", None, 0, None, train=10, splits=2, metric="average precision")
    splits = splits_of(dataset, images, np.ones(60, bool))
    assert len(splits) == 2 and len(splits[0]) == 2
    numbers, kernel, bias = generic_classifiers.run_split(store, images, splits[0], [(0.01, 1.0)])
    expected = []
    for attribute, split in enumerate(splits[0]):
        decisions = store[split.test] @ kernel[:, attribute] + bias[attribute]
        expected.append(100 * average_precision_score(votes[split.test, attribute], decisions))
    assert list(numbers["of_attributes"].values()) == pytest.approx(expected)
    assert numbers["score"] == pytest.approx(np.mean(expected)) and numbers["of_attributes"]["red"] > 80
    # Those that were chosen are kept for another split.
    kept, *_ = generic_classifiers.run_split(store, images, splits[1], [(p,) for p in numbers["penalty"]])
    assert kept["penalty"] == numbers["penalty"]


def test_mean_and_deviation():
    dataset = dataclasses.replace(DATASETS[-1])
    found = summary(dataset, 1574, [{"score": 90.0}, {"score": 94.0}, {"score": 95.0}], {7: "damaged"})
    # Squares of -3, 1, 2 are 14 together, over 2.
    assert (found["mean"], found["deviation"]) == (93.0, pytest.approx(7**0.5))
    assert found["unreadable"] == {"7": "damaged"} and summary(dataset, 1579, [{"score": 9.0}], {})["deviation"] is None
    console = Console(file=io.StringIO(), width=120)
    part = summary(dataset, 160, [{"score": 90.0}], {})
    console.print(table5({"event8": found, "of a part": part}, "small_gap"))
    rows = [line.split() for line in console.file.getvalue().splitlines() if line.strip().startswith("Event8")]
    assert rows == [
        ["Event8", "94.42", "95.42", "95.00", "93.00", "±", "2.65", "1,573", "3"],
        ["Event8", "90.00", "160", "1"],
    ]


# --- The whole of it.


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """One run with a random network on classes and on attributes: options, data sets, what it printed, and found."""
    folder = tmp_path_factory.mktemp("generic")
    weights = folder / "tiny.safetensors"
    write_camjax_file(camjax.create_model(TINY, rngs=nnx.Rngs(0)), weights, version="0")
    options = generic_features.Options(sample=True, model=TINY, weights=str(weights), out=folder / "out", batch_size=8)
    classes = blocks(unreadable=(4, 31))
    votes = np.stack([classes.labels == 0, classes.labels != 2], 1).astype(np.float32)
    opened = [
        (Dataset("colors", "Colors", (1.0, 2.0, 3.0), 0, None, train=4, splits=3), classes),
        (
            Dataset("attributes", "Attributes", None, 0, None, train=4, splits=2, metric="average precision"),
            Images(classes.source, votes, ("reddish", "not blue")),
        ),
    ]
    console = Console(file=io.StringIO(), width=120)
    found = generic_features.run(options, opened, console)
    return options, opened, console.file.getvalue(), found


def test_it_tells_colors_apart_and_says_what_it_left_out(experiment):
    options, _, printed, found = experiment
    assert found["colors"]["mean"] > 90 and len(found["colors"]["scores"]) == 3
    assert found["attributes"]["mean"] > 90 and len(found["attributes"]["scores"]) == 2
    assert found["colors"]["unreadable"].keys() == {"4", "31"}
    assert "Colors: 2 images can't be read and are left out: block 4 is damaged" in printed
    assert json.loads((options.out / "table5.json").read_text()) == found
    stages = json.loads((options.out / "results.json").read_text())
    names = [f"Colors, {stage}" for stage in ("split 1", "split 2", "split 3", "figure")]
    assert list(stages) == names + [f"Attributes, {stage}" for stage in ("split 1", "split 2", "figure")]
    first, *others = (stages[f"Colors, split {i}"]["results"] for i in (1, 2, 3))
    # 34 images that can be read, of which 12 are for training.
    assert all((r["train"], r["test"], r["penalty"]) == (12, 22, first["penalty"]) for r in (first, *others))


def test_it_draws_maps(experiment):
    options, *_ = experiment
    for name in ("colors", "attributes"):
        with Image.open(options.out / f"{name}.png") as figure:
            assert figure.size[0] > 800 and len(set(figure.convert("L").tobytes())) > 50


def test_the_maps_of_the_machines_have_their_decision_values(experiment):
    options, opened, *_ = experiment
    stages = json.loads((options.out / "results.json").read_text())
    for dataset, images in opened:
        store = FeatureStore(options.out / "features" / dataset.name)
        svm, shown = (
            np.load(options.out / f"{dataset.name}.npz"),
            stages[f"{dataset.title}, figure"]["results"]["images"],
        )
        assert [one["class"] for one in shown] == list(images.class_names)
        for label, one in enumerate(shown):
            value = store[one["image"]] @ svm["kernel"][:, label] + svm["bias"][label]
            assert one["decision_value"] == pytest.approx(value, abs=1e-5)
            assert one["map_mean_plus_bias"] == pytest.approx(value, rel=1e-4, abs=1e-4)


def test_the_same_command_computes_no_split_again(experiment, monkeypatch):
    options, opened, _, found = experiment

    def fail(*_, **__):
        raise AssertionError("computed again")

    for name in ("run_split", "examples_figure"):
        monkeypatch.setattr(generic_features, name, fail)
    assert generic_features.run(options, opened, QUIET) == found
    fewer = generic_features.run(dataclasses.replace(options, splits=1), opened, QUIET)
    assert fewer["colors"]["scores"] == found["colors"]["scores"][:1]
    with pytest.raises(ValueError, match=r"penalties was \[1e-05, 0.0001, 0.001\], is \[1\]"):
        generic_features.run(dataclasses.replace(options, penalties=(1,)), opened, QUIET)


def test_too_few_images_are_said_before_the_features(experiment, tmp_path):
    options, opened, _, _ = experiment
    dataset, images = opened[0]
    with pytest.raises(ValueError, match="too few images"):
        generic_features.run(
            dataclasses.replace(options, out=tmp_path), [(dataclasses.replace(dataset, train=12), images)], QUIET
        )
    assert not any(tmp_path.iterdir())


@pytest.mark.long
def test_the_sample_runs_offline(tmp_path):
    generic_features.main(generic_features.Options(sample=True, out=tmp_path))
    found = json.loads((tmp_path / "table5.json").read_text())
    assert found["sample"]["mean"] > 80 and (tmp_path / "sample.png").stat().st_size > 100_000
