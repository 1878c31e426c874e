"""It learns: from archives in CUB's layout, by class labels alone, to a network that says what and where.

tfds' own builder prepares the images, `fit` trains on them, and `camjax evaluate` says how well that went.
"""

import functools
import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.cli.main import main
from camjax.data.annotated import open_annotated
from camjax.data.sources import open_source
from camjax.data.transforms import compose, random_horizontal_flip, random_translation
from camjax.training import Recipe, fit
from tests.data import cutouts, miniatures

PREPARE = Path(__file__).parents[2] / ".venv-prepare" / "bin" / "camjax"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not PREPARE.exists(), reason=f"no {PREPARE}; `make test-parity` makes it"),
]

# What is asked for, in points of percent: about half of the least that seeds 0 to 4 had, which is behind each.
ABOVE_CHANCE = 25  # top-1 accuracy, above that of guessing: 49
ABOVE_CENTER_BOX = 20  # MaxBoxAcc, above that of the centered box, each at its own best threshold: 42
ABOVE_CENTER_BOX_AT_20 = 15  # GT-known localization, above that of the centered box, at the paper's threshold: 32

RECIPE = Recipe(steps=240, batch_size=16, learning_rate=0.1, warmup_steps=24, weight_decay=1e-3)
AUGMENT = compose(functools.partial(random_translation, max_shift=8), random_horizontal_flip)


class LabelsAlone:
    """The images and labels of a source, without boxes, masks and names."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        example = self.source[index]
        return {"image": example["image"], "label": example["label"]}


def trained(data_dir: Path, recipe: Recipe = RECIPE, **options) -> camjax.models.CamModel:
    source = open_source("caltech_birds2011", "train", data_dir=data_dir)
    model = camjax.create_model("small_gap", source.info.num_classes, rngs=nnx.Rngs(recipe.seed))
    return fit(model, LabelsAlone(source), recipe, augment=AUGMENT, progress=False, **options)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    archives, directory = (tmp_path_factory.mktemp(name) for name in ("archives", "tfds"))
    miniatures.write_birds(archives, cutouts.composites(num_train=400, num_test=160))
    words = [PREPARE, "prepare", "caltech_birds2011", "--data-dir", directory, "--archives", archives, "--unverified"]
    run = subprocess.run(words, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return directory


@pytest.fixture(scope="module")
def results(tmp_path_factory, data_dir):
    """Method -> metric -> numbers in percent, as the command writes them."""
    directory = tmp_path_factory.mktemp("learns")
    trained(data_dir, run_dir=directory / "run")
    words = ["--dataset", "caltech_birds2011", "--split", "test", "--data-dir", data_dir, "--model", directory / "run"]
    words += ["--method", "cam", "center", "--metrics", "ilsvrc", "maxboxacc", "--out", directory / "evaluation"]
    assert main(["evaluate", *map(str, words)]) == 0
    found = json.loads((directory / "evaluation" / "results.json").read_text())
    assert found["images"]["scored"] == found["num_images"] == 160
    return found["results"]


def best_box_in_the_middle(data_dir: Path) -> float:
    """How many of the test images one centered box of any height and width gets right, in percent."""
    source = open_annotated("caltech_birds2011", "test", data_dir=data_dir)
    true_boxes = np.concatenate([source.annotation(i).boxes for i in range(len(source))])
    sides = np.linspace(0.05, 1, 39)
    height, width = (side.ravel() for side in np.meshgrid(sides, sides))
    boxes = np.stack([0.5 - height / 2, 0.5 - width / 2, 0.5 + height / 2, 0.5 + width / 2], axis=-1)
    return 100 * float((np.asarray(camjax.box_iou(boxes[:, None], true_boxes)) >= 0.5).mean(1).max())


def test_classes_are_learned(results):
    chance = 100 / len(cutouts.CLASSES)
    assert 100 - results["cam"]["ilsvrc"]["top1_classification_error"] >= chance + ABOVE_CHANCE


def test_places_are_learned(results, data_dir):
    found = results["cam"]["maxboxacc"]["MaxBoxAcc"]
    assert found >= results["center"]["maxboxacc"]["MaxBoxAcc"] + ABOVE_CENTER_BOX
    assert found >= best_box_in_the_middle(data_dir) + ABOVE_CENTER_BOX


def test_places_are_learned_at_the_threshold_of_the_paper(results):
    cam, center = (results[method]["ilsvrc"]["gt_known_localization"] for method in ("cam", "center"))
    assert cam >= center + ABOVE_CENTER_BOX_AT_20


def test_a_seed_tells_all_of_a_run(data_dir):
    """Images, their augmentation and the steps: the same seed gives the same network to the last bit."""
    few = Recipe(steps=3, batch_size=16, learning_rate=0.1)
    first, second = (jax.tree.leaves(nnx.state(trained(data_dir, few), (nnx.Param, nnx.BatchStat))) for _ in range(2))
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
