"""Losses and weights of classes, by hand and against scikit-learn, and what a run makes of them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.utils.class_weight import compute_class_weight
from test_docs import python_of
from tiny_run import Colors, Net, tiny_recipe

import camjax
from camjax.cam import class_probabilities
from camjax.data.relabeled import with_classes_of
from camjax.data.sources import SourceInfo
from camjax.errors import InputError
from camjax.runs import read_run
from camjax.training import (
    SigmoidBinaryCrossEntropy,
    SoftmaxCrossEntropy,
    TrainState,
    balanced_class_weights,
    eval_step,
    evaluate,
    fit,
    positive_weights,
    train_step,
)
from camjax.training.checks import check_labels
from camjax.training.losses import is_multi_label
from camjax.training.precision import average_precisions, mean_average_precision
from camjax.training.runs import describe_data, describe_run, start_run
from camjax.weights.camjax_file import read_description, write_camjax_file

forward = jax.jit(lambda model, images: model(images))
LOGITS = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], np.float32))


class Named(Net):
    """The small network under a name, by which a run is loaded."""

    def __init__(self, num_classes, *, rngs):
        super().__init__(0.0)


camjax.register_model("named", Named, num_classes=3)


class Several(Colors):
    """Colors that are "bright" or not, "dark" or not, and "even" or not, which no image shows."""

    def __init__(self, names=None):
        super().__init__()
        if names:
            self.info = SourceInfo("several", "all", names, len(self), ("image", "label"))

    def __getitem__(self, index):
        return super().__getitem__(index) | self.without_image(index)

    def without_image(self, index):
        return {"label": np.array([index % 3 == 2, index % 2 == 0, index % 3 == 0])}


def focal(logits, labels):
    """A loss of one's own."""
    chances = jax.nn.sigmoid(jnp.where(labels > 0.5, logits, -logits))
    return (-((1 - chances) ** 2) * jnp.log(chances)).mean(-1)


focal.multi_label = True


def test_class_weights_by_hand():
    loss, labels = SoftmaxCrossEntropy(class_weights=[1, 2, 4]), np.array([0, 2])
    np.testing.assert_allclose(loss(LOGITS, labels), [np.log(2), 4 * np.log(1.25)], rtol=1e-6)
    np.testing.assert_array_equal(loss.weights(labels), [1, 4])
    # 0.7 + 0.1 of the target on the label, 0.1 on each other, each times its weight.
    smooth = SoftmaxCrossEntropy(0.3, class_weights=[1, 2, 4])(LOGITS[:1], labels[:1])
    np.testing.assert_allclose(smooth, [0.8 * np.log(2) + (0.2 + 0.4) * np.log(4)], rtol=1e-6)


def test_a_class_of_weight_0_teaches_nothing():
    loss = SoftmaxCrossEntropy(0.1, class_weights=(1, 0, 2))
    state, step = TrainState.create(Net(0.0), tiny_recipe(4)), jax.jit(functools.partial(train_step, loss=loss))
    images = np.stack([Colors()[i]["image"] for i in range(4)])
    for labels, nothing in (([1, 1, 1, 1], True), ([1, 1, 1, 0], False)):
        metrics = step(state, {"image": images, "label": np.array(labels, np.int32)})[1]
        assert (metrics["loss"] == metrics["gradient_norm"] == 0) == nothing and np.isfinite(metrics["gradient_norm"])
    only = [{"image": image, "label": 1} for image in images]
    assert evaluate(Net(0.0), only, batch_size=4, loss=loss)["loss"] == 0


def test_sigmoids_by_hand():
    logits = np.array([[0.0, np.log(3.0)]], np.float32)  # probabilities 1/2 and 3/4
    loss = SigmoidBinaryCrossEntropy(positive_weights=(5, 7), class_weights=np.array([1.0, 3.0]))
    expected = [[(5 * np.log(2) + 3 * np.log(4)) / 2], [(np.log(2) + 21 * np.log(4 / 3)) / 2]]
    for labels, losses in zip(([[1, 0]], [[0, 1]]), expected, strict=True):
        np.testing.assert_allclose(loss(logits, np.array(labels)), losses, rtol=1e-6)
    extreme = np.array([[-300.0, 300.0]], np.float32)
    np.testing.assert_allclose(SigmoidBinaryCrossEntropy()(extreme, np.array([[1, 1]])), [150])


def test_a_step_takes_the_mean_that_weights_give():
    """The parts have other classes: a weighted mean of each, averaged, would be another number."""
    loss, recipe = SoftmaxCrossEntropy(class_weights=(1, 10, 100)), tiny_recipe(4)
    labels = np.array([0, 0, 1, 0, 2, 2, 1, 2], np.int32)
    batch = {"image": np.stack([Colors()[i]["image"] for i in range(8)]), "label": labels}
    model = Net(0.0)
    model.layer.bn = None  # its statistics are of a part
    losses = np.asarray(SoftmaxCrossEntropy()(forward(model, batch["image"]), labels))
    weights = np.array([1, 10, 100])[labels]
    state = TrainState.create(model, recipe)
    found = [jax.jit(functools.partial(train_step, loss=loss, accumulate=n))(state, batch)[1] for n in (1, 4)]
    for metrics in found:
        assert metrics["loss"] == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-5)
        assert metrics["gradient_norm"] == pytest.approx(float(found[0]["gradient_norm"]), rel=1e-5)
    sums = jax.jit(functools.partial(eval_step, loss=loss))(Net(0.0), batch | {"mask": np.arange(8) < 5})
    assert (sums["count"], sums["weight"]) == (5, 113)
    halves = [(weights * losses)[half].sum() / weights[half].sum() for half in (slice(4), slice(4, 8))]
    assert abs(np.mean(halves) - float(found[0]["loss"])) > 1e-3


class Unbalanced(Colors):
    """Two images of each class's number and one more; images are not to be read."""

    labels = (0, 1, 1, 1, 2, 2, 2, 2, 2)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        raise AssertionError("an image was read")

    def without_image(self, index):
        return {"label": self.labels[index]}


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=Unbalanced.labels)
    np.testing.assert_allclose(balanced_class_weights(Unbalanced(), Net()), expected)
    named, model = Unbalanced(), Net()
    named.info = SourceInfo("unbalanced", "all", ("c", "a", "b"), 9, ("image", "label"))
    model.class_names = tuple("abc")
    np.testing.assert_allclose(balanced_class_weights(named, model), expected[[1, 2, 0]])  # in the model's order
    # 13 of 40 images are bright, 20 even, 14 dark.
    np.testing.assert_allclose(positive_weights(Several(), Net()), [27 / 13, 1, 26 / 14])


def test_labels_of_several_classes_are_paired_by_name():
    paired = with_classes_of(Several(names=("c", "a", "b")), tuple("abc"), 3)
    for index in range(6):
        c, a, b = Several()[index]["label"]
        assert paired[index]["label"].tolist() == paired.without_image(index)["label"].tolist() == [a, b, c]
    with pytest.raises(InputError, match=r"label of 3 numbers, for 2 classes; .* would count as absent"):
        with_classes_of(Several(names=("c", "a")), tuple("abc"), 3)[0]


def test_a_class_without_images_has_no_weight():
    source = Unbalanced()
    source.labels = (0, 2, 2)
    with pytest.raises(InputError, match=r"1 of 3 classes have no image: 1\."):
        balanced_class_weights(source, Net())
    with pytest.raises(InputError, match=r"example 0 is \[False, True, True\]; expected one class"):
        balanced_class_weights(Several(), Net())
    with pytest.raises(InputError, match="example 0 is 0; expected 3 numbers, 0 or 1"):
        positive_weights(Unbalanced(), Net())


def test_average_precision_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, (60, 5)).astype(np.float32)  # with many that are equal
    labels = rng.random((60, 5)) < [0.1, 0.5, 0.9, 0.0, 1.0]
    expected = [average_precision_score(labels[:, c], scores[:, c]) for c in (0, 1, 2, 4)]
    found = average_precisions(scores, labels)
    np.testing.assert_allclose(found[[0, 1, 2, 4]], expected)
    assert np.isnan(found[3]) and mean_average_precision(scores, labels) == pytest.approx(np.mean(expected))
    with pytest.raises(InputError, match="no image of the evaluation data has any class"):
        mean_average_precision(scores, np.zeros_like(labels))


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A run on images of several classes, and its model."""
    directory = tmp_path_factory.mktemp("several")
    source, start = Several(names=("bright", "even", "dark")), camjax.create_model("named")
    loss = SigmoidBinaryCrossEntropy(positive_weights(source, start))
    recipe = tiny_recipe(60, batch_size=20, learning_rate=0.5)
    options = {"eval_source": source, "eval_every": 30, "run_dir": directory, "progress": False}
    return fit(start, source, recipe, loss=loss, **options), directory


def test_images_of_several_classes(several):
    model, directory = several
    source, loss = Several(), SigmoidBinaryCrossEntropy()
    images = np.stack([source[i]["image"] for i in range(40)])
    labels = np.stack([source[i]["label"] for i in range(40)])
    model.eval()
    logits = np.asarray(forward(model, images))
    found = evaluate(model, source, batch_size=16, loss=loss)  # 40 images: the last batch is padded
    assert found["loss"] == pytest.approx(float(loss(logits, labels).mean()), rel=1e-4)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels.ravel(), logits.ravel() > 0))
    assert found["mean_average_precision"] == pytest.approx(average_precision_score(labels, logits))
    # What images show is learned, what they do not show is not.
    by_class = average_precisions(logits, labels)
    assert by_class[[0, 2]].min() > 0.95 > by_class[1]
    card = json.loads((directory / "run_card.json").read_text())
    assert card["loss"].startswith("SigmoidBinaryCrossEntropy(positive_weights=(2.07")
    assert card["results"]["best eval/mean_average_precision"] > 0.7


def test_such_a_run_says_probabilities_by_sigmoids(several, tmp_path):
    _, directory = several
    loaded = camjax.load_model(directory)
    assert loaded.multi_label and read_run(directory)["multi_label"]
    logits = np.asarray(forward(loaded, np.stack([Several()[i]["image"] for i in range(4)])))
    for values in (logits, jnp.asarray(logits)):
        found = class_probabilities(values, loaded.multi_label)
        np.testing.assert_allclose(found, jax.nn.sigmoid(logits), rtol=1e-5)
    write_camjax_file(loaded, tmp_path / "net.safetensors", version="1")
    assert read_description(tmp_path / "net.safetensors").multi_label
    assert camjax.load_model(tmp_path / "net.safetensors").multi_label
    assert not camjax.with_new_head(loaded, 3).multi_label
    crops = camjax.make_cam_fn(loaded, "cam_ten_crop")(np.zeros((1, 9, 9, 3), np.uint8))
    # All crops of a black image are the same: the mean of their probabilities is that of one.
    np.testing.assert_allclose(crops.logits, forward(loaded, np.zeros((1, 8, 8, 3), np.uint8)), rtol=1e-4)


def test_a_loss_of_ones_own(tmp_path):
    assert is_multi_label(functools.partial(focal)) and not is_multi_label(functools.partial(np.mean))
    model = fit(Net(), Several(), tiny_recipe(2), loss=focal, run_dir=tmp_path, progress=False)
    assert model.multi_label and not Net().multi_label and read_run(tmp_path)["loss"] == "focal"
    with pytest.raises(InputError, match=r"loss: focal there, SigmoidBinaryCrossEntropy\(.*now"):
        fit(Net(), Several(), tiny_recipe(2), loss=SigmoidBinaryCrossEntropy(), run_dir=tmp_path, progress=False)
    # Without a loss it is the default one, in a run of an older version, too.
    recipe, data = tiny_recipe(2, label_smoothing=0.1), describe_data(Colors())
    default = describe_run(Net(), recipe) | data
    assert default["loss"] == "SoftmaxCrossEntropy(label_smoothing=0.1, class_weights=None)"
    older = {key: value for key, value in default.items() if key not in ("loss", "multi_label")}
    (tmp_path / "run.json").write_text(json.dumps(older))
    start_run(tmp_path, default)
    with pytest.raises(InputError, match=r"loss: SoftmaxCrossEntropy\(label_smoothing=0.1, .* there, focal now"):
        start_run(tmp_path, describe_run(Net(), recipe, focal) | data)


@pytest.mark.parametrize(
    ("loss", "source", "message"),
    [
        (lambda logits, labels: logits.mean(), Colors(), r"of shape \(\) .* expected \(2,\) floats, .* without a mean"),
        (lambda logits, labels: labels, Colors(), r"type int32: expected \(2,\) floats"),
        ("focal", Colors(), "loss='focal': expected a function of logits and labels"),
        (SoftmaxCrossEntropy(class_weights=(1, 2)), Colors(), "class_weights: 2 numbers; expected 3"),
        (SigmoidBinaryCrossEntropy((1,) * 4), Several(), "positive_weights: 4 numbers; expected 3"),
        (SigmoidBinaryCrossEntropy(), Colors(), r"label of example \d+ is [012]; expected 3 numbers in 0..1"),
        (SoftmaxCrossEntropy(), Several(), r"expected one class, .*SigmoidBinaryCrossEntropy\(\)"),
        (SigmoidBinaryCrossEntropy(), Several(names=("x", "y")), "has 2 classes, and the model 3"),
    ],
)
def test_losses_that_do_not_fit(loss, source, message, tmp_path):
    with pytest.raises(InputError, match=message):
        fit(Net(), source, tiny_recipe(2), loss=loss, run_dir=tmp_path / "run", progress=False)
    # Where data need not be read, the run has not begun.
    assert (tmp_path / "run").exists() == ("example" in message or "one class" in message)


def test_the_guide():
    """Its code, with a small network; a loss of one's own is here that of the paper of focal losses, gamma 2."""
    names = {"camjax": camjax, "fit": fit, "evaluate": evaluate, "train": Colors(), "several": Several()}
    names |= {"model": Net(), "recipe": tiny_recipe(2), "images": np.zeros((2, 8, 8, 3), np.uint8)}
    for block in python_of("docs/training.md"):
        if "focal_loss" in block or "several" in block:
            exec(block, names)
    np.testing.assert_allclose(names["weights"], [40 / 3 / n for n in (14, 13, 13)])
    expected = np.array([0.5**2 * np.log(2), 0.2**2 * np.log(1.25)])
    np.testing.assert_allclose(names["focal_loss"](LOGITS, np.array([0, 2])), expected, rtol=1e-5)
    assert not names["focal"].multi_label and names["metrics"].keys() == {"loss", "accuracy", "mean_average_precision"}
    assert names["tagger"].multi_label and names["probabilities"].sum(1) == pytest.approx(1.5, abs=0.75)


@pytest.mark.parametrize("weights", [(), (0, 0, 0), (1, -1, 1), (1, np.nan, 1), "abc", 3.0])
def test_weights_that_are_none(weights):
    with pytest.raises(InputError, match=r"expected a number of 0 or more for each class .*, not all 0"):
        SoftmaxCrossEntropy(class_weights=weights)


def test_label_smoothing_is_not_said_twice():
    with pytest.raises(InputError, match=r"recipe.label_smoothing=0.1 is of the default loss"):
        fit(Net(), Colors(), tiny_recipe(2, label_smoothing=0.1), loss=SoftmaxCrossEntropy(), progress=False)


def test_numbers_that_are_no_labels():
    with pytest.raises(
        InputError, match=r"row 1 of a batch has the label \[0.0, 2.0, 0.0\]: expected a number in 0..1"
    ):
        check_labels({"label": np.array([[0, 1, 0], [0, 2, 0]], np.float32)}, 3)
