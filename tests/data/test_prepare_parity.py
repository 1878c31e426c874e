"""tfds' own builders over miniature archives, run by `camjax prepare` where TensorFlow is, and read here without it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.cli.main import main
from camjax.data.annotated import open_annotated
from camjax.data.builders import prepared_builder
from camjax.data.sources import open_source
from camjax.training import Recipe, fit
from tests.data import miniatures

PREPARE = Path(__file__).parents[2] / ".venv-prepare" / "bin" / "camjax"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not PREPARE.exists(), reason=f"no {PREPARE}; `make test-parity` makes it"),
]


def prepare(name: str, data_dir: Path, archives: Path) -> str:
    """What the command prints."""
    words = [PREPARE, "prepare", name, "--data-dir", data_dir, "--archives", archives, "--unverified"]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def difference(image: np.ndarray, expected: np.ndarray) -> float:
    """The mean absolute difference of two images of the same size, in gray levels."""
    return float(np.abs(image.astype(int) - expected.astype(int)).mean())


def three_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def birds():
    return miniatures.birds()


@pytest.fixture(scope="module")
def photos():
    return miniatures.photos()


@pytest.fixture(scope="module")
def archives(tmp_path_factory, birds, photos):
    folder = tmp_path_factory.mktemp("archives")
    miniatures.write_birds(folder, birds)
    miniatures.write_photos(folder, photos)
    return folder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def said(data_dir, archives):
    """What `camjax prepare` says about both data sets."""
    return {name: prepare(name, data_dir, archives) for name in ("caltech_birds2011", "imagenet2012")}


def test_what_the_command_says(said, data_dir):
    lines = [line.split() for line in said["caltech_birds2011"].splitlines()]
    assert lines[0] == ["Prepared", "caltech_birds2011", "in", str(data_dir / "caltech_birds2011" / "0.2.0")]
    assert lines[1] == ["train", "5", "examples", "(published:", "5,994)"]
    assert lines[2] == ["test", "4", "examples", "(published:", "5,794)"]
    assert f"camjax evaluate --dataset imagenet2012 --split validation --data-dir {data_dir}" in said["imagenet2012"]
    left = {path.name for path in data_dir.iterdir()}
    assert left == {"caltech_birds2011", "imagenet2012", "downloads"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_birds_are_what_the_archives_hold(said, data_dir, birds, split):
    source = open_source("caltech_birds2011", split, data_dir=data_dir)
    expected = {f"CUB_200_2011/images/{bird.name}": bird for bird in birds if bird.train == (split == "train")}
    examples = {example["filename"]: example for example in source}
    assert examples.keys() == expected.keys() and len(source) == len(expected)
    for name, bird in expected.items():
        example = examples[name]
        x, y, width, height = bird.box
        h, w = bird.pixels.shape[:2]
        assert example["label"] == bird.label
        np.testing.assert_allclose(example["bbox"], [y / h, x / w, (y + height) / h, (x + width) / w], rtol=1e-6)
        assert difference(example["image"], three_channels(bird.pixels)) < 3


def test_masks_are_the_votes(said, data_dir, birds):
    stored = prepared_builder("caltech_birds2011", data_dir=data_dir).as_data_source(split="train+test")
    masks = {example["image/filename"].decode(): example["segmentation_mask"][..., 0] for example in stored}
    for bird in birds:
        np.testing.assert_array_equal(masks[f"CUB_200_2011/images/{bird.name}"], bird.votes)
        assert set(np.unique(bird.votes)) == set(miniatures.VOTES)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_photos_are_what_the_archives_hold(said, data_dir, photos, split):
    source = open_source("imagenet2012", split, data_dir=data_dir)
    examples = {example["filename"]: example for example in source}
    expected = {photo.name: photo for photo in photos[split]}
    assert examples.keys() == expected.keys() and len(source) == len(expected)
    for name, photo in expected.items():
        # tfds names classes by synset, in alphabetical order.
        assert source.info.class_names[examples[name]["label"]] == photo.synset
        pixels = photo.pixels if photo.mode != "L" else cv2.cvtColor(photo.pixels, cv2.COLOR_RGB2GRAY)
        assert difference(examples[name]["image"], three_channels(pixels)) < 3


def test_prepared_again_is_left_as_it_is(said, data_dir, archives):
    directory = data_dir / "imagenet2012" / "5.1.0"
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert prepare("imagenet2012", data_dir, archives).startswith(f"imagenet2012 is prepared in {directory}")
    assert {path.name: path.stat().st_mtime_ns for path in directory.iterdir()} == before


def test_other_archives_of_the_same_name_are_not_taken_for_those_before(said, data_dir, birds, tmp_path):
    others = [dataclasses.replace(bird, train=not bird.train) for bird in birds]
    miniatures.write_birds(tmp_path, others)
    aside = data_dir / "caltech_birds2011"
    aside.rename(tmp_path / "before")
    try:
        prepare("caltech_birds2011", data_dir, tmp_path)
        names = {example["filename"] for example in open_source("caltech_birds2011", "train", data_dir=data_dir)}
        assert names == {f"CUB_200_2011/images/{bird.name}" for bird in birds if not bird.train}
    finally:
        aside.rename(tmp_path / "others")
        (tmp_path / "before").rename(aside)


def test_reading_needs_no_tensorflow(said, data_dir):
    code = (
        "import sys\n"
        "from camjax.data.sources import open_source\n"
        f"source = open_source('imagenet2012', 'validation', data_dir={str(data_dir)!r})\n"
        "assert len([example['image'] for example in source]) == 4\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def evaluated(words, out) -> dict:
    assert main([str(word) for word in ("evaluate", *words, "--out", out)]) == 0
    return json.loads((out / "results.json").read_text())


def test_photos_are_evaluated_with_the_boxes_of_the_published_archive(said, data_dir, archives, photos, tmp_path):
    """The numbers of the command, and what the public functions say of the same four photographs one by one."""
    blacklist = tmp_path / "blacklist.txt"
    blacklist.write_text("2\n")
    data = ["--dataset", "imagenet2012", "--data-dir", data_dir, "--boxes", archives / "ILSVRC2012_bbox_val_v3.tgz"]
    found = evaluated([*data, "--blacklist", blacklist, "--metrics", "ilsvrc"], tmp_path / "e")
    numbers = found["results"]["cam"]["ilsvrc"]
    source = open_annotated("imagenet2012", "validation", data_dir=data_dir, boxes=data[-1])
    localize = camjax.make_localize_fn(camjax.load_model("efficientnet_lite0"), top_k=5)
    errors, known = [], []
    for i in range(len(source)):
        annotation = source.annotation(i)
        if annotation.filename.endswith("00000002.JPEG"):
            continue
        image = camjax.data.images.resize_image(source[i]["image"], 224)[None]
        out = localize(image)
        overlaps = np.asarray(camjax.box_iou(out.boxes[0][:, None], annotation.boxes)).max(1)
        right = (np.asarray(out.class_ids[0]) == annotation.label) & (overlaps >= 0.5)
        errors.append(not right.any())
        of_label = localize(image, np.array([annotation.label]))
        known.append(np.asarray(camjax.box_iou(of_label.boxes[0], annotation.boxes)).max() >= 0.5)
    assert found["images"]["blacklisted"] == 1 and sum(found["images"].values()) == len(source) == 4
    assert numbers["top5_localization_error"] == pytest.approx(100 * np.mean(errors))
    assert numbers["gt_known_localization"] == pytest.approx(100 * np.mean(known))


def test_birds_are_evaluated_with_boxes_and_masks(said, data_dir, tmp_path):
    train = open_source("caltech_birds2011", "train", data_dir=data_dir)
    model = camjax.create_model("small_gap", 200, rngs=nnx.Rngs(0))
    fit(model, train, Recipe(steps=1, batch_size=4, learning_rate=1e-3), run_dir=tmp_path / "run", progress=False)
    words = ["--dataset", "caltech_birds2011", "--split", "test", "--data-dir", data_dir, "--model", tmp_path / "run"]
    words += ["--metrics", "ilsvrc", "maxboxaccv2", "pxap", "pointing", "--method", "cam", "center"]
    found = evaluated(words, tmp_path / "e")
    assert found["images"]["scored"] == found["num_images"] == 4
    for method in ("cam", "center"):
        assert 0 < found["results"][method]["pxap"]["PxAP"] <= 100
