"""What a finished run leaves to read, and what a run would be before it is one."""

import functools
import json
import subprocess

import cv2
import jax
import pytest
from flax import nnx
from tiny_run import Colors, Net, tiny_recipe

from camjax.checkpoints import checkpoint_bytes
from camjax.data.transforms import random_translation
from camjax.runs import read_run
from camjax.training import describe_plan, fit
from camjax.training.logs import metric_curve, read_metrics
from camjax.training.run_card import count_parameters, git_revision
from camjax.training.step import TrainState
from camjax.weights.fingerprint import weights_sha256


@pytest.fixture(autouse=True)
def curves():
    """The real ones, in place of the fixture of all tests."""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    options = {"run_dir": directory, "eval_source": Colors(), "eval_every": 5, "log_every": 5, "progress": False}
    augment = functools.partial(random_translation, max_shift=1)
    fit(Net(), Colors(), tiny_recipe(10), augment=augment, **options)
    return directory


def test_the_card(run_dir):
    card = json.loads((run_dir / "run_card.json").read_text())
    lines = read_metrics(run_dir)
    assert card["recipe"]["learning_rate"] == 0.05
    assert card["model"]["parameters"] == count_parameters(Net())
    assert card["data"] == card["evaluation"] == {"name": None, "split": None, "examples": 40}
    assert card["starting_weights"]["sha256"] == weights_sha256(Net())
    assert card["starting_weights"] == read_run(run_dir)["starting_weights"]
    assert card["results"]["train/loss"] == metric_curve(lines, "train/loss")[1][-1]
    accuracies = metric_curve(lines, "eval/accuracy")[1]
    assert card["results"]["best eval/accuracy"] == max(accuracies)
    assert card["hardware"]["platform"] == jax.default_backend()
    assert card["versions"]["jax"] == jax.__version__
    assert card["wall_time"]["from_step"] == 0 and card["wall_time"]["to_step"] == 10
    text = (run_dir / "run_card.md").read_text()
    assert "| learning_rate | 0.05 |" in text and "(curves.png)" in text
    assert "Augmentation: functools.partial(random_translation, max_shift=1)" in text


def test_the_curves(run_dir):
    lines = read_metrics(run_dir)
    assert metric_curve(lines, "train/loss")[0] == metric_curve(lines, "eval/loss")[0] == [5, 10]
    image = cv2.imread(str(run_dir / "curves.png"))
    assert image.shape[1] > 2 * image.shape[0] > 400 and image.std() > 10


def test_git_revisions(tmp_path):
    assert git_revision(tmp_path) is None

    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    revision = git("rev-parse", "HEAD").stdout.strip()
    assert git_revision(tmp_path) == revision
    (tmp_path / "file").write_text("")
    assert git_revision(tmp_path) == f"{revision}+changes"


def test_a_plan():
    model, recipe = Net(), tiny_recipe(10, ema_decay=0.9)
    plan = describe_plan(model, recipe, Colors())
    # Convolution 3 x 3 x 3 x 8, BatchNorm's scale and bias of 8, head of 8 x 3 and 3.
    assert plan.parameters == 216 + 16 + 24 + 3
    assert (plan.steps, plan.epochs, plan.examples) == (10, 2.0, 40)
    assert plan.batch_bytes == 8 * (8 * 8 * 3 + 4)
    assert plan.state_bytes == checkpoint_bytes(TrainState.create(model, recipe))
    assert plan.working_bytes > 8 * 4 * 4 * 8 * 4  # the last feature map of 8 images, and more
    assert plan.device_bytes == plan.state_bytes + 2 * plan.batch_bytes + plan.working_bytes
    assert "10 steps of 8 images: 2.00 epochs of 40 examples" in str(plan) and "259 parameters" in str(plan)


def test_a_plan_grows_with_its_batch():
    small, large = (describe_plan(Net(), tiny_recipe(10, batch_size=size), Colors()) for size in (8, 64))
    assert large.working_bytes > 4 * small.working_bytes
    assert large.state_bytes == small.state_bytes


def test_a_plan_of_what_cannot_be():
    with pytest.raises(ValueError, match="'nowhere'"):
        describe_plan(Net(), tiny_recipe(10, frozen=("nowhere",)), Colors())
    assert count_parameters(nnx.eval_shape(Net)) == 259
