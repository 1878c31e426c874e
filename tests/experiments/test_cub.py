"""The experiment on birds: its parts on cases told by hand, and all of it on a few images in memory."""

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import scipy.integrate
from conftest import random_network
from flax import nnx

import camjax
import camjax.features
from camjax.data.annotation import AnnotatedSource, Annotation
from camjax.data.sources import SourceInfo
from camjax.features.svm import PENALTIES
from camjax.terminal import Console
from camjax.training.published import tscam, wsol
from camjax.weights.camjax_file import write_camjax_file
from experiments.cub import __main__ as cub
from experiments.cub import finetuning as cub_finetuning
from experiments.cub import table4 as cub_table4
from experiments.cub.finetuning import augmentation, finetuning_recipe, is_published, starting_model
from tests.experiments.colors import TINY, Colors, Identity, painted

VIT = "tests.tiny_vit:tiny_vit"
QUIET = Console(file=io.StringIO())
RED, GREEN = 0, 1


# --- Boxes of an identity network, whose maps are the colors.


def test_training_crops_follow_the_true_class_and_test_crops_the_predicted_one():
    # More green than red: the prediction is green. The boxes are drawn around pixels of one value each.
    both = painted((RED, 200, 0, 0, 6, 8), (GREEN, 200, 8, 4, 16, 16))
    black = painted()
    around_red, around_green = [0, 0, 6 / 16, 8 / 16], [8 / 16, 4 / 16, 1, 1]
    source = Colors([both, both, black], [RED, GREEN, RED], [around_red, around_green, around_red])
    birds = cub_table4.read_birds(source)
    assert birds.labels.tolist() == [RED, GREEN, RED]
    model = camjax.features.with_linear_classifier(Identity(), np.eye(3), np.zeros(3))
    numbers, boxes = cub_table4._localize(model, birds, birds, 0.2, 2, QUIET)
    whole = [0, 0, 1, 1]
    np.testing.assert_allclose(boxes["train"], [around_red, around_green, whole])
    np.testing.assert_allclose(boxes["test"], [around_green, around_green, whole])
    chance = numbers.pop("chance")
    # In the black image nothing is above 20 % of nothing, and the whole image is no box of it.
    assert numbers == {
        "localized": pytest.approx(100 / 3),
        "gt_known": pytest.approx(200 / 3),
        "train_gt_known": pytest.approx(200 / 3),
        "without_region": 1,
        "train_without_region": 1,
    }
    assert 0 < chance < 20


def test_chance():
    """Two uniform points are s apart with density 2 (1 - s): the share of boxes of at least half the image's area."""
    expected = scipy.integrate.quad(lambda s: 2 * (1 - s) * (1 - 0.5 / s) ** 2, 0.5, 1)[0]
    draws = 200_000
    found = cub_table4.chance(np.array([[0, 0, 1, 1]], np.float32), draws=draws) / 100
    assert abs(found - expected) < 4 * np.sqrt(expected / draws)


def test_images_without_exactly_one_box_are_an_error():
    source = Colors([painted()] * 2, [0, 1], [[0, 0, 1, 1], [[0, 0, 1, 1], [0, 0, 0.5, 0.5]]])
    with pytest.raises(ValueError, match=r"'1.png' .* has 2 boxes"):
        cub_table4.read_birds(source)


# --- Settings of the fine-tuning.


def test_the_recipe_is_the_published_one():
    assert finetuning_recipe("vgg16_wsol", 5994) == wsol("vgg16_wsol", "cub")
    shorter = cub.Options(epochs=10).changed(finetuning_recipe("resnet50_wsol", 5994), 5994)
    # 50 epochs of 5994 images in batches of 32 are 9366 steps, of which the learning rate falls every 2810.
    assert (shorter.steps, shorter.decay_every, shorter.batch_size) == (1873, 562, 32)
    assert shorter.new_layers == ["stages.3", "head"] and shorter.learning_rate == 2.3222617e-4


def test_networks_without_published_settings_take_those_of_resnet():
    recipe = cub.Options(learning_rate=0.01).changed(finetuning_recipe("efficientnet_lite0", 5994), 5994)
    expected = dataclasses.replace(wsol("resnet50_wsol", "cub"), new_layers=("head",), learning_rate=0.01)
    assert recipe == expected
    assert is_published("inception_v3_wsol_28x28") and not is_published("resnet50")


@pytest.fixture
def vit_weights(tmp_path):
    """A file of a transformer's weights, with a class token and five classes."""
    path = tmp_path / "vit.safetensors"
    write_camjax_file(random_network(VIT), path, version="0")
    return str(path)


def test_a_transformer_is_trained_by_ts_cam_with_its_settings(vit_weights):
    model = starting_model(VIT, vit_weights, 4, ("tscam",))
    assert model.created_as["wsol"] == {"method": "tscam"} and model.head.num_classes == 4
    loaded = camjax.load_model(VIT, vit_weights)
    np.testing.assert_array_equal(model.blocks[1].project.kernel[...], loaded.blocks[1].project.kernel[...])
    assert finetuning_recipe("deit_small_patch16_224", 5994, model) == tscam("cub")
    # 60 epochs in batches of 128; the learning rate falls after 29 and 59.
    assert (tscam("cub").steps, tscam("cub").decay_first, tscam("cub").decay_every) == (2810, 1358, 1405)


def test_training_images_are_squashed_and_cropped_in_the_published_proportion():
    assert "resize_then_random_crop((256, 256), (224, 224))" in repr(augmentation((224, 224)))
    assert "resize_then_random_crop((73, 146), (64, 128))" in repr(augmentation((64, 128)))


# --- The whole of it.


class Shapes(AnnotatedSource):
    """Colored boxes on gray noise, in images of several sizes; a class is a color."""

    COLORS = ((220, 60, 40), (50, 200, 60), (60, 80, 230), (220, 200, 40))
    has_boxes = True

    def __init__(self, split, count):
        self.split, self.seed = split, {"train": 1, "test": 2}[split]
        names = ("cardinal", "parakeet", "bluebird", "goldfinch")
        self.info = SourceInfo("shapes", split, names, count, ("image", "label", "filename"))

    def __getitem__(self, index):
        self._check_index(index)
        annotation, rng = self.annotation(index), np.random.default_rng((self.seed, index))
        shape = (60 + 4 * (index % 4), 80 - 6 * (index % 3))
        image = rng.integers(60, 120, (*shape, 1)) + rng.integers(-10, 10, (*shape, 3))
        ymin, xmin, ymax, xmax = np.rint(annotation.boxes[0] * np.tile(shape, 2)).astype(int)
        part = rng.integers(-40, 40, (ymax - ymin, xmax - xmin, 1)) + self.COLORS[annotation.label]
        image[ymin:ymax, xmin:xmax] = np.clip(part, 0, 255)
        return {"image": image.astype(np.uint8), "label": annotation.label, "filename": annotation.filename}

    def annotation(self, index):
        rng = np.random.default_rng((self.seed, index, 0))
        extent = rng.uniform(0.45, 0.7, 2)
        low = rng.uniform(0, 1 - extent)
        box = np.concatenate([low, low + extent])[None].astype(np.float32)
        return Annotation(f"{index}.png", index % 4, box)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """One run of the experiment with a random network: its options, what it printed, and `results.json`."""
    folder = tmp_path_factory.mktemp("cub")
    weights = folder / "tiny.safetensors"
    write_camjax_file(camjax.create_model(TINY, rngs=nnx.Rngs(0)), weights, version="0")
    options = cub.Options(
        model=TINY, weights=str(weights), out=folder / "out", batch_size=16, epochs=4, learning_rate=0.05
    )
    console = Console(file=io.StringIO(), width=120)
    cub.run(options, Shapes("train", 96), Shapes("test", 32), console)
    stages = json.loads((options.out / "results.json").read_text())
    return options, console.file.getvalue(), stages


def test_it_recognizes_and_localizes(experiment):
    """Chance is 25 % of the classes and a few percent of the boxes; colors are easy, even for random features."""
    _, _, stages = experiment
    numbers = {name: stage["results"] for name, stage in stages.items()}
    for stage in ("full image", "CAM crop", "true crop"):
        assert numbers[stage]["accuracy"] > 60
        assert numbers[stage]["penalty"] in PENALTIES
    assert numbers["true crop"]["accuracy"] > numbers["full image"]["accuracy"] - 5
    found = numbers["CAM box"]
    assert found["chance"] < 10 and found["localized"] > 40
    assert found["gt_known"] >= found["localized"] - 10
    tuned = numbers["fine-tuning"]
    assert tuned["ilsvrc"]["top1_classification_error"] < 50
    assert 0 < tuned["maxboxaccv2"]["MaxBoxAccV2"] <= 100


@pytest.mark.long
def test_a_transformer_is_fine_tuned_with_ts_cam(experiment, vit_weights, tmp_path):
    """Table 4 is there already; tests/experiments/test_wsol_experiment.py trains by TS-CAM in the short tests."""
    before, _, _ = experiment
    shutil.copytree(before.out, tmp_path / "out", ignore=shutil.ignore_patterns("finetuning"))
    stages = json.loads((before.out / "results.json").read_text())
    del stages["fine-tuning"]
    (tmp_path / "out" / "results.json").write_text(json.dumps(stages))
    tuning = {"finetune_model": VIT, "finetune_weights": vit_weights, "finetune_method": ("tscam",)}
    options = dataclasses.replace(before, out=tmp_path / "out", **tuning)
    cub.run(options, Shapes("train", 96), Shapes("test", 32), QUIET)
    tuned = json.loads((options.out / "results.json").read_text())["fine-tuning"]["results"]
    assert 0 < tuned["maxboxaccv2"]["MaxBoxAccV2"] <= 100
    assert camjax.load_model(options.out / "finetuning").created_as["wsol"] == {"method": "tscam"}


def rows_of(printed):
    return {line.strip().split("  ")[0]: line.split() for line in printed.splitlines() if line.strip()}


WHOLE = {"dataset": "caltech_birds2011", "splits": ["train", "test"], "images": [5994, 5794]}


def test_it_prints_ours_and_the_papers_numbers_only_beside_all_images(experiment):
    _, printed, stages = experiment
    of_stages = {name: stage["results"] for name, stage in stages.items()}
    console = Console(file=io.StringIO(), width=120)
    for table in cub_table4.table4(of_stages, TINY, WHOLE):
        console.print(table)
    console.print(cub_finetuning.finetuning_table(of_stages["fine-tuning"], TINY, WHOLE))
    whole = console.file.getvalue()
    for text, compared in ((printed, False), (whole, True)):
        rows = rows_of(text)
        for name, paper, stage in cub_table4.ROWS[:3]:
            words = len(name.split())
            assert rows[name][words:] == [str(paper)] * compared + [f"{of_stages[stage]['accuracy']:.1f}"]
        ours = f"{of_stages['CAM box']['localized']:.1f}"
        assert rows["CAM box of the predicted class"][6:] == ["41.0"] * compared + [ours]
        v2 = of_stages["fine-tuning"]["maxboxaccv2"]["MaxBoxAccV2"]
        assert rows["MaxBoxAccV2"][1:] == ["63.0", "59.7"] * compared + [f"{v2:.1f}"]
        assert ("paper" in text.split()) == ("PANDA" in text) == compared
        assert "in steps of 0.001" in " ".join(text.split())
    assert "32 test images of shapes, 96 for training" in printed
    assert "5,794 test images of CUB-200-2011, 5,994 for training" in whole
    assert "No settings are published for" in printed
    of_tscam = Console(file=io.StringIO(), width=120)
    of_tscam.print(cub_finetuning.finetuning_table(of_stages["fine-tuning"], "ours", WHOLE, ("tscam",)))
    rows = rows_of(of_tscam.file.getvalue())
    assert rows["GT-known localization"][2] == "87.7" and rows["top-1 localization error"][3] == "28.7"


@pytest.mark.parametrize(
    "other",
    [{"images": [5994, 200]}, {"images": [300, 5794]}, {"splits": ["train", "test[:100]"]}, {"dataset": "scenes"}],
)
def test_a_part_is_not_the_whole(other):
    assert cub_table4.is_published_data({**WHOLE, "dataset": "caltech_birds2011:0.1.1"})
    assert not cub_table4.is_published_data({**WHOLE, **other})


def test_it_leaves_figures_and_boxes(experiment):
    options, _, _ = experiment
    for name in ("birds.png", "finetuning/evaluation/thresholds.png", "finetuning/evaluation/cases.png"):
        assert (options.out / name).stat().st_size > 10_000
    boxes = np.load(options.out / "boxes.npz")
    assert boxes["train"].shape == (96, 4) and boxes["test"].shape == (32, 4)
    assert (options.out / "finetuning" / "run.json").exists()


def test_the_crop_is_classified_from_the_pixels_in_the_cam_box(experiment):
    """With boxes from elsewhere in their place, the stage of the crops gives other features, and another answer."""
    options, _, stages = experiment
    path = options.out / "results.json"
    kept, boxes = path.read_text(), dict(np.load(options.out / "boxes.npz"))
    changed = json.loads(kept)
    del changed["CAM crop"]
    path.write_text(json.dumps(changed))
    corner = np.tile(np.float32([0, 0, 0.08, 0.08]), (96, 1))
    np.savez(options.out / "boxes.npz", train=corner, test=corner[:32])
    try:
        cub.run(options, Shapes("train", 96), Shapes("test", 32), QUIET)
        blind = json.loads(path.read_text())["CAM crop"]["results"]["accuracy"]
        assert blind < 55 < stages["CAM crop"]["results"]["accuracy"]
    finally:
        path.write_text(kept)
        np.savez(options.out / "boxes.npz", **boxes)


def test_the_same_command_computes_nothing_again(experiment, monkeypatch):
    options, printed, _ = experiment

    def fail(*_, **__):
        raise AssertionError("computed again")

    for name in ("gap_features", "map_images", "fit_linear_svm"):
        monkeypatch.setattr(cub_table4, name, fail)
    monkeypatch.setattr(cub, "finetune", fail)
    console = Console(file=io.StringIO(), width=120)
    cub.run(options, Shapes("train", 96), Shapes("test", 32), console)
    rows = [line for line in printed.splitlines() if "CAM box" in line and "images" not in line]
    assert rows and all(row in console.file.getvalue() for row in rows)
    with pytest.raises(ValueError, match=r"threshold was 0\.2, is 0\.3"):
        cub.run(dataclasses.replace(options, threshold=0.3), Shapes("train", 96), Shapes("test", 32), QUIET)
    with pytest.raises(ValueError, match="images was"):
        cub.run(options, Shapes("train", 60), Shapes("test", 32), QUIET)


def test_weights_that_are_missing_are_said_before_the_table(tmp_path):
    options = cub.Options(out=tmp_path, finetune_model="resnet50_wsol")
    with pytest.raises(ValueError, match="needs trained weights"):
        cub.run(options, Shapes("train", 8), Shapes("test", 4), QUIET)
    assert not (tmp_path / "results.json").exists()
