"""Training on ImageNet without ImageNet: recipes, views and wrong options by hand, and runs on made-up images."""

import dataclasses
import functools
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from flax import nnx
from PIL import Image

import camjax
from camjax.data.fake import FakeImages
from camjax.data.sources import SourceInfo
from camjax.training.logs import read_metrics
from camjax.training.published import IMAGENET_IMAGES, googlenet_cam_release, resnet50_from_scratch, wsol
from experiments.imagenet import data as imagenet_data
from experiments.imagenet import options as imagenet_options
from experiments.imagenet.__main__ import main, starting_model
from experiments.imagenet.data import CenterViews, open_data, training_view
from experiments.imagenet.options import Options, recipe_of
from tests.experiments.colors import TINY

FINE_TUNING = {"recipe": "googlenet_cam", "weights": "bvlc_googlenet.caffemodel"}


@pytest.fixture(scope="module", autouse=True)
def shapes():
    """The network of options is built once for all options that name it: they ask for no more than whether it can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet_options, "model_shapes", functools.cache(imagenet_options.model_shapes))
        yield


def test_the_recipes_are_the_published_ones():
    release = recipe_of(Options(**FINE_TUNING), IMAGENET_IMAGES)
    assert release == googlenet_cam_release()
    assert (release.steps, release.decay_every, release.batch_size) == (160_000, 40_000, 64)
    assert recipe_of(Options(recipe="resnet50"), IMAGENET_IMAGES) == resnet50_from_scratch(1024)
    options = Options(recipe="wsol", model="vgg16_wsol", weights="vgg16.pth")
    assert recipe_of(options, IMAGENET_IMAGES) == wsol("vgg16_wsol", "imagenet")


def test_another_batch_size_sees_the_same_images_at_a_rate_in_proportion():
    recipe = recipe_of(Options(**FINE_TUNING, batch_size=256), IMAGENET_IMAGES)
    assert (recipe.steps, recipe.decay_every, recipe.learning_rate) == (40_000, 10_000, 4e-3)
    large = recipe_of(Options(recipe="resnet50", batch_size=8192), IMAGENET_IMAGES)
    published = resnet50_from_scratch(8192)
    assert large.learning_rate == pytest.approx(published.learning_rate) == 3.2
    assert (large.steps, large.warmup_steps) == (published.steps, published.warmup_steps)
    assert recipe_of(Options(recipe="resnet50", batch_size=8192, learning_rate=1.0), IMAGENET_IMAGES).learning_rate == 1


def test_another_length_keeps_the_shares_of_warmup_and_decays():
    # 6,000 images: eight epochs, as of ImageNet, are 7.99 x 6000 / 64 = 749 steps; a decay after each quarter.
    recipe = recipe_of(Options(**FINE_TUNING), 6_000)
    assert (recipe.steps, recipe.decay_every) == (749, 187)
    recipe = recipe_of(Options(**FINE_TUNING, epochs=1), 6_400)
    assert (recipe.steps, recipe.decay_every) == (100, 25)
    recipe = recipe_of(Options(recipe="resnet50", steps=18), IMAGENET_IMAGES)
    assert (recipe.steps, recipe.warmup_steps) == (18, 1)


def test_new_layers_are_those_of_the_network():
    recipe = recipe_of(Options(recipe="googlenet_cam", model="vgg16_gap", weights="vgg16.pth", freeze="backbone"), 100)
    assert (recipe.new_layers, recipe.frozen) == (["cam_conv", "head"], ["backbone"])


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"recipe": "resnet50", "weights": "resnet50.pth"}, "starts from random weights"),
        ({"recipe": "googlenet_cam"}, "googlenet_gap, whose weights do not come with camjax: give --weights FILE"),
        ({"recipe": "wsol", "model": "googlenet_gap", "weights": "a.pth"}, "the benchmark has vgg16_wsol"),
        ({**FINE_TUNING, "weights": "random", "head": "kept"}, "--head kept with random weights"),
        ({"recipe": "resnet50", "freeze": "batchnorm"}, "--freeze batchnorm"),
        ({"recipe": "resnet50", "steps": 3, "epochs": 3}, "--steps and --epochs"),
        ({"recipe": "resnet50", "steps": 0}, "--steps 0: expected more than 0"),
        ({"recipe": "resnet50", "eval_every": 10, "checkpoint_every": 4}, "--eval-every 10 is no multiple"),
        ({"recipe": "resnet50", "fake_data": "jpeg"}, "add --steps 200"),
        ({"recipe": "resnet50", "fake_data": "jpeg", "steps": 9, "dataset": "scenes"}, "--fake-data with"),
        ({"recipe": "wsol", "weights": "a.pth", "dataset": "caltech_birds2011"}, "experiments.cub"),
        (
            {"recipe": "resnet50", "data_dir": Path("gs://bucket/tfds")},
            "--data-dir gs://bucket/tfds: expected a folder",
        ),
        ({"recipe": "resnet50", "out": Path("hf://bucket/run")}, "is no address of a bucket"),
        ({"recipe": "resnet50", "model": "resnet51"}, "Did you mean resnet50"),
        ({**FINE_TUNING, "model": "vgg16", "pool": "gmp"}, "fully connected"),
        ({"recipe": "resnet50", "batch_size": 100, "accumulate": 3}, "a divisor of batch_size=100"),
        ({"recipe": "resnet50", "learning_rate": -1.0}, "learning_rate=-1.0: expected a positive number"),
    ],
)
def test_wrong_combinations_are_said(wrong, said):
    with pytest.raises(ValueError, match=said):
        Options(**wrong)


def test_intervals():
    options = Options(recipe="resnet50")
    assert options.intervals(20_018) == (1_000, 20_000)  # ImageNet in batches of 64
    assert options.intervals(1_251) == (1_251, 1_251)
    assert options.intervals(0) == (1, 1)
    assert dataclasses.replace(options, checkpoint_every=500).intervals(1_251) == (500, 1_500)
    assert dataclasses.replace(options, eval_every=300).intervals(1_251) == (300, 300)


def test_evaluation_sees_the_middle_of_an_image():
    image = FakeImages(1, image_size=(512, 1024))[0]["image"]

    class Source(list):
        info = None

    source = Source([{"image": image, "label": 3, "bbox": 0}])
    for squash, resized, left in ((True, (256, 256), 16), (False, (512, 256), 144)):
        oracle = np.array(Image.fromarray(image).resize(resized, Image.Resampling.BILINEAR))
        oracle = oracle[16:240, left : left + 224].astype(int)
        views = CenterViews(source, (224, 224), squash=squash)
        assert len(views) == 1 and views[0].keys() == {"image", "label"}
        assert np.abs(views[0]["image"] - oracle).max() <= 1


def test_training_views():
    assert "resize_then_random_crop((256, 256), (224, 224))" in repr(training_view(Options(**FINE_TUNING), (224, 224)))
    assert "((256, 256), (227, 227))" in repr(training_view(Options(**FINE_TUNING), (227, 227)))
    assert "((342, 342), (299, 299))" in repr(training_view(Options(**FINE_TUNING), (299, 299)))
    assert "random_resized_crop((224, 224)" in repr(training_view(Options(recipe="resnet50"), (224, 224)))


def test_fake_data():
    options = Options(recipe="resnet50", fake_data="images", steps=1)
    source, validation = open_data(options, (224, 224))
    assert source[0]["image"].shape == (224, 224, 3) and validation is None and len(source) == IMAGENET_IMAGES
    assert training_view(options, (224, 224)) is None
    options = dataclasses.replace(options, fake_data="jpeg")
    assert open_data(options, (224, 224))[0][0]["image"].shape == (375, 500, 3)
    assert training_view(options, (224, 224)) is not None


def test_imagenets_classes_have_names_to_read():
    info = SourceInfo("imagenet2012", "train", tuple(f"n{i:08}" for i in range(1000)), 1, ("image", "label"))
    model = starting_model(Options(recipe="resnet50", model=TINY), info)
    assert model.class_names[285] == "Egyptian cat" and model.dtype == "bfloat16"


class Fakes(FakeImages):
    """Made-up images that send this process SIGTERM at the next read, if asked to, where a run catches it."""

    terminates = False

    def __getitem__(self, index):
        if self.terminates and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            self.terminates = False
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


def command(out, *more) -> Options:
    words = ["--recipe", "googlenet_cam", "--model", TINY, "--weights", "random", "--dataset", "some"]
    words += ["--steps", "5", "--batch-size", "8", "--eval-every", "2", "--ema-decay", "0.9"]
    words += ["--learning-rate", "0.05", "--out", str(out), *more]
    return tyro.cli(Options, args=words)


@pytest.fixture(scope="module")
def data():
    """Opens splits of 40 and 12 made-up images in place of a data set's."""
    splits = {name: Fakes(n, num_classes=10, image_size=(80, 96)) for name, n in (("train", 40), ("validation", 12))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagenet_data, "open_source", lambda name, split, data_dir: splits[split])
        yield splits


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    main(command(run_dir))
    return run_dir


def kernels(run_dir) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(camjax.load_model(Path(run_dir)), nnx.Param))]


def test_a_run_trains_evaluates_and_says_how_it_went(data, finished, capsys):
    lines = read_metrics(finished)
    assert [line["step"] for line in lines if "eval/accuracy" in line] == [2, 4, 5]
    assert {"4", "5"} <= {path.name for path in (finished / "checkpoints").iterdir()}
    main(command(finished))  # of a run that has finished, what there is to say
    printed = capsys.readouterr().out
    accuracy = [line for line in lines if "eval/accuracy" in line][-1]["eval/accuracy"]
    assert f" images: {1 - accuracy:.1%}" in printed and "Top-1 error on validation, " in printed
    assert f"camjax evaluate --dataset some --split validation --model {finished}" in printed
    assert len(read_metrics(finished)) == len(lines)


def test_the_same_command_goes_on_where_it_was_interrupted(data, finished, tmp_path):
    data["train"].terminates = True
    with pytest.raises(SystemExit) as exit_code:
        main(command(tmp_path / "run"))
    assert exit_code.value.code == 143
    assert not (tmp_path / "run" / "run_card.json").exists()
    main(command(tmp_path / "run"))
    for ours, uninterrupted in zip(kernels(tmp_path / "run"), kernels(finished), strict=True):
        np.testing.assert_array_equal(ours, uninterrupted)


def test_another_run_in_the_same_directory_is_an_error(data, finished):
    with pytest.raises(ValueError, match="holds a run that differs"):
        main(command(finished, "--seed", "1"))


def test_fine_tuning_starts_from_the_weights_given(data, finished):
    options = dataclasses.replace(command(finished), weights=str(finished))
    trained, info = kernels(finished), data["train"].info
    for head in (None, "kept"):
        model = starting_model(dataclasses.replace(options, head=head), info)
        for ours, theirs in zip(jax.tree.leaves(nnx.state(model, nnx.Param)), trained, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.warns(UserWarning, match="head of the model are new"):
        model = starting_model(dataclasses.replace(options, head="new", seed=1), info)
    run = camjax.load_model(finished)
    np.testing.assert_array_equal(model.layers[0].kernel[...], run.layers[0].kernel[...])
    assert np.abs(model.head.kernel[...] - run.head.kernel[...]).max() > 0.01


def test_a_dry_run_writes_nothing(data, tmp_path, capsys):
    # It waits for no other process.
    of_two = ("--coordinator", "127.0.0.1:1", "--num-processes", "2", "--process-id", "1")
    main(command(tmp_path / "run", "--dry-run", *of_two))
    printed = capsys.readouterr().out
    assert "5 steps of 8 images: 1.00 epochs of 40 examples" in printed
    assert "5,418 parameters" in printed and "MB on each device" in printed and '"ema_decay": 0.9' in printed
    assert "resize_then_random_crop((37, 37), (32, 32))" in printed
    assert not (tmp_path / "run").exists()


def test_fake_data_trains_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--recipe", "resnet50", "--model", TINY, "--dtype", "float32", "--fake-data", "images"]
    main(tyro.cli(Options, args=[*words, "--steps", "2", "--batch-size", "8"]))
    assert list(tmp_path.iterdir()) == []
