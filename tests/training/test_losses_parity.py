"""Losses, and batches of a DataLoader, against those of PyTorch."""

import functools

import cv2
import jax
import numpy as np
import pytest
from test_docs import python_of
from tiny_run import Colors, Net, tiny_recipe

from benchmarks.peers import import_torchvision
from camjax.errors import InputError
from camjax.training import SigmoidBinaryCrossEntropy, SoftmaxCrossEntropy, TrainState, evaluate, fit, train_step

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")

WEIGHTS, OTHER_WEIGHTS = (1.0, 5.0, 0.25), (2.0, 0.5, 3.0)
rng = np.random.default_rng(0)
LOGITS = rng.normal(0, 5, (16, 3)).astype(np.float32)
CLASSES = rng.integers(0, 3, 16)
SEVERAL = rng.integers(0, 2, (16, 3)).astype(np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS, (1.0, 0.0, 0.25)])
def test_softmax_cross_entropy(smoothing, weights):
    """The loss of a step and its gradients, by the logits."""
    logits = torch.from_numpy(LOGITS).requires_grad_()
    theirs = torch.nn.CrossEntropyLoss(None if weights is None else torch.tensor(weights), label_smoothing=smoothing)
    expected = theirs(logits, torch.from_numpy(CLASSES))
    expected.backward()
    loss = SoftmaxCrossEntropy(smoothing, weights)

    def mean(logits):
        by_image = loss.weights(CLASSES)
        return loss(logits, CLASSES).sum() / (len(CLASSES) if by_image is None else by_image.sum())

    value, gradient = jax.value_and_grad(mean)(LOGITS)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("positive", [None, WEIGHTS])
@pytest.mark.parametrize("weights", [None, OTHER_WEIGHTS])
def test_sigmoid_binary_cross_entropy(positive, weights):
    logits = torch.from_numpy(LOGITS).requires_grad_()
    given = (None if w is None else torch.tensor(w) for w in (weights, positive))
    theirs = torch.nn.BCEWithLogitsLoss(**dict(zip(("weight", "pos_weight"), given, strict=True)))
    expected = theirs(logits, torch.from_numpy(SEVERAL))
    expected.backward()
    loss = SigmoidBinaryCrossEntropy(positive, weights)
    value, gradient = jax.value_and_grad(lambda logits: loss(logits, SEVERAL).mean())(LOGITS)
    assert value == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-4, atol=1e-7)


def test_a_step_has_the_loss_of_pytorch():
    """In parts, whose sums of weights differ."""
    images = np.stack([Colors()[i]["image"] for i in range(16)])
    model = Net(0.0)
    model.layer.bn = None
    state = TrainState.create(model, tiny_recipe(4))
    batch, loss = {"image": images, "label": CLASSES.astype(np.int32)}, SoftmaxCrossEntropy(0.1, WEIGHTS)
    logits = torch.from_numpy(np.array(model(images)))
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(WEIGHTS), label_smoothing=0.1)
    expected = theirs(logits, torch.from_numpy(CLASSES)).item()
    step = jax.jit(functools.partial(train_step, loss=loss, accumulate=4))
    assert step(state, batch)[1]["loss"] == pytest.approx(expected, rel=1e-5)


class Data(torch.utils.data.Dataset):
    """`Colors` as PyTorch has images: (3, H, W)."""

    def __init__(self, change=None, breaks_at=None):
        self.change, self.breaks_at, self.reads = change, breaks_at, 0

    def __len__(self):
        return 40

    def __getitem__(self, index):
        self.reads += 1
        if self.reads == self.breaks_at:
            raise OSError("the disk is gone")
        image, label = Colors()[index].values()
        image = torch.from_numpy(image).permute(2, 0, 1)
        return image if self.change is None else self.change(image), label


def loader(data=None, **options):
    """Shuffled with a seed, in batches whose last is smaller."""
    data = data or Data()
    # Not DataLoader(generator=...), from which workers draw as well.
    order = torch.utils.data.RandomSampler(data, generator=torch.Generator().manual_seed(3))
    return torch.utils.data.DataLoader(data, batch_size=6, sampler=order, **options)


def test_a_loader_with_a_worker_and_an_interruption(tmp_path):
    """15 steps of 8 are three epochs of 40, whose batches are of 6 and 4."""
    recipe, options = tiny_recipe(15), {"checkpoint_every": 2, "progress": False}
    whole = fit(
        Net(), loader(num_workers=1, multiprocessing_context="spawn", persistent_workers=True), recipe, **options
    )
    with pytest.raises(OSError, match="the disk is gone"):
        fit(Net(), loader(Data(breaks_at=70)), recipe, run_dir=tmp_path, **options)
    with pytest.warns(UserWarning, match="batches of DataLoader: the run goes on from step"):
        resumed = fit(Net(), loader(), recipe, run_dir=tmp_path, **options)
    np.testing.assert_array_equal(resumed.head.kernel[...], whole.head.kernel[...])
    expected = evaluate(whole, Colors(), batch_size=16)
    assert evaluate(whole, loader(), batch_size=16) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image / 255, "PILToTensor in place of ToTensor"),
        (lambda image: (image / 255 - 0.5) / 0.2, "The model normalizes by itself"),
        (lambda image: image[:1], r"images are \(6, 1, 8, 8\) uint8; expected"),
        (lambda image: image.float().requires_grad_(), "NumPy makes no array .*detached"),
    ],
)
def test_tensors_of_another_kind(change, message):
    with pytest.raises(InputError, match=message):
        fit(Net(), loader(Data(change)), tiny_recipe(2), progress=False)


def test_the_guide(tmp_path, monkeypatch):
    """Its code, with a small network and `Colors` as PNG files of another size."""
    import_torchvision()
    for index in range(40):
        image, label = Colors()[index].values()
        (tmp_path / "photographs" / "abc"[label]).mkdir(parents=True, exist_ok=True)
        larger = cv2.resize(image, (16, 12), interpolation=cv2.INTER_NEAREST)
        assert cv2.imwrite(str(tmp_path / "photographs" / "abc"[label] / f"{index}.png"), larger)
    monkeypatch.chdir(tmp_path)
    names = {"model": Net(), "recipe": tiny_recipe(30, batch_size=16), "fit": fit}
    (block,) = (block for block in python_of("docs/training.md") if "ImageFolder" in block)
    exec(block, names)
    assert names["model"].class_names == ("a", "b", "c")
    assert evaluate(names["model"], Colors(), batch_size=40)["accuracy"] > 0.8


def test_a_dataset_is_no_loader():
    with pytest.raises(InputError, match="give a DataLoader"):
        fit(Net(), Data(), tiny_recipe(2), progress=False)
