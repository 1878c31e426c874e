"""pytorch-grad-cam, torch-cam and captum on the same weights and images: the same maps, after the same final step.

Where a library differs from camjax on purpose, the one line of it that differs is replaced, so that the tests say what
the difference is, and that there is no other.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.peers import import_torchvision, missing
from camjax.attribution import (
    ablation_cam,
    augmentation_smoothing,
    combine_layers,
    deep_feature_factorization,
    eigen_cam,
    eigen_grad_cam,
    eigen_smoothing,
    explain_nnx,
    fem,
    finer_cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    integrated_gradients,
    is_cam,
    kpca_cam,
    layer_cam,
    occlusion,
    output_gradients,
    score_cam,
    seg_eigen_cam,
    shapley_cam,
    smooth_grad,
    smooth_grad_cam_plus_plus,
    ss_cam,
    targets,
    xgrad_cam,
)
from camjax.attribution.averaged_gradients import noisy, one_copy_each
from camjax.attribution.perturbation import with_noise
from camjax.cam import normalize_map, resize_map

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
"""Of a map's range."""

MEAN, STD = np.float32([120, 110, 100]), np.float32([60, 55, 50])
CLASSES = [2, 0, 4]

rng = np.random.default_rng(0)
WEIGHTS = {
    "first": rng.normal(size=(8, 3, 3, 3)).astype(np.float32) / 3,
    "second": rng.normal(size=(10, 8, 3, 3)).astype(np.float32) / 4,
    "hidden": rng.normal(size=(7, 10)).astype(np.float32),
    "last": rng.normal(size=(5, 7)).astype(np.float32),
}
# Three times the features' size: bilinear interpolation then meets the center of each cell, and its extremes.
IMAGES = rng.integers(0, 256, (3, 15, 21, 3)).astype(np.uint8)


def convolved(array, name, stride):
    kernel = WEIGHTS[name].transpose(2, 3, 1, 0)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(array, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=layout)


def features_fn(images):
    normalized = (images.astype(jnp.float32) - MEAN) / STD
    return jax.nn.relu(convolved(jax.nn.relu(convolved(normalized, "first", 3)), "second", 1))


def head_fn(features):
    hidden = jax.nn.relu(features.mean((1, 2)) @ WEIGHTS["hidden"].T + features.max((1, 2)) @ WEIGHTS["hidden"].T / 4)
    # Scores well above zero, which Ablation-CAM divides by.
    return hidden @ WEIGHTS["last"].T + 20


FEATURES = features_fn(IMAGES)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: make test-parity installs it")


@pytest.fixture(scope="module")
def network(torch):
    """The same network in PyTorch, of normalized images."""

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, stride=3, padding=1, bias=False)
            self.second = torch.nn.Conv2d(8, 10, 3, padding=1, bias=False)
            self.rectified = torch.nn.ReLU()
            self.hidden = torch.nn.Linear(10, 7, bias=False)
            self.last = torch.nn.Linear(7, 5, bias=False)

        def forward(self, images):
            features = self.rectified(self.second(torch.relu(self.first(images))))
            hidden = self.hidden(features.mean((2, 3))) + self.hidden(features.amax((2, 3))) / 4
            return self.last(torch.relu(hidden)) + 20

    network = Network().eval()
    network.load_state_dict({f"{name}.weight": torch.from_numpy(weight) for name, weight in WEIGHTS.items()})
    with torch.no_grad():
        np.testing.assert_allclose(network(inputs(torch)), head_fn(FEATURES), rtol=1e-5)
    return network


def inputs(torch):
    return torch.from_numpy(((IMAGES - MEAN) / STD).transpose(0, 3, 1, 2).copy())


@pytest.fixture
def grad_cam_library(torch, monkeypatch):
    """pytorch-grad-cam, its masks resized with half-pixel centers instead of aligned corners."""
    if reason := missing("torchvision", "pytorch_grad_cam"):
        pytest.skip(reason)
    import_torchvision()
    import pytorch_grad_cam

    monkeypatch.setattr(
        torch.nn, "UpsamplingBilinear2d", lambda size: torch.nn.Upsample(size, mode="bilinear", align_corners=False)
    )
    return pytorch_grad_cam


@pytest.fixture(scope="module")
def torchcam(torch):
    pytest.importorskip("torchcam", reason="torch-cam is not installed: make test-parity installs it")
    from torchcam import methods

    return methods


def assert_same(ours, theirs):
    """Maps (B, h, w), each scaled to 0..1."""
    ours, theirs = np.asarray(normalize_map(ours)), np.asarray(normalize_map(np.asarray(theirs)))
    assert theirs.any((1, 2)).all()
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def masked(method, **options):
    maps = method(
        head_fn, FEATURES, CLASSES, features_fn=features_fn, images=IMAGES, baseline=MEAN, chunk_size=7, **options
    )
    return maps[:, 0]


def by_grad_cam_library(torch, network, method, **options):
    """(B, H, W): what the library returns, at the images' size."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with method(network, [network.rectified]) as explain:
        return explain(inputs(torch), [ClassifierOutputTarget(c) for c in CLASSES], **options)


def final_step(maps):
    """pytorch-grad-cam's: rectified, scaled to 0..1, resized to the image."""
    return resize_map(normalize_map(jax.nn.relu(maps)), IMAGES.shape[1:3])


GRADIENT_METHODS = [
    ("GradCAM", grad_cam),
    ("GradCAMPlusPlus", grad_cam_plus_plus),
    ("XGradCAM", xgrad_cam),
    ("HiResCAM", hires_cam),
    ("LayerCAM", layer_cam),
]


@pytest.mark.parametrize("name, method", GRADIENT_METHODS, ids=[name for name, _ in GRADIENT_METHODS])
def test_gradient_methods_of_pytorch_grad_cam(torch, network, grad_cam_library, name, method):
    """Of a thousand times the scores: the library adds a millionth to a denominator of Grad-CAM++."""
    with getattr(grad_cam_library, name)(network, [network.rectified]) as explain:
        theirs = explain(inputs(torch), [lambda scores, c=c: 1000 * scores[c] for c in CLASSES])
    ours = method(lambda features: 1000 * head_fn(features), FEATURES, CLASSES)
    assert_same(final_step(ours[:, 0]), theirs)


# Its Grad-CAM++ does not divide: the quotient goes into a copy that is dropped.
@pytest.mark.parametrize("name, method", [("GradCAM", grad_cam), ("XGradCAM", xgrad_cam), ("LayerCAM", layer_cam)])
def test_gradient_methods_of_torch_cam(torch, network, torchcam, name, method):
    with getattr(torchcam, name)(network, "rectified", input_shape=(3, *IMAGES.shape[1:3])) as explain:
        theirs = explain(CLASSES, network(inputs(torch)))[0].detach()
    # It rectifies all of its maps.
    assert_same(jax.nn.relu(method(head_fn, FEATURES, CLASSES)[:, 0]), theirs)


def test_score_cam_of_pytorch_grad_cam(torch, network, grad_cam_library):
    theirs = by_grad_cam_library(torch, network, grad_cam_library.ScoreCAM)
    assert_same(final_step(masked(score_cam)), theirs)


def test_ablation_cam_of_pytorch_grad_cam(torch, network, grad_cam_library):
    theirs = by_grad_cam_library(torch, network, grad_cam_library.AblationCAM)
    assert_same(final_step(ablation_cam(head_fn, FEATURES, CLASSES, chunk_size=7)[:, 0]), theirs)


def by_torchcam(torch, network, method, **options):
    with method(network, "rectified", batch_size=4, input_shape=(3, *IMAGES.shape[1:3]), **options) as explain:
        network(inputs(torch))
        return explain(CLASSES)[0]


def test_score_cam_of_torch_cam(torch, network, torchcam):
    assert_same(masked(score_cam), by_torchcam(torch, network, torchcam.ScoreCAM))


@pytest.mark.parametrize("num_samples", [1, 4])
def test_is_cam_of_torch_cam(torch, network, torchcam, num_samples):
    theirs = by_torchcam(torch, network, torchcam.ISCAM, num_samples=num_samples)
    assert_same(masked(is_cam, num_samples=num_samples), theirs)


def test_ss_cam_of_torch_cam_with_the_same_noise(torch, network, torchcam, monkeypatch):
    assert (np.ptp(FEATURES, (1, 2)) > 0).all(), "channels without a mask share their noise"
    key, samples = jax.random.key(3), 3

    class Noise:
        def __init__(self, mean, std):
            self.drawn, self.std = 0, std

        def sample(self, shape):
            batch, channels, *size = shape
            rows = jnp.array([(b, k, self.drawn) for b in range(batch) for k in range(channels)])
            self.drawn += 1
            noise = with_noise(key, self.std, jnp.zeros((len(rows), *size)), rows)
            return torch.from_numpy(np.array(noise)).reshape(shape)

    monkeypatch.setattr(torch.distributions.normal, "Normal", Noise)
    theirs = by_torchcam(torch, network, torchcam.SSCAM, num_samples=samples, std=0.7)
    assert_same(masked(ss_cam, num_samples=samples, std=0.7, key=key), theirs)


def with_their_signs(maps, theirs):
    """The library leaves the sign of a component to chance: ours (B, h, w) with the signs of theirs."""
    maps, theirs = np.asarray(maps), np.asarray(theirs)
    return maps * np.sign((maps * theirs).sum((1, 2), keepdims=True))


def test_eigen_cam_of_pytorch_grad_cam(torch, network, grad_cam_library):
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    ours = eigen_cam(head_fn, FEATURES, CLASSES)[:, 0]
    components = get_2d_projection(np.asarray(FEATURES).transpose(0, 3, 1, 2))
    ours = with_their_signs(ours, components)
    assert_same(ours, components)
    assert_same(final_step(ours), by_grad_cam_library(torch, network, grad_cam_library.EigenCAM))


def test_eigen_grad_cam_of_pytorch_grad_cam(torch, network, grad_cam_library):
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    gradients = np.asarray(output_gradients(head_fn, FEATURES)[1](np.array(CLASSES)))[:, 0]
    components = get_2d_projection((gradients * np.asarray(FEATURES)).transpose(0, 3, 1, 2))
    ours = with_their_signs(eigen_grad_cam(head_fn, FEATURES, CLASSES)[:, 0], components)
    assert_same(ours, components)
    assert_same(final_step(ours), by_grad_cam_library(torch, network, grad_cam_library.EigenGradCAM))


def test_eigen_smooth_of_pytorch_grad_cam(torch, network, grad_cam_library):
    gradients = output_gradients(head_fn, FEATURES)[1](np.array(CLASSES))
    ours = eigen_smoothing(FEATURES, gradients.mean((2, 3)))[:, 0]
    theirs = by_grad_cam_library(torch, network, grad_cam_library.GradCAM, eigen_smooth=True)
    either = [np.asarray(normalize_map(final_step(sign * ours))) for sign in (1, -1)]
    for image in range(3):
        assert min(np.abs(maps[image] - theirs[image]).max() for maps in either) < TOLERANCE


def test_aug_smooth_of_pytorch_grad_cam(torch, network, grad_cam_library):
    def maps_fn(images, classes):
        return normalize_map(final_step(grad_cam(head_fn, features_fn(images), classes)))

    ours = augmentation_smoothing(maps_fn, IMAGES, CLASSES, baseline=MEAN)[:, 0]
    theirs = by_grad_cam_library(torch, network, grad_cam_library.GradCAM, aug_smooth=True)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


# Methods of the last years


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("given", [False, True])
def test_finer_cam_of_pytorch_grad_cam(torch, network, grad_cam_library, strength, given):
    from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

    # Of a tenth of the scores: the library adds a billionth to the look-alikes' probability, which may be as small.
    small = lambda features: head_fn(features) / 10  # noqa: E731
    classes = np.asarray(small(FEATURES)).argmax(1)
    similar = [[c for c in range(5) if c != one][:2] for one in classes]
    given_targets = [FinerWeightedTarget(c, others, strength) for c, others in zip(classes, similar, strict=True)]

    class Small(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(images) / 10

    with grad_cam_library.FinerCAM(Small(), [network.rectified]) as explain:
        theirs = explain(inputs(torch), given_targets if given else None, alpha=strength)
    maps = finer_cam(small, FEATURES, classes, similar=np.array(similar) if given else None, strength=strength)
    assert_same(final_step(maps[:, 0]), theirs)


@pytest.mark.parametrize("similar", [None, [[0, 1], [3, 4], [2, 1]]])
def test_finer_cam_of_torch_cam(torch, network, torchcam, similar):
    shape = (3, *IMAGES.shape[1:3])
    with torchcam.FinerCAM(network, "rectified", shape, gamma=0.6, num_references=2) as explain:
        theirs = explain(CLASSES, network(inputs(torch)), similar)[0].detach()
    options = {"strength": 0.6, "num_similar": 2, "weights": "mean"}
    ours = finer_cam(head_fn, FEATURES, CLASSES, similar=None if similar is None else np.array(similar), **options)
    assert_same(ours[:, 0], theirs)


@pytest.mark.parametrize("curved", [False, True])
def test_shapley_cam_of_pytorch_grad_cam(torch, network, grad_cam_library, curved):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget

    target = ClassifierOutputReST if curved else ClassifierOutputTarget
    with grad_cam_library.ShapleyCAM(network, [network.rectified]) as explain:
        theirs = explain(inputs(torch), [target(c) for c in CLASSES])
    ours = shapley_cam(head_fn, FEATURES, targets.residual_softmax(CLASSES) if curved else CLASSES)
    assert_same(final_step(ours[:, 0]), theirs)


def test_fem_of_pytorch_grad_cam(torch, network, grad_cam_library):
    theirs = by_grad_cam_library(torch, network, grad_cam_library.FEM)
    assert_same(final_step(fem(head_fn, FEATURES, CLASSES)[:, 0]), theirs)


def test_kpca_cam_of_pytorch_grad_cam(torch, network, grad_cam_library):
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection_kernel

    components = get_2d_projection_kernel(np.asarray(FEATURES).transpose(0, 3, 1, 2))
    ours = with_their_signs(kpca_cam(head_fn, FEATURES, CLASSES)[:, 0], components)
    assert_same(ours, components)
    assert_same(final_step(ours), by_grad_cam_library(torch, network, grad_cam_library.KPCA_CAM))


def test_seg_eigen_cam_of_pytorch_grad_cam(torch, network, grad_cam_library):
    theirs = by_grad_cam_library(torch, network, grad_cam_library.SegEigenCAM)
    assert_same(final_step(seg_eigen_cam(head_fn, FEATURES, CLASSES)[:, 0]), theirs)


def test_deep_feature_factorization_of_pytorch_grad_cam(grad_cam_library, monkeypatch, request):
    """From a start by singular vectors, not random numbers; to the end: by the rule, rounding decides the last turn."""
    from pytorch_grad_cam.feature_factorization import deep_feature_factorization as library

    from camjax.attribution import factorization

    nmf = functools.partial(library.NMF, init="nndsvd", tol=0, max_iter=1000)
    monkeypatch.setattr(library, "NMF", lambda n_components, init, random_state: nmf(n_components))
    monkeypatch.setattr(factorization, "_TOLERANCE", 0)
    monkeypatch.setattr(factorization, "_STEPS", 1000)
    deep_feature_factorization.clear_cache()
    request.addfinalizer(deep_feature_factorization.clear_cache)
    concepts, theirs = library.dff(np.array(FEATURES).transpose(0, 3, 1, 2), n_components=4)
    ours = deep_feature_factorization(FEATURES, 4)
    for factor in range(4):
        assert_same(ours.maps[:, factor], theirs[:, factor])
    directions = concepts - np.asarray(ours.offset)[:, None]
    np.testing.assert_allclose(ours.directions, (directions / np.linalg.norm(directions, axis=0)).T, atol=1e-4)


def test_smooth_grad_cam_plus_plus_of_torch_cam_with_the_same_noise(torch, network, torchcam, monkeypatch):
    """The library takes the last copy's gradient, not the mean, and its features, not the image's; it sums f g^3.

    Behind an average pooling g is the same at all places, and that sum is the one of f, times g^3.
    """
    from torchcam.methods import gradient

    key, drawn, seen = jax.random.key(3), [], []

    class Noise:
        def __init__(self, mean, std):
            self.std = std

        def sample(self, shape):
            noise = one_copy_each(key, self.std, jnp.asarray(IMAGES), len(drawn)) - IMAGES
            drawn.append(noise)
            return torch.from_numpy((np.asarray(noise) / STD).transpose(0, 3, 1, 2).copy())

    class Explainer(torchcam.SmoothGradCAMpp):
        def _backprop(self, *args, **kwargs):
            super()._backprop(*args, **kwargs)
            seen.append(self.hook_g[0].clone())

        def _get_weights(self, *args, **kwargs):
            features = list(self.hook_a)
            weights = super()._get_weights(*args, **kwargs)
            self.hook_a = features
            return weights

    def pooled(images):
        features = network.rectified(network.second(torch.relu(network.first(images))))
        return network.last(torch.relu(network.hidden(features.mean((2, 3)))))

    def pooled_head(features):
        return jax.nn.relu(features.mean((1, 2)) @ WEIGHTS["hidden"].T) @ WEIGHTS["last"].T

    class MeanGradient:
        def __getattr__(self, name):
            return getattr(torch, name)

        def relu(self, last):
            return torch.relu(torch.stack(seen).mean(0))

    monkeypatch.setattr(torch.distributions.normal, "Normal", Noise)
    monkeypatch.setattr(network, "forward", pooled)
    with Explainer(network, "rectified", num_samples=3, std=0.3, input_shape=(3, *IMAGES.shape[1:3])) as explain:
        network(inputs(torch))
        monkeypatch.setattr(gradient, "torch", MeanGradient())
        theirs = explain(CLASSES)[0]
    options = {"features_fn": features_fn, "images": IMAGES, "num_samples": 3, "noise": 0.3, "key": key}
    assert len(drawn) == len(seen) == 3
    assert_same(smooth_grad_cam_plus_plus(pooled_head, FEATURES, CLASSES, **options)[:, 0], theirs)


class Deep(nnx.Module):
    """Maps of two sizes, with biases of convolutions and of a BatchNorm."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.second = nnx.Conv(6, 8, (3, 3), 3, padding=1, rngs=rngs)
        self.last = nnx.Linear(8, 5, rngs=rngs)
        random = np.random.default_rng(1)
        for variable in (self.first.bias, self.norm.bias, self.norm.mean, self.second.bias):
            variable[...] = jnp.asarray(random.normal(size=variable.shape), jnp.float32)

    def __call__(self, images):
        features = nnx.relu(self.second(nnx.relu(self.norm(self.first(images)))))
        # Of a thousand times the scores: the library adds 1e-7 and 1e-6 where it divides.
        return 1000 * self.last(features.mean((1, 2)))


@pytest.fixture(scope="module")
def deep_networks(torch):
    """The same network twice."""
    ours = Deep(nnx.Rngs(0))
    ours.eval()

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 6, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(6)
            self.second = torch.nn.Conv2d(6, 8, 3, stride=3, padding=1)
            self.last = torch.nn.Linear(8, 5)

        def forward(self, images):
            features = torch.relu(self.second(torch.relu(self.norm(self.first(images)))))
            return 1000 * self.last(features.mean((2, 3)))

    theirs = Network().eval()
    tensors = {}
    for name in ("first", "second", "last"):
        layer = getattr(ours, name)
        kernel = np.asarray(layer.kernel[...])
        tensors |= {f"{name}.weight": kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T}
        tensors |= {f"{name}.bias": layer.bias[...]}
    norm = ours.norm
    tensors |= {"norm.weight": norm.scale[...], "norm.bias": norm.bias[...]}
    tensors |= {"norm.running_mean": norm.mean[...], "norm.running_var": norm.var[...]}
    theirs.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}, strict=False)
    images = ((IMAGES - MEAN) / STD).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(ours(images), theirs(inputs(torch)), rtol=1e-4, atol=1e-2)
    return ours, theirs, images


def test_full_grad_of_pytorch_grad_cam(torch, grad_cam_library, deep_networks, capsys):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    ours, theirs, images = deep_networks
    with grad_cam_library.FullGrad(theirs, []) as explain:
        maps = explain(inputs(torch), [ClassifierOutputTarget(c) for c in CLASSES])
    assert_same(explain_nnx(ours, "second")(images, CLASSES, "fullgrad").maps[:, 0], maps)


def test_refine_cam_of_pytorch_grad_cam(torch, grad_cam_library, deep_networks, monkeypatch):
    """At the size of the larger layer, instead of the image's, which is the same here: no resizing comes after it."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    ours, theirs, images = deep_networks
    explain = grad_cam_library.RefineCAM(theirs, [theirs.norm, theirs.second])
    maps = explain(inputs(torch), [ClassifierOutputTarget(c) for c in CLASSES])
    assert_same(explain_nnx(ours, ["norm", "second"])(images, CLASSES, "refinecam").maps[:, 0], maps)


def test_refine_cam_of_torch_cam(torch, torchcam, deep_networks):
    """Of LayerCAM's maps: its Grad-CAM++ does not divide."""
    ours, theirs, images = deep_networks
    shape = (3, *IMAGES.shape[1:3])
    with torchcam.RefineCAM(theirs, ["norm", "second"], shape, base_method=torchcam.LayerCAM) as explain:
        maps = explain(CLASSES, theirs(inputs(torch)))[0].detach()
    single = [explain_nnx(ours, name)(images, CLASSES, "layercam").maps for name in ("norm", "second")]
    assert_same(combine_layers(single, "product")[:, 0], maps)


@pytest.fixture(scope="module")
def captum(torch):
    """Its methods, and the network of pixels."""
    return pytest.importorskip("captum.attr", reason="captum is not installed: make test-parity installs it")


def of_pixels(torch, network):
    """The network in PyTorch with the images' normalization, and the images in 0..255."""
    mean, std = (torch.from_numpy(value[:, None, None]) for value in (MEAN, STD))
    pixels = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).astype(np.float32))
    return (lambda images: network((images - mean) / std)), pixels, torch.from_numpy(MEAN[None, :, None, None])


def network_fn(images):
    return head_fn(features_fn(images))


def test_integrated_gradients_of_captum(torch, network, captum):
    forward, pixels, mean = of_pixels(torch, network)
    options = {"baselines": mean.expand_as(pixels), "target": torch.tensor(CLASSES), "n_steps": 20}
    theirs = captum.IntegratedGradients(forward).attribute(pixels, **options).sum(1).detach()
    assert_same(integrated_gradients(network_fn, IMAGES, CLASSES, baseline=MEAN, num_steps=20)[:, 0], theirs)


@pytest.mark.parametrize(("window", "stride"), [((5, 4), (3, 2)), ((4, 7), (4, 7))])
def test_occlusion_of_captum(torch, network, captum, window, stride):
    forward, pixels, mean = of_pixels(torch, network)
    windows = {"sliding_window_shapes": (3, *window), "strides": (3, *stride)}
    theirs = captum.Occlusion(forward).attribute(pixels, **windows, baselines=mean, target=torch.tensor(CLASSES))
    ours = occlusion(network_fn, IMAGES, CLASSES, window=window, stride=stride, baseline=MEAN)[:, 0]
    np.testing.assert_allclose(ours, theirs[:, 0].detach(), atol=TOLERANCE * float(theirs.abs().max()))


def test_smoothgrad_of_captum_with_the_same_noise(torch, network, captum, monkeypatch):
    forward, pixels, _ = of_pixels(torch, network)
    key, samples = jax.random.key(3), 4
    rows = jnp.array([(image, 0, sample) for image in range(3) for sample in range(samples)])
    drawn = noisy(key, 0.1, jnp.asarray(IMAGES), rows[:, 0], rows) - IMAGES[rows[:, 0]]
    noise = torch.from_numpy(np.array(drawn).transpose(0, 3, 1, 2).copy())
    monkeypatch.setattr(torch, "normal", lambda mean, std: noise)
    tunnel = captum.NoiseTunnel(captum.Saliency(forward))
    gradients = tunnel.attribute(pixels, nt_samples=samples, target=torch.tensor(CLASSES), abs=False)
    ours = smooth_grad(network_fn, IMAGES, CLASSES, noise=0.1, num_samples=samples, key=key)[:, 0]
    assert_same(ours, gradients.abs().amax(1))
