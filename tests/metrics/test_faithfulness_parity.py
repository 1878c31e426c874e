"""Faithfulness metrics beside torch-cam's and pytorch-grad-cam's: one small network, the same weights, images and maps.

The peers take normalized images, in which 0 is the color that the network subtracts, and maps of the images' size.
"""

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from benchmarks.peers import import_torchvision, missing
from camjax.metrics import arcc, confidence_change, road

pytestmark = pytest.mark.parity

SIZE = (11, 11)  # 120 intervals between values: the peers' percentiles are values, and both take the same pixels
MEAN = STD = 127.5


@pytest.fixture(scope="module")
def peers():
    if reason := missing("torch", "torchvision", "pytorch_grad_cam"):
        pytest.skip(reason)
    import_torchvision()
    import torch
    from pytorch_grad_cam.metrics import cam_mult_image, perturbation_confidence
    from pytorch_grad_cam.metrics import road as peer_road

    return SimpleNamespace(torch=torch, mult=cam_mult_image, perturbation=perturbation_confidence, road=peer_road)


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    return {
        "conv": rng.normal(size=(3, 3, 3, 8)).astype(np.float32),
        "dense": rng.normal(size=(8, 5)).astype(np.float32),
    }


def probabilities(weights, images):
    x = (images - MEAN) / STD
    x = jax.lax.conv_general_dilated(x, weights["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.softmax(jax.nn.relu(x).mean((1, 2)) @ weights["dense"])


@pytest.fixture(scope="module")
def theirs(peers, weights):
    """The network in PyTorch."""
    torch = peers.torch
    conv = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
    dense = torch.nn.Linear(8, 5, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(weights["conv"].transpose(3, 2, 0, 1)))
        dense.weight.copy_(torch.tensor(weights["dense"].T))
    pool = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(conv, pool, dense, torch.nn.Softmax(dim=1)).eval()


@pytest.fixture(scope="module")
def batch(peers):
    """Images, maps from 0 to 1, class ids, and the images normalized for PyTorch."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, *SIZE, 3)).astype(np.float32)
    maps = rng.uniform(size=(6, *SIZE)).astype(np.float32)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    normalized = peers.torch.tensor(((images - MEAN) / STD).transpose(0, 3, 1, 2))
    return images, (maps - low) / (high - low), np.array([0, 1, 2, 3, 4, 2]), normalized


def ours_of(weights):
    return Partial(probabilities, jax.tree.map(jnp.asarray, weights))


class GivenMaps:
    """An extractor of torch-cam's that gives one map after the other."""

    def __init__(self, model, maps):
        self.model, self._maps = model, iter(maps)

    def __call__(self, class_idx, scores):
        return [next(self._maps)]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()


def test_drop_and_increase_are_torch_cam_s(peers, weights, theirs, batch):
    metrics = pytest.importorskip("torchcam.metrics", exc_type=ImportError)
    images, maps, ids, normalized = batch
    metric = metrics.ClassificationMetric(GivenMaps(theirs, [peers.torch.tensor(of_image)[None] for of_image in maps]))
    with peers.torch.no_grad():
        for image, class_id in zip(normalized, ids, strict=True):
            metric.update(image[None], int(class_id))
    change = confidence_change(ours_of(weights), images, maps, ids, baseline=MEAN)
    summary = metric.summary()
    np.testing.assert_allclose(np.mean(change.drop), summary["avg_drop"], atol=1e-5)
    np.testing.assert_allclose(np.mean(change.increase), summary["conf_increase"])
    assert 0 < summary["conf_increase"] < 1 and summary["avg_drop"] > 0


def test_changes_are_pytorch_grad_cam_s(peers, weights, theirs, batch):
    images, maps, ids, normalized = batch
    targets = [lambda output, class_id=class_id: output[class_id] for class_id in ids]
    change = confidence_change(ours_of(weights), images, maps, ids, baseline=MEAN)
    for peer, own in (
        (peers.mult.CamMultImageConfidenceChange(), change.after - change.before),
        (peers.mult.DropInConfidence(), change.drop * change.before),  # theirs is no share
        (peers.mult.IncreaseInConfidence(), change.increase),
    ):
        np.testing.assert_allclose(own, peer(normalized, maps, targets, theirs), atol=1e-5)


def test_road_is_pytorch_grad_cam_s(peers, weights, theirs, batch):
    images, maps, ids, normalized = batch
    targets = [lambda output, class_id=class_id: output[class_id] for class_id in ids]
    fractions = (0.1, 0.2, 0.5, 0.8, 0.9)
    found = road(ours_of(weights), images, maps, ids, fractions=fractions, noise=0)
    before = np.asarray(probabilities(weights, images))[np.arange(6), ids]
    expected = {}
    for order in ("Most", "Least"):
        remove = getattr(peers.perturbation, f"Remove{order}RelevantFirst")
        changes = [
            peers.perturbation.PerturbationConfidenceMetric(
                remove(round(100 * (1 - fraction)), peers.road.NoisyLinearImputer(noise=0))
            )(normalized, maps, targets, theirs)
            for fraction in fractions
        ]
        expected[order] = np.stack(changes, axis=1)
    np.testing.assert_allclose(found.most_relevant_first - before[:, None], expected["Most"], atol=1e-4)
    np.testing.assert_allclose(found.least_relevant_first - before[:, None], expected["Least"], atol=1e-4)
    np.testing.assert_allclose(found.combined, (expected["Least"] - expected["Most"]).mean(1) / 2, atol=1e-4)
    assert np.abs(expected["Most"]).max() > 0.01


def test_arcc_is_pytorch_grad_cam_s(peers, weights, theirs, batch, monkeypatch):
    """Without ROAD's noise; the map of an image is its red channel, of which the peer knows the class's."""
    from pytorch_grad_cam.metrics.arcc import ARCC, Coherency, Complexity

    monkeypatch.setattr(peers.torch, "randn_like", peers.torch.zeros_like)
    images, _, ids, normalized = batch
    # No two values are equal: see the other test of ROAD.
    maps = images[..., 0] - images[..., 2] + np.random.default_rng(2).uniform(size=images.shape[:3])
    maps -= maps.min((1, 2), keepdims=True)
    maps = (maps / maps.max((1, 2), keepdims=True)).astype(np.float32)
    # The other way around where the network does not care for red: ROAD is above 0 then.
    against = np.asarray(road(ours_of(weights), images, maps, ids, noise=0).combined) < 0
    maps[against] = 1 - maps[against]
    targets = [lambda output, class_id=class_id: output[class_id] for class_id in ids]

    def base_method(input_tensor, targets):
        return input_tensor[:, 0].numpy()

    ours = arcc(
        ours_of(weights), images, maps, ids, lambda images, ids: (images[..., 0] - MEAN) / STD, noise=0, baseline=MEAN
    )
    given = normalized, maps, targets, theirs
    np.testing.assert_allclose(ours.coherency, Coherency()(*given, base_method), atol=1e-5)
    np.testing.assert_allclose(ours.complexity, Complexity()(maps), atol=1e-5)
    expected = ARCC(base_method)(*given)
    np.testing.assert_allclose(ours.arcc, expected, atol=1e-4)
    assert (expected > 5e-4).all()
