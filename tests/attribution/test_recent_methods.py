"""Methods of the last years: networks small enough for pencil and paper, and identities with older methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import shallow_gap
from flax import nnx

import camjax
from camjax import attribution
from camjax.attribution import METHODS, combine_layers, explain_nnx, explainer, targets
from camjax.attribution.averaged_gradients import one_copy_each
from camjax.attribution.decomposition import kernel_component
from camjax.attribution.methods import Needs
from camjax.attribution.perturbation import score_cam_maps

rng = np.random.default_rng(0)
KERNEL = rng.normal(size=(6, 4)).astype(np.float32)
FEATURES = rng.uniform(size=(3, 5, 7, 6)).astype(np.float32)
IDS = np.array([[3, 0], [1, 1], [0, 2]])


def gap_head(features):
    return features.mean((1, 2)) @ KERNEL + 1.0


# Finer-CAM


def test_finer_cam_of_a_pooled_head_is_grad_cam_of_the_difference_of_its_weights():
    family = [0, 1, 3]  # each class is compared with the others

    @jax.jit
    def found(features):
        """With look-alikes, and the same without what they take away."""
        return (
            attribution.finer_cam(gap_head, features, IDS, similar=family, strength=0.5, weights="mean"),
            attribution.finer_cam(gap_head, features, IDS, strength=0),
            attribution.grad_cam(gap_head, features, IDS),
        )

    maps, without, grad_cam = map(np.asarray, found(FEATURES))
    for image, ids in enumerate(IDS):
        for n, c in enumerate(ids):
            others = [d for d in family if d != c]
            weights = KERNEL[:, c] - 0.5 * KERNEL[:, others].mean(1)
            np.testing.assert_allclose(maps[image, n], np.maximum(FEATURES[image] @ weights / 35, 0), atol=1e-6)
    np.testing.assert_allclose(without, grad_cam, atol=1e-6)


@pytest.mark.parametrize("name", ["finercam", "finercam_mean"])
def test_finer_cam_by_name_is_grad_cam_of_its_target(name):
    model = shallow_gap(5)
    images, ids = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.uint8), np.array([[1, 4], [2, 0]])
    explain = explainer(model.features, model.head)
    defaults = {} if name == "finercam" else {"weights": "mean", "strength": 0.6}
    for options in ({}, {"similar": [[3], [1]], "strength": 0.3}):
        expected = explain(images, targets.finer(ids, **{**defaults, **options}), "gradcam").maps
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(explain(images, ids, name, **options).maps, expected, atol=1e-6)
        cam_fn = camjax.make_cam_fn(model, name, **options)
        np.testing.assert_allclose(cam_fn(images, ids).maps, expected, rtol=1e-4, atol=1e-6)
    for wrong, message in (
        ({"similar": [5]}, r"\[5\]: expected classes in 0\.\.4"),
        ({"similar": [1, 1]}, "each class once"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(images, ids, name, **wrong)
        with pytest.raises(ValueError, match=message):
            camjax.make_cam_fn(model, name, **wrong)(images, ids)
    with pytest.raises(ValueError, match=f"{name} explains classes"):
        explain(images, targets.classes(ids), name)


# Curvature


def test_shapley_cam_by_hand():
    # S = f^2 + f g of one cell each: gradients (2f + g, f), Hessian times features (2f + g, f): half of the gradients.
    def head_fn(features):
        f, g = features[..., 0].sum((1, 2)), features[..., 1].sum((1, 2))
        return jnp.stack([f**2 + f * g, f + 2 * g], 1)

    f = np.array([[3.0, 0], [0, 0]])
    features = np.stack([f, f / 3 * 2], -1)[None]
    maps = np.asarray(jax.jit(lambda features: attribution.shapley_cam(head_fn, features, [[0, 1]]))(features))
    # S is 9 + 6: weights 4 and 1.5, the same at each of four cells. The second score is linear: Grad-CAM, 1 and 2.
    np.testing.assert_allclose(maps[0, :, 0, 0], [4 * 3 + 1.5 * 2, 1 * 3 + 2 * 2])
    np.testing.assert_allclose(maps[0, :, 0, 1], 0)


def test_shapley_cam_is_grad_cam_where_the_score_is_linear_and_not_of_the_residual_softmax():
    @jax.jit
    def both(features, target):
        return attribution.shapley_cam(gap_head, features, target), attribution.grad_cam(gap_head, features, target)

    np.testing.assert_allclose(*both(FEATURES, targets.classes(IDS)), atol=1e-6)
    curved, linear = map(np.asarray, both(FEATURES, targets.residual_softmax(IDS)))
    assert np.abs(curved - linear).max() > 1e-3


# Components and factors


def test_seg_eigen_cam_by_hand():
    # dS/df is (-4, 3): magnitudes make the terms (12 a, 12 a). The furthest of a - 2 is 3; of its opposite, too.
    steps = np.array([[0.0, 1], [2, 5]])
    features = steps[..., None] * np.array([3.0, 4])

    def head_fn(features):
        return features.sum((1, 2)) @ jnp.array([[-4.0, 4], [3, -3]])

    for sign in (1, -1):
        maps = attribution.seg_eigen_cam(head_fn, sign * features[None], [[0, 1]])
        np.testing.assert_allclose(maps[0], [12 * np.sqrt(2) * (steps - 2)] * 2, atol=1e-4)


@pytest.mark.parametrize("gamma", [None, 0.7])
def test_kernel_component_is_that_of_scikit_learn(gamma):
    from sklearn.decomposition import KernelPCA

    features = (rng.normal(size=(2, 4, 5, 6)) ** 2).astype(np.float32)
    found = np.asarray(kernel_component(features, gamma))
    for image, maps in zip(features, found, strict=True):
        cells = image.reshape(-1, 6) - image.reshape(-1, 6).mean(0)
        expected = KernelPCA(1, kernel="sigmoid", gamma=gamma).fit_transform(cells.astype(np.float64))[:, 0]
        expected *= np.sign(expected @ cells.sum(1))
        np.testing.assert_allclose(maps.ravel(), expected, atol=1e-4 * np.abs(expected).max())
    # A small gamma makes the kernel linear: KPCA-CAM is Eigen-CAM, but for its scale.
    linear = np.asarray(kernel_component(features, 1e-7))
    expected = np.asarray(attribution.eigen_cam(lambda f: f.mean((1, 2)), features, [0, 0])[:, 0])
    scale = np.abs(expected).max() / np.abs(linear).max()
    np.testing.assert_allclose(linear * scale, expected, atol=1e-4 * np.abs(expected).max())


def test_fem_by_hand():
    # Of four cells (0, 0, 0, 4): mean 1, deviation 1.73; 4 is above by 1.73 deviations. The other channel is constant.
    features = np.stack([np.array([[0.0, 0], [0, 4]]), np.full((2, 2), 0.1)], -1)[None]
    head_fn = lambda features: features.mean((1, 2))  # noqa: E731
    maps = attribution.fem(head_fn, features, [[0, 1]], deviations=1.7)
    np.testing.assert_allclose(maps[0], [[[0, 0], [0, 1]]] * 2)
    np.testing.assert_array_equal(attribution.fem(head_fn, features, [0], deviations=1.75), 0)


def test_factors_that_do_not_overlap_are_found():
    # Three parts of the map, each with a channel or two of its own, on an offset of 2; one image has only two of them.
    maps = np.zeros((2, 3, 4, 4), np.float32)
    maps[0, 0, :2], maps[0, 1, 2:, :2], maps[0, 2, 2:, 2:] = 3, 2, 1
    maps[1, 0, 1], maps[1, 1, 3] = 1, 4
    directions = np.array([[1.0, 0, 0, 0, 0], [0, 0.6, 0.8, 0, 0], [0, 0, 0, 1, 0]], np.float32)
    features = np.einsum("bjhw,jk->bhwk", maps, directions) + 2
    found = jax.device_get(attribution.deep_feature_factorization(features, 4))
    order = np.argmax(found.directions @ directions.T, axis=0)
    np.testing.assert_allclose(found.directions[order], directions, atol=1e-3)
    np.testing.assert_allclose(found.maps[:, order], maps, atol=1e-2)
    np.testing.assert_allclose(found.offset, 2)
    (spare,) = {0, 1, 2, 3} - {*order.tolist()}
    np.testing.assert_allclose(found.maps[:, spare], 0, atol=1e-2)
    # By name: the factor that says most for a class. Class 0 looks at the second channel, class 1 at the fourth.
    head_fn = lambda features: features.mean((1, 2))[:, [1, 3]]  # noqa: E731
    shown = jax.jit(lambda features: attribution.dff(head_fn, features, [[0, 1], [0, 0]], num_factors=3))(features)
    shown = np.asarray(shown)
    np.testing.assert_allclose(shown[0], maps[0, 1:], atol=1e-2)
    np.testing.assert_allclose(shown[1], maps[1, [1, 1]], atol=1e-2)
    with pytest.raises(ValueError, match="num_factors=0"):
        attribution.deep_feature_factorization(features, 0)


def test_factors_are_those_of_scikit_learn():
    from sklearn.decomposition import NMF

    features = (rng.normal(size=(2, 4, 5, 6)) ** 2).astype(np.float32)
    found = attribution.deep_feature_factorization(features, 3)
    rows = (features - features.min((0, 1, 2))).reshape(-1, 6).T.astype(np.float64)
    network = NMF(3, init="nndsvd")
    left = network.fit_transform(rows)
    lengths = np.linalg.norm(left, axis=0)
    np.testing.assert_allclose(found.directions, (left / lengths).T, atol=2e-3)
    expected = (network.components_ * lengths[:, None]).reshape(3, 2, 4, 5).swapaxes(0, 1)
    np.testing.assert_allclose(found.maps, expected, atol=2e-3 * expected.max())


# Loops


def test_recipro_cam_by_hand():
    def head_fn(features):
        total = features.sum((1, 2))
        return jnp.stack([total[:, 0], 2 * total[:, 1], 0 * total[:, 0]], 1)

    features = np.stack([np.array([[1.0, 0, 0], [0, 2, 0]]), np.array([[0, 0, 0], [0.5, 0, 0]])], -1)[None]
    scores = attribution.recipro_cam(head_fn, features, targets.classes([[0, 1]]), chunk_size=4)
    np.testing.assert_allclose(scores[0], [[[1, 0, 0], [0, 2, 0]], [[0, 0, 0], [1, 0, 0]]])
    # A third of the probability without features.
    maps = attribution.recipro_cam(head_fn, features, [[0, 1]])
    e = np.exp
    first = [[e(1) / (e(1) + 2), 1 / 3, 1 / 3], [1 / (2 + e(1)), e(2) / (e(2) + 2), 1 / 3]]
    np.testing.assert_allclose(maps[0, 0], np.array(first) - 1 / 3, atol=1e-6)
    # In the corner the window loses 7 of its 16 sixteenths, at the lower edge 4.
    spread = attribution.recipro_cam(head_fn, features, targets.classes([0]), gaussian=True)
    np.testing.assert_allclose(spread[0, 0], [[9 / 16, 0, 0], [0, 2 * 12 / 16, 0]], atol=1e-6)


def test_recipro_cam_of_a_pooled_head_s_scores_is_hires_cam():
    maps = attribution.recipro_cam(gap_head, FEATURES, targets.classes(IDS), chunk_size=8)
    np.testing.assert_allclose(maps, attribution.hires_cam(gap_head, FEATURES, IDS), atol=1e-5)


def test_faster_score_cam_is_score_cam_of_the_channels_that_vary_most():
    images = rng.uniform(size=(2, 10, 14, 6)).astype(np.float32) * np.array([1, 3, 0.5, 2, 1.5, 0], np.float32)
    features_fn = lambda images: images.reshape(-1, 5, 2, 7, 2, 6).mean((2, 4))  # noqa: E731
    features = features_fn(images)
    inputs = {"features_fn": features_fn, "images": images}
    maps = attribution.faster_score_cam(gap_head, features, IDS[:2], num_channels=2, **inputs)
    chosen = np.argsort(-features.var((1, 2)), axis=1)[:, :2]
    assert {tuple(sorted(c)) for c in chosen.tolist()} == {(1, 3)}
    network = attribution.cut_network(features_fn, gap_head)
    expected = score_cam_maps(network, images, features[..., [1, 3]], targets.classes(IDS[:2]))
    np.testing.assert_allclose(maps, expected, rtol=1e-5)
    for count in (6, 60):
        maps = attribution.faster_score_cam(gap_head, features, IDS[:2], num_channels=count, **inputs)
        np.testing.assert_allclose(maps, attribution.score_cam(gap_head, features, IDS[:2], **inputs), rtol=1e-5)
    with pytest.raises(ValueError, match="num_channels=0"):
        attribution.faster_score_cam(gap_head, features, IDS[:2], num_channels=0, **inputs)


def test_smooth_grad_cam_plus_plus_is_the_mean_of_powers():
    def head_fn(features):
        return jnp.tanh(features).mean((1, 2)) @ KERNEL

    options = {"features_fn": lambda images: images, "images": FEATURES}
    still = attribution.smooth_grad_cam_plus_plus(head_fn, FEATURES, IDS, noise=0.0, num_samples=2, **options)
    np.testing.assert_allclose(still, attribution.grad_cam_plus_plus(head_fn, FEATURES, IDS), rtol=1e-4, atol=1e-6)

    key, seen = jax.random.key(5), []
    noisy = attribution.smooth_grad_cam_plus_plus(
        head_fn, FEATURES, IDS, num_samples=3, noise=0.4, key=key, progress=lambda *at: seen.append(at), **options
    )
    assert seen == [(3, 9), (6, 9), (9, 9)]
    copies = [np.asarray(one_copy_each(key, 0.4, FEATURES, i)) for i in range(3)]
    gradients = np.stack([(1 - np.tanh(x) ** 2)[:, None] * KERNEL.T[IDS][:, :, None, None] / 35 for x in copies])
    first, second, third = (np.mean(gradients**p, 0, np.float64) for p in (1, 2, 3))
    shares = second / (2 * second + third * FEATURES.sum((1, 2))[:, None, None, None])
    weights = (shares * np.maximum(first, 0)).sum((2, 3))
    np.testing.assert_allclose(noisy, np.maximum(np.einsum("bhwk,bnk->bnhw", FEATURES, weights), 0), rtol=1e-4)
    noise = (copies[0] - FEATURES) / np.ptp(FEATURES, (1, 2, 3), keepdims=True)
    np.testing.assert_allclose(noise.std((1, 2, 3)), 0.4, rtol=0.2)
    with pytest.raises(ValueError, match="num_samples=0"):
        attribution.smooth_grad_cam_plus_plus(head_fn, FEATURES, IDS, num_samples=0, **options)


# Inside of the network


class Block(nnx.Module):
    """Halves the map; inside of it there is a larger one."""

    def __init__(self, rngs):
        self.inner = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.outer = nnx.Conv(4, 5, (3, 3), 2, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.outer(nnx.relu(self.inner(x))))


class Deep(nnx.Module):
    """Piecewise linear, with biases of every kind; maps of 8 x 8, 8 x 8, 4 x 4 and 2 x 2."""

    def __init__(self, rngs):
        self.first = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([Block(rngs)])
        self.mix = nnx.Linear(5, 6, rngs=rngs)
        self.plain = nnx.Conv(6, 6, (2, 2), 2, use_bias=False, rngs=rngs)
        self.unused = nnx.Conv(6, 6, (1, 1), rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)
        for layer in (self.first, self.blocks[0].inner, self.blocks[0].outer, self.mix, self.head, self.norm):
            layer.bias[...] = np.random.default_rng(3).normal(size=layer.bias.shape).astype(np.float32)
        self.norm.mean[...], self.norm.var[...] = np.arange(4, dtype=np.float32), np.arange(1, 5, dtype=np.float32)

    def __call__(self, images):
        x = nnx.relu(self.norm(self.first(images)))
        return self.head(nnx.relu(self.plain(nnx.relu(self.mix(self.blocks[0](x))))).mean((1, 2)))


@pytest.fixture(scope="module")
def deep():
    return Deep(nnx.Rngs(0))


IMAGES = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)


def test_full_grad_adds_up_to_the_score(deep, monkeypatch):
    """Without psi, the magnitude and the scale: the sum over the map, for each channel, is its share of the score."""
    terms = {}

    def keep(images, image_gradients, biases, bias_gradients):
        parts = [(images[:, None] * image_gradients).sum((2, 3, 4))]
        parts += [(b * g).sum((2, 3, 4)) for b, g in zip(biases, bias_gradients, strict=True)]
        terms["all"] = jnp.stack(parts)
        return full_grad_maps(images, image_gradients, biases, bias_gradients)

    from camjax.attribution import full_gradient
    from camjax.attribution.engine import attribute
    from camjax.attribution.methods import Method

    full_grad_maps = full_gradient.full_grad_maps
    network = explain_nnx(deep, "plain").network
    row = Method("kept", Needs.BIASES, keep)

    @jax.jit
    def kept(network, images):
        return attribute(network, images, lambda outputs: IDS, [row])["kept"], terms.pop("all")

    found, parts = jax.device_get(kept(network, IMAGES))
    # The image, two convolutions in a block, one before it, a BatchNorm and a dense layer on the map.
    assert parts.shape == (6, 3, 2) and (np.abs(parts).max((1, 2)) > 0).all()
    expected = np.take_along_axis(found.outputs - np.asarray(deep.head.bias), IDS, 1)
    np.testing.assert_allclose(parts.sum(0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(explain_nnx(deep, "norm")(IMAGES, IDS, "fullgrad").maps, found.maps, rtol=1e-4)


def test_full_grad_by_hand():
    # One channel of the image, and one layer of two cells on its four pixels.
    images = np.array([[[[1.0]], [[2]], [[3]], [[4]]]])
    gradients = np.array([1.0, -1, 1, 0]).reshape(1, 1, 4, 1, 1)
    from camjax.attribution.full_gradient import full_grad_maps

    maps = full_grad_maps(images, gradients, [np.array([2.0])], [np.array([3.0, -1]).reshape(1, 1, 2, 1, 1)])
    # Products 1, -2, 3, 0 in thirds; the layer's 6, -2 become 1, 0, resized 1, 3/4, 1/4, 0.
    np.testing.assert_allclose(maps.ravel(), [1 / 3 + 1, 2 / 3 + 3 / 4, 1 + 1 / 4, 0], atol=1e-6)


def test_refine_cam_multiplies_the_last_layers_of_each_size(deep):
    names = ["norm", "mix", "plain"]  # and no part of a block
    single = [np.asarray(explain_nnx(deep, name)(IMAGES, IDS, "gradcam++").maps) for name in names]
    assert [m.shape[2:] for m in single] == [(8, 8), (4, 4), (2, 2)]
    product = jax.jit(lambda maps: combine_layers(maps, "product"))
    expected = np.asarray(product(single))
    assert expected.max((2, 3)).any()
    np.testing.assert_allclose(explain_nnx(deep, "plain")(IMAGES, IDS, "refinecam").maps, expected, atol=1e-5)
    # Of layers that were named, these.
    two = explain_nnx(deep, names[1:])(IMAGES, IDS, "refinecam").maps
    np.testing.assert_allclose(two, product(single[1:]), atol=1e-5)
    network = explain_nnx(deep, names[1:]).network
    refine = jax.jit(lambda images: attribution.refine_cam(network.head_of(images), network.features(images), IDS))
    np.testing.assert_allclose(refine(IMAGES), two, atol=1e-5)


def test_combine_layers_by_product_by_hand():
    small, large = np.array([[1.0, 3]]), np.array([[0.0, 2, 4, 0]])
    # 0, 1 resized to 0, 1/4, 3/4, 1; times 0, 1/2, 1, 0.
    found = jax.jit(lambda *maps: combine_layers(maps, "product"))(small[None, None], large[None, None])
    np.testing.assert_allclose(found, [[[[0, 1 / 8, 3 / 4, 0]]]])
    with pytest.raises(ValueError, match="'mean', 'max' or 'product'"):
        combine_layers([small[None, None]], "sum")


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.combine or row.needs is Needs.BIASES])
def test_a_network_whose_layers_are_not_known(name):
    explain = explainer(lambda images: images, gap_head)
    with pytest.raises(ValueError, match="whose layers can be found"):
        explain(FEATURES, IDS, name)
