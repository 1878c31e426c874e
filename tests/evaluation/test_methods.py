import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos
from flax import nnx

import camjax
from camjax.attribution import METHODS
from camjax.evaluation.method_maps import NAMES, TRACED
from camjax.evaluation.methods import make_method, method_image_size
from camjax.evaluation.saliency_boxes import saliency_boxes
from camjax.inference import boxes_from_maps, inference_view
from camjax.models import CamModel
from camjax.models.head import FullyConnectedHead, MapHead, PooledHead
from camjax.models.shapes import model_shapes

pytestmark = pytest.mark.usefixtures("quick_programs")

# Each kind of method; a compilation of all would take minutes.
KINDS = ("cam", "cam_ten_crop", "gradcam", "backprop", "center", "scorecam")
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)
LABELS = np.array([4, 0, 9])


def random_statistics(model):
    """Gives BatchNorm statistics that folding has something to do with."""
    for i, layer in enumerate(model.layers):
        generator = np.random.default_rng(i)
        layer.bn.mean[...] = jnp.asarray(generator.normal(0, 0.1, layer.bn.mean.shape), jnp.float32)
        layer.bn.var[...] = jnp.asarray(generator.uniform(0.5, 1, layer.bn.var.shape), jnp.float32)
    return model


@functools.cache
def small_gap():
    return random_statistics(camjax.create_model("small_gap", rngs=nnx.Rngs(0)))


# Compiled once for all tests of this file.
@functools.cache
def method_of(name):
    return make_method(small_gap(), name, top_k=3)


@functools.cache
def result(name):
    return run(method_of(name), images_for(name), LABELS)


def run(method, images, labels):
    """The result in NumPy, which compiles nothing for an index."""
    return jax.device_get(method(images, labels))


def maps_of(model, names, images, labels, top_k=1):
    """What methods give before boxes are drawn, compiled together: name -> `CamOutput`."""

    def methods(model, images, labels):
        return {name: TRACED[name](inference_view(model), images, labels, top_k) for name in names}

    return jax.device_get(jax.jit(methods)(model, images, np.asarray(labels)[:, None]))


def images_for(name):
    return photos((72, 80))[[0, 1, 0]] if name == "cam_ten_crop" else IMAGES


class Colors(CamModel):
    """Its features are the red, green and blue of the image, in 0..1: maps that anyone can foretell."""

    def __init__(self, input_size, head):
        super().__init__(input_size=input_size, stride=1, mean=(0,) * 3, std=(255,) * 3)
        self.head = head

    def backbone(self, x):
        return x


@pytest.mark.parametrize("name", KINDS)
def test_the_top_classes_and_last_the_label(name):
    found = result(name)
    np.testing.assert_array_equal(found.class_ids[:, :3], np.argsort(-found.logits, axis=1)[:, :3])
    np.testing.assert_array_equal(found.class_ids[:, 3], LABELS)
    assert found.class_ids.dtype == np.int32
    assert found.maps.dtype == found.boxes.dtype == found.logits.dtype == np.float32
    assert found.maps.shape[:2] == found.valid.shape == (3, 4) and found.boxes.shape == (3, 4, 4)


@pytest.mark.parametrize("name", sorted({*KINDS} - {"cam_ten_crop"}))
def test_logits_are_those_of_the_model_in_inference_mode(name):
    np.testing.assert_allclose(result(name).logits, camjax.cam_fn(small_gap(), IMAGES).logits, atol=1e-4)


def test_cam_is_cam_and_gradcam_its_positive_part_with_the_same_boxes():
    cam, grad_cam = result("cam"), result("gradcam")
    direct = camjax.cam_fn(small_gap(), IMAGES, cam.class_ids)
    np.testing.assert_allclose(cam.maps, direct.maps, atol=1e-4)
    np.testing.assert_allclose(grad_cam.maps, np.maximum(cam.maps, 0) / (8 * 10), atol=1e-6)
    np.testing.assert_array_equal(grad_cam.valid, cam.maps.max((-2, -1)) > 0)
    assert cam.valid.any()


def test_behind_max_pooling_the_weights_are_those_of_the_dense_layer_as_well():
    model = Colors((8, 8), PooledHead(3, 4, pool="gmp", rngs=nnx.Rngs(0)))
    images = IMAGES[:2, :8, :8]
    found = maps_of(model, ["cam", "gradcam"], images, [1, 2])
    kernel = np.asarray(model.head.kernel[...])
    np.testing.assert_allclose(found["cam"].logits, (images / 255).max((1, 2)) @ kernel, atol=1e-5)
    expected = np.einsum("byxk,bk->byx", images / 255, kernel[:, [1, 2]].T)
    np.testing.assert_allclose(found["cam"].maps[:, 1], expected, atol=1e-5)
    np.testing.assert_allclose(found["gradcam"].maps[:, 1], np.maximum(expected, 0) / 64, atol=1e-6)


def test_methods_of_the_family_are_those_of_the_explainer():
    model = small_gap()
    explain = camjax.explainer(model.features, model.head)
    assert {*NAMES} >= {*METHODS}
    names = [name for name in METHODS if name in TRACED]
    found = maps_of(model, names, IMAGES, LABELS, top_k=2) | {"scorecam": result("scorecam")}
    for name, out in found.items():
        expected = explain(IMAGES, out.class_ids, name)
        np.testing.assert_allclose(out.logits, expected.outputs, atol=1e-4)
        np.testing.assert_allclose(out.maps, expected.maps, atol=1e-4 * np.abs(expected.maps).max(), err_msg=name)


def test_more_classes_an_image_and_none():
    name = "scorecam"
    ids = np.stack([LABELS, (LABELS + 1) % 10], axis=1)
    found = run(method_of(name), IMAGES, ids)
    np.testing.assert_array_equal(found.class_ids, np.concatenate([result(name).class_ids[:, :3], ids], axis=1))
    np.testing.assert_allclose(found.maps[:, :4], result(name).maps, atol=1e-6)
    alone = run(method_of(name), IMAGES, None)
    assert alone.class_ids.shape == (3, 3) and alone.boxes.shape == (3, 3, 4)


def test_a_method_that_perturbs_says_how_far_it_is():
    seen = []
    method = make_method(small_gap(), "ablationcam", top_k=1, chunk_size=50, progress=lambda *at: seen.append(at))
    method(IMAGES, LABELS)
    total = seen[-1][1]
    assert seen[-1] == (total, total) and [done for done, _ in seen] == [*range(50, total, 50), total]


boxes_fn = jax.jit(boxes_from_maps, static_argnums=1)


@pytest.mark.parametrize("name", ["cam", "cam_ten_crop", "gradcam"])
def test_boxes_are_those_of_the_maps_at_a_fifth_of_their_maximum(name):
    boxes, valid = boxes_fn(result(name).maps, images_for(name).shape[1:3], 0.2)
    np.testing.assert_array_equal(result(name).valid, valid)
    np.testing.assert_allclose(result(name).boxes, boxes, atol=1e-6)


def test_boxes_at_another_threshold():
    found = run(make_method(small_gap(), "cam", threshold=0.6, top_k=3), IMAGES, LABELS)
    boxes, _ = boxes_fn(found.maps, (32, 40), 0.6)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-6)
    assert (np.asarray(boxes) != result("cam").boxes).any()


def test_backprop_is_the_image_gradient_with_its_own_box_rule():
    found = result("backprop")
    model = small_gap()
    model.eval()
    gradient = jax.jit(jax.grad(lambda x: model(x)[2, LABELS[2]]))(IMAGES.astype(np.float32))
    expected = np.abs(gradient).max(-1)
    np.testing.assert_allclose(found.maps[2, 3], expected[2], atol=1e-3 * expected.max())
    boxes, valid = saliency_boxes(IMAGES, found.maps)
    np.testing.assert_array_equal(found.boxes, boxes)
    np.testing.assert_array_equal(found.valid, valid)


def test_the_centered_map_is_one_for_all_and_its_box_is_centered():
    found = result("center")
    assert found.maps.shape == (3, 4, 32, 40) and found.valid.all()
    assert (found.maps == found.maps[0, 0]).all() and (found.boxes == found.boxes[0, 0]).all()
    # exp(-r^2 / 2) = 0.2 at r = 1.794 standard deviations of 0.2: 0.359 to each side of the middle.
    np.testing.assert_allclose(found.boxes[0, 0], [0.5 - 0.359] * 2 + [0.5 + 0.359] * 2, atol=1 / 32)
    y0, x0, y1, x1 = found.boxes[0, 0]
    np.testing.assert_allclose([y0 + y1, x0 + x1], 1, atol=1e-6)


def test_ten_crops_of_maps_that_do_not_depend_on_the_crop_give_the_map_of_the_image():
    # A color's map in a crop is the crop of its map: the sum counts the crops that lie over a pixel, each twice.
    model = Colors((21, 28), MapHead(3))
    assert method_image_size(model, "cam_ten_crop") == (24, 32)
    assert method_image_size(model, "cam") == (21, 28)
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 32, 3), np.uint8)
    found = run(make_method(model, "cam_ten_crop", top_k=1), images, [1, 2])
    crops = np.zeros((24, 32))
    for y, x in ((0, 0), (0, 4), (3, 0), (3, 4), (1, 2)):
        crops[y : y + 21, x : x + 28] += 2
    for image, label in ((0, 1), (1, 2)):
        expected = images[image, ..., label] * crops
        np.testing.assert_allclose(found.maps[image, 1], expected / expected.max(), atol=1e-5)


def test_feature_maps_that_are_class_maps_already():
    model = Colors((8, 8), MapHead(3))
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    found = maps_of(model, ["cam", "gradcam"], images, [1, 2])
    for image, label in ((0, 1), (1, 2)):
        np.testing.assert_allclose(found["cam"].maps[image, 1], images[image, ..., label] / 255, atol=1e-6)
    np.testing.assert_allclose(found["gradcam"].maps, found["cam"].maps / 64, atol=1e-7)


def test_fully_connected_layers_leave_gradients_and_the_center():
    head = FullyConnectedHead((16, 16), 3, 4, hidden=5, rngs=nnx.Rngs(1))
    model = Colors((16, 16), head)
    model.train()  # its dropout must not show
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    found = run(make_method(model, "backprop", top_k=2), images, [0, 3])
    of_maps = maps_of(model, ["gradcam", "center"], images, [0, 3], top_k=2)
    model.eval()
    for out in (found, *of_maps.values()):
        np.testing.assert_allclose(out.logits, model(images), rtol=1e-4, atol=1e-4)
        assert out.class_ids.shape == (2, 3) and np.isfinite(out.maps).all()
    for name in ("cam", "cam_ten_crop"):
        with pytest.raises(ValueError, match="has no class activation maps"):
            make_method(model, name)
    with pytest.raises(ValueError, match="GAP variant, 'alexnet_gap'"):
        make_method(model_shapes("alexnet"), "cam")


@pytest.mark.parametrize("name", KINDS)
def test_padding_is_no_error_and_changes_no_other_row(name):
    images, labels = images_for(name).copy(), LABELS.copy()
    images[1:], labels[1:] = 0, 0
    found = run(method_of(name), images, labels)
    assert np.isfinite(found.boxes).all() and np.isfinite(found.maps).all()
    for field, expected in zip(found, result(name), strict=True):
        np.testing.assert_allclose(field[0], expected[0], atol=1e-4)


def test_results_do_not_depend_on_the_batch():
    for i in range(3):
        alone = run(method_of("cam"), IMAGES[i : i + 1], LABELS[i : i + 1])
        np.testing.assert_array_equal(alone.class_ids[0], result("cam").class_ids[i])
        np.testing.assert_allclose(alone.boxes[0], result("cam").boxes[i], atol=1e-6)


def shapes_of(network, names):
    """What the methods give for two images of a network of the registry, without computing it."""
    model = model_shapes(network)
    images = jax.ShapeDtypeStruct((2, *model.input_size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((2, 1), jnp.int32)

    def methods(model, images, labels):
        return {name: TRACED[name](inference_view(model), images, labels, 5) for name in names}

    return jax.eval_shape(methods, model, images, labels)


@pytest.mark.parametrize("network", ["googlenet_gap", "nin", "efficientnet_lite0"])
def test_networks_of_the_registry_with_maps(network):
    for found in shapes_of(network, ["cam", "gradcam"]).values():
        assert found.class_ids.shape == found.maps.shape[:2] == (2, 6) and found.logits.shape == (2, 1000)
        assert found.maps.dtype == jnp.float32 and min(found.maps.shape[2:]) > 1


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_networks_of_the_registry_without_maps(network):
    found = shapes_of(network, ["gradcam", "backprop", "center"])
    side = 227 if network == "alexnet" else 224
    assert found["backprop"].maps.shape == (2, 6, side, side)
    assert found["center"].maps.shape == (1, 1, side, side)
    assert found["gradcam"].maps.shape == (2, 6, *((6, 6) if network == "alexnet" else (7, 7)))


def test_a_method_compiles_once_and_does_not_follow_the_model(caplog):
    model = random_statistics(camjax.create_model("small_gap", rngs=nnx.Rngs(1)))
    method = make_method(model, "cam", top_k=2)
    with jax.log_compiles():
        first = run(method, IMAGES, LABELS)
        assert "Compiling" in caplog.text
        caplog.clear()
        model.head.kernel[...] = model.head.kernel[...] + 1
        caplog.clear()
        second = run(method, IMAGES, LABELS[::-1].copy())
        assert "Compiling" not in caplog.text
    np.testing.assert_array_equal(first.maps[:, :2], second.maps[:, :2])


DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from flax import nnx
from camjax.evaluation.methods import make_method
from camjax.models import CamModel
from camjax.models.head import PooledHead

class Net(CamModel):
    def __init__(self):
        super().__init__(input_size=(16, 16), stride=1, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.head = PooledHead(3, 5, rngs=nnx.Rngs(0))

    def backbone(self, x):
        return nnx.relu(x)

# As weights that were restored onto a device: they may not hold the images fast there.
model = jax.device_put(Net(), jax.devices()[0])
images, labels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8), np.array([3, 1])
for name in ("cam", "backprop", "ablationcam"):
    method, found = make_method(model, name, top_k=2), {}
    for device in jax.devices():
        out = method(*jax.device_put((images, labels), device))
        assert {device} == set().union(*(field.devices() for field in out)), name
        found[device.id] = jax.device_get(out)
    for one, other in zip(found[0], found[1]):
        np.testing.assert_array_equal(one, other)
print(len(jax.devices()))
"""


def test_a_method_follows_its_images_to_their_device():
    done = subprocess.run([sys.executable, "-c", DEVICES], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "2"


def test_wrong_arguments():
    model = small_gap()
    with pytest.raises(ValueError, match="method 'score-cam': expected one of cam, cam_ten_crop, gradcam"):
        make_method(model, "score-cam")
    for name in KINDS:
        with pytest.raises(ValueError, match=r"top_k=11: expected 1\.\.10"):
            make_method(model, name, top_k=11)
        with pytest.raises(ValueError, match="threshold=1"):
            make_method(model, name, threshold=1)
        method = method_of(name)
        with pytest.raises(ValueError, match=r"class_ids of shape \(3, 1, 1\)"):
            method(IMAGES, LABELS[:, None, None])
        with pytest.raises(ValueError, match=r"\[10\] out of range: the model has classes 0\.\.9"):
            method(IMAGES, np.array([0, 10, 1]))
        with pytest.raises(ValueError, match="for 3 images"):
            method(IMAGES, LABELS[:2])
        with pytest.raises(ValueError, match=r"images of shape \(32, 40, 3\)"):
            method(IMAGES[0], LABELS)
    with pytest.raises(ValueError, match=r"images of 32 x 40 pixels: expected \(72, 72\)"):
        make_method(model, "cam_ten_crop")(IMAGES, LABELS)
