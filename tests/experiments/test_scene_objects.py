"""Informative objects in scenes: regions and counts told by hand, data in their layouts, and all on few images."""

import io
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import camjax
from camjax.data.builders import prepared_builder
from camjax.terminal import Console
from experiments.scene_objects import __main__ as scene_objects
from experiments.scene_objects import sample as sample_labels
from experiments.scene_objects.__main__ import Options
from experiments.scene_objects.folders import open_ade, open_folder, open_scene_parse150
from experiments.scene_objects.overlaps import PlaceCounts, high_region, shares_in_region, to_json
from experiments.scene_objects.places import choose_places, read_object_names, read_place_list
from tests.experiments.colors import Identity, painted

PREPARE = Path(__file__).parents[2] / ".venv-prepare" / "bin" / "python"


# --- Regions and counts.


def test_the_region_is_that_of_the_resized_map():
    rng = np.random.default_rng(0)
    for size in ((21, 33), (7, 5), (4, 3)):
        map = rng.normal(size=(5, 7))
        resized = np.asarray(camjax.resize_map(map, size))
        np.testing.assert_array_equal(high_region(map, size, 0.2), resized > 0.2 * resized.max())


@pytest.mark.parametrize("map", [-np.ones((2, 2)), np.zeros((2, 2)), np.array([[1, np.nan], [0, 0]])])
def test_a_map_without_a_positive_maximum_has_no_region(map):
    assert not high_region(map, (4, 4), 0.2).any()


def test_shares_are_of_the_objects_own_pixels():
    region = np.zeros((4, 4), bool)
    region[:, :2] = True
    label_map = np.array([[7, 7, 7, 0], [7, 0, 300, 300], [0, 0, 300, 300], [2, 0, 0, 0]])
    assert shares_in_region(region, label_map) == {7: 0.75, 300: 0.0, 2: 1.0}


def test_counts_over_images():
    left = np.array([[True, False]])
    counts = PlaceCounts()
    # Object 1 is half in the region, 2 to its left, 3 to its right; the last image has no region.
    for region, label_map in (
        (left, [[1, 1]]),
        (left, [[2, 3]]),
        (left, [[2, 1]]),
        (np.array([[False, False]]), [[2, 4]]),
    ):
        counts.add(region, np.array(label_map), 0.5)
    assert (counts.images, counts.without_region) == (4, 1)
    assert counts.present == {1: 2, 2: 3, 3: 1, 4: 1}
    assert counts.overlapping == {1: 1, 2: 2, 3: 0, 4: 0}
    assert [count.id for count in counts.frequent(3)] == [2, 1, 3]
    informative = counts.informative(6, 0)
    assert [(count.id, count.share) for count in informative] == [(2, 2 / 3), (1, 1 / 2)]
    assert [count.id for count in counts.informative(1, 0)] == [2]
    assert [count.id for count in counts.informative(6, 0.6)] == [2]
    assert to_json(informative, 4, {2: "sink"}) == [
        {"object": "sink", "id": 2, "images": 3, "overlapping": 2, "frequency": 3 / 4, "share": 2 / 3},
        {"object": "object 1", "id": 1, "images": 2, "overlapping": 1, "frequency": 2 / 4, "share": 1 / 2},
    ]


def test_of_equal_shares_the_object_in_more_images_is_first():
    counts = PlaceCounts()
    for label_map in ([[3, 1]], [[1, 1]], [[9, 9]]):
        counts.add(np.array([[True, True]]), np.array(label_map), 0.5)
    assert [count.id for count in counts.informative(6, 0)] == [1, 3, 9]


# --- Lists.


def test_scenes_with_the_most_images():
    scene_of = ["misc"] * 9 + ["street"] * 3 + ["attic"] * 4 + ["beach"] * 3 + ["street"]
    scenes, indices, labels = choose_places(scene_of, 2)
    assert scenes == ("attic", "street") and indices.tolist() == [9, 10, 11, 12, 13, 14, 15, 19]
    assert labels.tolist() == [1, 1, 1, 0, 0, 0, 0, 1]
    assert choose_places(scene_of, 10)[0] == ("attic", "beach", "street")
    assert choose_places(scene_of, ("misc", "beach"))[0] == ("beach", "misc")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("attic", "hall"), r"no images of the scene 'hall': expected some of 3, such as street \(4\), attic \(3\)"),
        (("attic", "attic"), "scenes attic: expected at least two"),
        (("street", "shed"), r"too few images that can be read of shed \(2\): expected at least 3"),
    ],
)
def test_scenes_that_are_not_there(wanted, message):
    with pytest.raises(ValueError, match=message):
        choose_places(["attic"] * 3 + ["shed"] * 2 + ["street"] * 4, wanted)


OBJECT_INFO = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1576\t11664\t1172\twall\n22 \t0.0074\t709\t75\twater, sea \n"
INSTANCE_INFO = "Idx\tObject Names\t\t#Inst.\t#Pix. per Inst.(*1e3)\n1\tbed                \t2189\t49.06\n"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("objectInfo150.txt", OBJECT_INFO, {1: "wall", 22: "water"}),
        ("instanceInfo100_train.txt", INSTANCE_INFO, {1: "bed"}),
        ("objects.csv", 'id,name\n3,"lamp, light"\n1000, bench\n', {3: "lamp", 1000: "bench"}),
    ],
)
def test_names_of_objects(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert read_object_names(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with"),
        ("number,name\n1,a", "expected columns id and name"),
        ("id,name\n1,a\n1,b", "line 3"),
        ("id,name\nx,a", "line 2"),
        ("id,name\n1", "line 2"),
    ],
)
def test_damaged_names_of_objects(tmp_path, text, message):
    (tmp_path / "objects.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"objects\.csv.*{message}"):
        read_object_names(tmp_path / "objects.csv")


@pytest.mark.parametrize("line", ["ADE_train_00000002", "ADE_train_00000001 street", "ADE_train_00000002 a b"])
def test_damaged_lists_of_scenes(tmp_path, line):
    (tmp_path / "s.txt").write_text(f"ADE_train_00000001 attic\n{line}\n")
    with pytest.raises(ValueError, match=r"s\.txt, line 2"):
        read_place_list(tmp_path / "s.txt")


# --- Folders.


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def marked(number, shape=(6, 8)):
    """An image and a label map that tell which they are."""
    return np.full((*shape, 3), 10 * number, np.uint8), np.full(shape, number, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three attics and three beaches, numbered from 1, and an image of no scene."""
    for number in range(1, 7):
        scene = "attic" if number < 4 else "beach"
        image, label_map = marked(number)
        save(tmp_path / "images" / scene / f"{number}.jpg", image)
        save(tmp_path / "labels" / scene / f"{number}.png", label_map)
    save(tmp_path / "images" / "stray.jpg", image)
    (tmp_path / "objects.csv").write_text("id,name\n1,chest\n")
    return tmp_path


def test_a_folder_of_scenes(folder):
    data = open_folder(folder, 10)
    assert data.places == ("attic", "beach") and data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.object_names == {1: "chest"} and len(data.source) == 6
    for index in range(6):
        image, label_map = marked(index + 1)
        example = data.source[index]
        np.testing.assert_array_equal(example["image"], image)
        assert example["label"] == data.labels[index]
        np.testing.assert_array_equal(data.label_map(index), label_map)


def test_label_maps_with_a_palette_and_of_16_bits_keep_their_ids(folder):
    with_palette = Image.fromarray(np.full((6, 8), 3, np.uint8), "P")
    with_palette.putpalette(list(range(255, -1, -1)) * 3)
    with_palette.save(folder / "labels/attic/1.png")
    save(folder / "labels/attic/2.png", np.full((6, 8), 2978, np.uint16))
    data = open_folder(folder, 10)
    assert np.unique(data.label_map(0)).tolist() == [3] and np.unique(data.label_map(1)).tolist() == [2978]


def test_label_maps_that_are_none(folder):
    save(folder / "labels/attic/1.png", np.zeros((8, 6), np.uint8))
    save(folder / "labels/attic/2.png", np.zeros((6, 8, 3), np.uint8))
    (folder / "labels/attic/3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = open_folder(folder, 10)
    with pytest.raises(ValueError, match=r"1\.png is of shape \(8, 6\), and its image \(6, 8\)"):
        data.label_map(0)
    with pytest.raises(ValueError, match=r"2\.png has shape \(6, 8, 3\).*expected one channel"):
        data.label_map(1)
    with pytest.raises(ValueError, match=r"3\.png is not a label map, or damaged"):
        data.label_map(2)


def test_a_missing_label_map_is_named(folder):
    (folder / "labels/beach/5.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"images/beach/5\.jpg: .*labels/beach/5\.png is missing"):
        open_folder(folder, 10)


@pytest.mark.parametrize("opener", [open_folder, open_ade])
def test_a_folder_that_is_not_laid_out_so_is_shown_the_tree(tmp_path, opener):
    with pytest.raises(FileNotFoundError, match="Expected:") as caught:
        opener(tmp_path / "none", 10)
    assert "    images/\n" in str(caught.value)


ADE = {
    **{f"ADE_train_{number:08}": ("street", "attic", "attic", "misc")[number % 4] for number in range(1, 11)},
    **{f"ADE_val_{number:08}": ("attic", "street")[number % 2] for number in range(1, 4)},
}


@pytest.fixture(scope="module")
def scene_list(tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "sceneCategories.txt"
    path.write_text("".join(f"{name} {scene}\n" for name, scene in ADE.items()))
    return path


def test_scene_parse150_as_it_is_distributed(tmp_path, scene_list):
    for number, name in enumerate(ADE, 1):
        place = "training" if "train" in name else "validation"
        image, label_map = marked(number)
        save(tmp_path / "images" / place / f"{name}.jpg", image)
        save(tmp_path / "annotations" / place / f"{name}.png", label_map)
    (tmp_path / "sceneCategories.txt").write_text(scene_list.read_text())
    (tmp_path / "objectInfo150.txt").write_text(OBJECT_INFO)
    data = open_ade(tmp_path, 2)
    assert data.places == ("attic", "street") and data.object_names[1] == "wall"
    check_ade(data, lambda name: list(ADE).index(name) + 1)
    (tmp_path / "images/validation/ADE_val_00000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"ADE_val_00000002\.jpg is missing"):
        open_ade(tmp_path, 2)


def check_ade(data, number_of):
    """Checks that all images of attics and streets are there, each with its own scene and its own label map."""
    seen = set()
    for index in range(len(data.source)):
        example = data.source[index]
        name = Path(example["filename"]).stem
        seen.add(name)
        assert data.places[data.labels[index]] == data.places[example["label"]] == ADE[name]
        assert np.unique(data.label_map(index)).tolist() == [number_of(name)]
        assert np.abs(example["image"].astype(int) - 10 * number_of(name)).max() <= 2
    assert seen == {name for name, scene in ADE.items() if scene != "misc"}


# --- tfds' scene_parse150.


class SceneParse150(tfds.core.GeneratorBasedBuilder):
    """tfds' builder without TensorFlow: the same name, features, splits and keys."""

    name = "scene_parse150"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {key: tfds.features.Image(encoding_format=kind) for key, kind in KINDS.items()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("ADE_train_"), "test": self._generate_examples("ADE_val_")}

    def _generate_examples(self, prefix):
        for number, name in enumerate(ADE, 1):
            if name.startswith(prefix):
                yield (
                    name,
                    {"image": encoded(marked(number)[0], "JPEG"), "annotation": encoded(instances(number), "PNG")},
                )


KINDS = {"image": "jpeg", "annotation": "png"}


def encoded(pixels, kind):
    """A file; of arrays tfds makes one with TensorFlow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    file.seek(0)
    return file


def instances(number):
    """The object in red, an instance's number in green."""
    return np.stack([marked(number)[1], np.full((6, 8), 99, np.uint8), np.zeros((6, 8), np.uint8)], axis=-1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tfds")
    SceneParse150(data_dir=data_dir).download_and_prepare(file_format="array_record")
    return data_dir


def test_images_of_tfds_are_told_by_the_order_of_their_names(prepared, scene_list, tmp_path):
    (tmp_path / "instanceInfo100_train.txt").write_text(INSTANCE_INFO)
    data = open_scene_parse150(prepared, scene_list, tmp_path / "instanceInfo100_train.txt", 2)
    assert data.object_names == {1: "bed"}
    check_ade(data, lambda name: list(ADE).index(name) + 1)
    assert open_scene_parse150(prepared, scene_list, None, 2).object_names == {}


def test_a_list_of_another_data_set_is_refused(prepared, scene_list, tmp_path):
    (tmp_path / "short.txt").write_text("\n".join(scene_list.read_text().splitlines()[1:]))
    with pytest.raises(ValueError, match=r"short\.txt lists 9 images ADE_train_.*has 10 in its split 'train'"):
        open_scene_parse150(prepared, tmp_path / "short.txt", None, 2)


@pytest.mark.parity
@pytest.mark.skipif(not PREPARE.exists(), reason=f"no {PREPARE}; `make test-parity` makes it")
def test_the_real_builder_stores_images_in_that_order(tmp_path, scene_list):
    for number, name in enumerate(ADE, 1):
        place = "training" if "train" in name else "validation"
        save(tmp_path / "images" / "images" / place / f"{name}.jpg", marked(number)[0])
        save(tmp_path / "annotations" / "annotations_instance" / place / f"{name}.png", instances(number))
    code = (
        "from tensorflow_datasets.datasets.scene_parse150.scene_parse150_dataset_builder import Builder\n"
        "from tensorflow_datasets.core.download import DownloadManager\n"
        f"folders = {{key: f'{tmp_path}/{{key}}' for key in ('images', 'annotations')}}\n"
        "DownloadManager.download_and_extract = lambda self, urls: folders\n"
        f"Builder(data_dir='{tmp_path}/tfds').download_and_prepare(file_format='array_record')\n"
    )
    subprocess.run([PREPARE, "-c", code], check=True, capture_output=True)
    assert prepared_builder("scene_parse150", data_dir=tmp_path / "tfds").info.splits["train"].num_examples == 10
    data = open_scene_parse150(tmp_path / "tfds", scene_list, None, 2)
    check_ade(data, lambda name: list(ADE).index(name) + 1)


# --- The experiment.


def rooms(folder):
    """Red and blue rooms: a black floor, a bright thing in the middle, and in one room of each kind a vase on it.

    One red room can't be read.
    """
    for scene, channel in (("red_room", 0), ("blue_room", 2)):
        for number in range(5):
            label_map = np.full((32, 32), 1, np.uint8)
            label_map[8:20, 6:22] = 2 + (channel == 2)
            label_map[10:14, 10:14] = 4 if number == 0 else label_map[10, 10]
            save(
                folder / "images" / scene / f"{number}.jpg",
                painted((channel, 200 + number, 8, 6, 20, 22), size=(32, 32)),
            )
            save(folder / "labels" / scene / f"{number}.png", label_map)
    (folder / "images/red_room/4.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "objects.csv").write_text("id,name\n1,floor\n2,lamp\n3,pool\n4,vase\n")


def test_the_experiment(tmp_path, monkeypatch):
    rooms(tmp_path / "data")
    monkeypatch.setattr(camjax, "load_model", lambda *_, **__: Identity())
    options = Options(folder=tmp_path / "data", out=tmp_path / "run", batch_size=4)
    console = Console(file=io.StringIO(), width=200)
    data = scene_objects.open_data(options)
    found = scene_objects.run(options, data, console)

    assert found.keys() == {"blue_room", "red_room"}
    red = found["red_room"]
    assert (red["images"], red["without_region"]) == (4, 0)
    listed = {
        key: [(entry["object"], entry["frequency"], entry["share"]) for entry in red[key]]
        for key in red
        if key in ("frequent", "informative")
    }
    # The floor is everywhere, and not what tells the rooms apart.
    assert listed["frequent"] == [("floor", 1, 0), ("lamp", 1, 1), ("vase", 0.25, 1)]
    assert listed["informative"] == [("lamp", 1, 1), ("vase", 0.25, 1)]
    assert [entry["object"] for entry in found["blue_room"]["informative"]] == ["pool", "vase"]

    said = console.file.getvalue()
    assert "1 images can't be read and are left out" in said and "red_room/4.jpg" in said
    assert json.loads((tmp_path / "run/results.json").read_text())["objects"]["results"] == found
    assert cv2.imread(str(tmp_path / "run/scene_objects.png")) is not None

    # The same command computes nothing again, and other rules do not pass for these.
    monkeypatch.setattr(scene_objects, "count_objects", lambda *_: pytest.fail("a second pass"))
    assert scene_objects.run(options, data, console) == found
    with pytest.raises(ValueError, match=r"threshold was 0\.2, is 0\.5"):
        scene_objects.run(
            Options(folder=tmp_path / "data", out=tmp_path / "run", batch_size=4, threshold=0.5), data, console
        )


def test_too_few_images_that_can_be_read(tmp_path, monkeypatch):
    rooms(tmp_path / "data")
    for number in (0, 1):
        (tmp_path / f"data/images/red_room/{number}.jpg").write_bytes(b"")
    monkeypatch.setattr(camjax, "load_model", lambda *_, **__: Identity())
    options = Options(folder=tmp_path / "data", out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"too few images that can be read of red_room \(2\)"):
        scene_objects.run(options, scene_objects.open_data(options), Console(file=io.StringIO()))


# --- The sample.


def test_labels_of_a_part_are_those_under_its_pixels():
    labels = np.random.default_rng(0).integers(0, 5, (9, 13))
    part, size = (0.1, 0.2, 0.8, 0.9), (20, 31)
    found = sample_labels.part_of_labels(labels, part, size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = (0.1 + (row + 0.5) / size[0] * 0.7) * 9
            x = (0.2 + (column + 0.5) / size[1] * 0.7) * 13
            assert found[row, column] == labels[int(y), int(x)]


def test_views_show_what_their_label_maps_say(monkeypatch):
    """A photograph whose gray levels are its label map."""
    levels = {name: 20 * sample_labels.label_map(name) for name in ("coffee", "rocket")}
    scenes = {name: sample_labels._PLACES[name] for name in levels}
    monkeypatch.setattr(sample_labels, "_PLACES", scenes)
    monkeypatch.setattr(sample_labels, "PLACES", tuple(scene for scene, _ in scenes.values()))
    monkeypatch.setattr(sample_labels, "label_map", lambda name: levels[name] // 20)
    monkeypatch.setattr(sample_labels, "photograph", lambda name: np.repeat(levels[name][..., None], 3, axis=-1))
    views = sample_labels.PlaceViews(4)
    assert len(views) == 8 and views.labels.tolist() == [0] * 4 + [1] * 4
    for index in range(8):
        gray, label_map = views[index]["image"][..., 0], views.label_map(index)
        assert gray.shape == label_map.shape and min(gray.shape) == 256
        # Outlines are blurred in the one and not in the other.
        assert (np.abs(gray.astype(int) - 20 * label_map.astype(int)) <= 10).mean() > 0.97


@pytest.mark.long
def test_the_sample(tmp_path):
    scene_objects.main(Options(sample=True, out=tmp_path))
    results = json.loads((tmp_path / "results.json").read_text())["objects"]["results"]
    assert set(results) == set(sample_labels.PLACES)
    assert results["garage"]["informative"][0]["object"] == "motorcycle"
    assert (tmp_path / "scene_objects.png").exists()
