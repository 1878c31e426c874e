"""The paper's networks and the benchmark's: the layers that only they have, and one training step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos
from flax import nnx

import camjax
from camjax.models.base import CamModel, MeanImage
from camjax.models.caffe_layers import conv, lrn, max_pool
from camjax.models.head import FullyConnectedHead, MapHead
from camjax.models.shapes import model_shapes
from camjax.training.losses import cross_entropy

PAPER = ("alexnet", "alexnet_gap", "alexnet_star_gap", "vgg16", "vgg16_gap", "vgg16_wsol", "vgg16_wsol_28x28")
PAPER += ("googlenet", "googlenet_gap", "nin", "inception_v3", "inception_v3_wsol", "inception_v3_wsol_28x28")


def test_lrn_of_three_channels_by_hand():
    x = np.array([[[[1, 2, -3]]]], np.float32)
    # size 3: sums of squares 1 + 4, 1 + 4 + 9, 4 + 9; alpha / size = 1, beta = 1.
    found = jax.jit(lambda x: lrn(x, size=3, alpha=3, beta=1))(x)
    np.testing.assert_allclose(found[0, 0, 0], [1 / 6, 2 / 15, -3 / 14], rtol=1e-6)
    large = np.full((1, 1, 1, 5), 300, np.float32)
    # Caffe's defaults: of the middle channel 1 + 1e-4 / 5 * 5 * 300^2 = 10, of the first 1 + 1e-4 / 5 * 3 * 300^2.
    found = np.asarray(jax.jit(lrn)(large))
    np.testing.assert_allclose(found[0, 0, 0, [2, 0]], [300 / 10**0.75, 300 / 6.4**0.75], rtol=1e-6)
    assert jax.eval_shape(lrn, jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("row", "size", "strides", "padding", "expected"),
    [
        ([1, 2, 3, 4, 5], 3, 2, 0, [3, 5]),
        ([1, 2, 3, 4, 5, 6], 3, 2, 0, [3, 5, 6]),  # the last window is half outside
        ([-1, -2, -3, -4], 3, 2, 0, [-1, -3]),  # and takes nothing from there, no zero
        ([5, -1], 3, 2, 0, [5]),
        ([1, 2, 3, 4], 3, 2, 1, [2, 4, 4]),
        ([1, 2, 3], 2, 2, 1, [1, 3]),  # a third window would begin in the padding
        ([1, 4, 3], 3, 1, 1, [4, 4, 4]),
    ],
)
def test_pooling_that_rounds_up(row, size, strides, padding, expected):
    row = np.array(row, np.float32)
    images = np.maximum(row[:, None], row)[None, :, :, None]  # of which pooling is the same of the pooled row
    expected = np.maximum(np.array(expected)[:, None], np.array(expected))
    found = jax.jit(max_pool, static_argnums=(1, 2, 3))(images, size, strides, padding)
    np.testing.assert_array_equal(found[0, :, :, 0], expected)


def test_a_first_convolution_keeps_the_scale():
    x = np.random.default_rng(0).normal(0, 64, (1, 40, 40, 4)).astype(np.float32)
    for groups in (1, 2):
        layer = conv(4, 128, 5, groups=groups, input_deviation=64, rngs=nnx.Rngs(1))
        y = jax.jit(lambda layer, x: layer(x))(layer, x)
        np.testing.assert_allclose(np.square(y).mean(), 2, rtol=0.2)  # of which a ReLU leaves one half


class Identity(CamModel):
    """Its features are the images as a first layer takes them."""

    def __init__(self, **rule):
        super().__init__(input_size=(4, 4), stride=1, mean=(1, 2, 3), std=(1, 2, 4), **rule)
        self.head = MapHead(3)
        self.scale = nnx.Param(jnp.ones(()))

    def backbone(self, x):
        return x * self.scale[...]


def test_order_of_channels_and_mean():
    image = np.array([11, 22, 43], np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_array_equal(Identity().features(image).ravel(), [10, 10, 10])
    np.testing.assert_array_equal(Identity(channel_order="bgr").features(image * 2).ravel(), [20.75, 21, 21])


def test_mean_image():
    model, images = Identity(), np.full((2, 2, 4, 3), 200, np.uint8)
    mean = np.arange(4 * 4 * 3.0).reshape(4, 4, 3)
    model.set_input_rule(mean=(0, 0, 0), channel_order="bgr", mean_image=mean)
    np.testing.assert_array_equal(model.features(images), np.tile(200 - mean[1:3, :, ::-1], (2, 1, 1, 1)))
    np.testing.assert_array_equal(camjax.make_cam_fn(model, top_k=None)(images).maps[0, 0], 200 - mean[1:3, :, 2])
    # A larger image has the mean image at its size: here every pixel twice, and halfway between them.
    model.set_input_rule(mean=(0, 0, 0), mean_image=np.stack([np.zeros((2, 3)), np.full((2, 3), 8.0)]))
    np.testing.assert_array_equal(model.features(np.zeros((1, 4, 1, 3)))[0, :, 0, 0], [0, -2, -6, -8])
    model.set_input_rule(mean=(5, 5, 5))
    assert model.mean_image is None and model.features(np.zeros((1, 1, 1, 3))).max() == -5


def test_a_mean_image_is_state_and_no_parameter():
    model = Identity()
    model.set_input_rule(mean=(0, 0, 0), mean_image=np.ones((2, 2, 3)))
    assert isinstance(model.mean_image, MeanImage)
    assert set(nnx.to_pure_dict(nnx.state(model, nnx.Param))) == {"scale"}
    assert set(nnx.to_pure_dict(nnx.state(model))) == {"scale", "mean_image"}
    grads = nnx.grad(lambda model: model(np.zeros((1, 2, 2, 3))).sum())(model)
    assert set(nnx.to_pure_dict(grads)) == {"scale"}
    np.testing.assert_array_equal(nnx.clone(model).mean_image[...], model.mean_image[...])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"mean": (1, 2)}, "three numbers each"),
        ({"mean": (1, 2, 3), "std": (1, 0, 1)}, "std > 0"),
        ({"mean": (1, 2, 3), "channel_order": "gbr"}, "channel_order='gbr'"),
        ({"mean": (1, 2, 3), "mean_image": np.zeros((1, 4, 4, 3))}, r"mean_image of shape \(1, 4, 4, 3\)"),
    ],
)
def test_bad_input_rules_leave_the_model_as_it_was(rule, message):
    model = Identity(channel_order="bgr")
    with pytest.raises(ValueError, match=message):
        model.set_input_rule(**rule)
    assert (model.mean, model.channel_order, model.mean_image) == ((1, 2, 3), "bgr", None)


@pytest.mark.parametrize(("name", "variant"), [("alexnet", "alexnet_gap"), ("vgg16", "vgg16_gap")])
def test_fully_connected_networks_have_no_maps_and_name_the_one_that_has(name, variant):
    model = model_shapes(name)
    images = np.zeros((1, *model.input_size, 3), np.uint8)
    for ask in (camjax.make_cam_fn, camjax.make_localize_fn, lambda model: camjax.cam_fn(model, images)):
        with pytest.raises(ValueError, match=f"no class activation maps.*Take its GAP variant, '{variant}'"):
            ask(model)
    with pytest.raises(ValueError, match="fully connected layers expect"):
        jax.eval_shape(lambda model, images: model(images), model, images[:, :-70])
    with pytest.raises(ValueError, match="Leave pool out"):
        model_shapes(name, pool="gmp")


def test_fully_connected_head_by_hand():
    head = nnx.eval_shape(lambda: FullyConnectedHead((1, 2), 2, 3, hidden=4, rngs=nnx.Rngs(0)))
    head.eval()
    features = np.array([[[[1, 2], [3, 4]]]], np.float32)  # flattened as Caffe does, channel by channel: 1, 3, 2, 4
    last = np.zeros((4, 3))
    last[[0, 1, 3], range(3)] = 1
    last[2] = 5
    kernels = {"fc6": np.diag([1, 10, -1, 100]), "fc7": np.eye(4), "fc8": last}
    for name, kernel in kernels.items():
        layer, bias = getattr(head, name), [0, 0, 0.5] if name == "fc8" else np.zeros(4)
        layer.kernel.set_value(jnp.asarray(kernel, jnp.float32))
        layer.bias.set_value(jnp.asarray(bias, jnp.float32))
    np.testing.assert_array_equal(jax.jit(lambda features: head(features))(features), [[1, 30, 400.5]])


class Colors(Identity):
    """Three classes, whose maps are the channels of the image."""

    def __init__(self, pool="gap"):
        super().__init__()
        self.set_input_rule(mean=(0, 0, 0))
        self.head = MapHead(3, pool=pool)


def test_class_maps_without_a_kernel():
    model, images = Colors(), photos((4, 6))
    assert (model.head.kernel, model.head.bias, model.exact_cam) == (None, None, True)
    maps = images.transpose(0, 3, 1, 2).astype(np.float32)
    out = camjax.cam_fn(model, images, [[2, 0], [1, 1]])
    np.testing.assert_array_equal(out.maps, np.stack([maps[0, [2, 0]], maps[1, [1, 1]]]))
    np.testing.assert_allclose(out.logits, maps.mean((2, 3)), rtol=1e-6)
    np.testing.assert_array_equal(camjax.make_cam_fn(model, top_k=None)(images).maps, maps)
    top = camjax.make_localize_fn(model, top_k=2)(images)
    np.testing.assert_array_equal(top.class_ids, np.argsort(-maps.mean((2, 3)), 1)[:, :2])

    assert not Colors("gmp").exact_cam
    np.testing.assert_array_equal(camjax.cam_fn(Colors("gmp"), images).logits, maps.max((2, 3)))


def test_class_ids_without_a_kernel():
    model, images = Colors(), photos((4, 6))
    with pytest.raises(ValueError, match=r"0\.\.2"):
        camjax.cam_fn(model, images, [3, 0])
    with pytest.raises(ValueError, match=r"1\.\.3"):
        camjax.make_cam_fn(model, top_k=4)
    traced = jax.jit(lambda model, ids: camjax.cam_fn(model, images, ids).maps)(model, jnp.array([-1, 0]))
    assert np.isnan(traced[0]).all() and not np.isnan(traced[1]).any()


@pytest.mark.parametrize("options", [{"pool": "mean"}, {"num_classes": 0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="expected"):
        camjax.create_model("nin", **options)


@jax.jit
def loss_and_gradients(model, images, labels):
    return nnx.value_and_grad(lambda model: cross_entropy(model(images), labels).mean())(model)


QUICK_STEPS = {("alexnet_star_gap", "float32"), ("nin", "bfloat16")}
STEPS = [
    pytest.param(name, dtype, marks=[pytest.mark.long] * ((name, dtype) not in QUICK_STEPS))
    for name in PAPER
    for dtype in ("float32", "bfloat16")
]


@pytest.mark.parametrize(("name", "dtype"), STEPS)
def test_gradients_of_one_step(name, dtype):
    model = camjax.create_model(name, 5, dtype=jnp.dtype(dtype))
    model.train()
    size = model.input_size if hasattr(model, "cam_variant") else (model.min_size + 2 * model.stride,) * 2
    loss, gradients = loss_and_gradients(model, photos(size), np.array([1, 3]))
    assert 0 < loss < 20  # ln 5 = 1.6: logits of a moderate size
    for path, gradient in nnx.iter_graph(gradients):
        if isinstance(gradient, nnx.Variable):
            assert np.isfinite(gradient[...]).all() and np.abs(gradient[...]).max() > 0, path
