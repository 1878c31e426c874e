"""Every method by its name, on a model: `make_cam_fn`, `make_localize_fn`, `make_localize_fns`.

The contract of all rows of the table is on one small network, in two compiled programs and the loops of the methods
that change images; facts of single methods are on networks whose maps are known.
"""

import ast
import collections
import functools
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos, shallow_gap
from flax import nnx

import camjax
from camjax.attribution import METHODS
from camjax.attribution.methods import Needs
from camjax.attribution.saliency_boxes import saliency_boxes
from camjax.boxes import boxes_from_maps
from camjax.inference import make_localize_fns
from camjax.models import CamModel
from camjax.models.head import FullyConnectedHead, MapHead, PooledHead
from camjax.models.shapes import model_shapes
from tests.few_copies import FEW
from tests.tiny_vit import tiny_vit

ATTENTION = [name for name, row in METHODS.items() if row.of_attention]
WHOLE = [name for name, row in METHODS.items() if row.crops is None and not row.of_attention]
CROPS = [name for name, row in METHODS.items() if row.crops is not None]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)
LABELS = np.array([4, 0, 9])
THRESHOLD = 0.4
TOP = 3

every_method = pytest.mark.parametrize("name", METHODS)


@functools.cache
def small_gap():
    return shallow_gap(10)


@functools.cache
def model_for(name):
    return tiny_vit(num_classes=10) if name in ATTENTION else small_gap()


def images_for(name):
    return photos((72, 80))[[0, 1, 0]] if name in CROPS else IMAGES


@functools.cache
def results():
    """name -> `TopAndAsked` of every method, in NumPy."""
    options = {"threshold": THRESHOLD, "top_k": TOP, "options": FEW}
    found = {}
    for names in (WHOLE, CROPS, ATTENTION):
        out = make_localize_fns(model_for(names[0]), names, **options)(images_for(names[0]), LABELS)
        assert list(out) == names
        found |= jax.device_get(out)
    return found


@functools.cache
def cam_fn(name):
    return camjax.make_cam_fn(model_for(name), name, top_k=2, **FEW.get(name, {}))


@functools.cache
def logits():
    return np.asarray(camjax.cam_fn(small_gap(), IMAGES).logits)


class Colors(CamModel):
    """Its features are the red, green and blue of the image, in 0..1, so that its maps are known."""

    def __init__(self, input_size, head):
        super().__init__(input_size=input_size, stride=1, mean=(0,) * 3, std=(255,) * 3)
        self.head = head

    def backbone(self, x):
        return x


# Of every method


def test_no_code_asks_for_a_method_by_its_name():
    """What a method needs and does is in its row. (The names of `camjax.data` are those of crops.)"""
    root = Path(camjax.__file__).parents[1]
    files = [*root.glob("camjax/**/*.py"), *root.glob("experiments/**/*.py")]
    comparisons = [
        (file.name, constant.lineno)
        for file in files
        if "data" not in file.parts
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Compare | ast.match_case)
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and constant.value in METHODS
    ]
    assert len(files) > 100 and comparisons == []


@every_method
def test_the_top_classes_and_the_ones_asked_for_by_name(name):
    top, asked = results()[name]
    np.testing.assert_array_equal(top.class_ids, np.argsort(-top.logits, axis=1)[:, :TOP])
    np.testing.assert_array_equal(asked.class_ids, LABELS[:, None])
    for part, count in ((top, TOP), (asked, 1)):
        assert part.class_ids.dtype == np.int32
        assert part.maps.dtype == part.boxes.dtype == part.logits.dtype == np.float32
        assert part.maps.shape[:2] == part.valid.shape == (3, count) and part.boxes.shape == (3, count, 4)
    if name in WHOLE:
        np.testing.assert_allclose(top.logits, logits(), atol=1e-4)
        np.testing.assert_array_equal(asked.logits, top.logits)


@every_method
def test_boxes_follow_the_rule_of_the_row(name):
    images = images_for(name)
    for part in results()[name]:
        if METHODS[name].host_boxes:
            boxes, valid = METHODS[name].host_boxes(images, part.maps)
        else:
            boxes, valid = jax.jit(boxes_from_maps, static_argnums=1)(part.maps, images.shape[1:3], THRESHOLD)
        np.testing.assert_array_equal(part.valid, valid)
        np.testing.assert_allclose(part.boxes, boxes, atol=1e-6)


@pytest.mark.parametrize("name", WHOLE)
def test_the_explainer_gives_the_same_maps(name):
    model = small_gap()
    explain = camjax.explainer(model.features, model.head)
    top, asked = results()[name]
    part = asked if METHODS[name].is_loop else top  # several classes, where they cost little
    expected = explain(IMAGES, part.class_ids, name, **FEW.get(name, {}))
    np.testing.assert_allclose(part.logits, expected.outputs, atol=1e-4)
    np.testing.assert_array_equal(part.class_ids, expected.class_ids)
    np.testing.assert_allclose(part.maps, expected.maps, atol=1e-4 * np.abs(expected.maps).max())


# One of each kind: what is alone in its program, asked otherwise.
@pytest.mark.parametrize("name", ["cam", "hirescam", "backprop", "center", "ablationcam", "cam_ten_crop", "legrad"])
def test_alone_with_ids_that_override_top_k_and_without(name):
    top, asked = results()[name]
    found = jax.device_get(cam_fn(name)(images_for(name), LABELS))
    np.testing.assert_array_equal(found.class_ids, asked.class_ids)
    np.testing.assert_allclose(found.maps, asked.maps, atol=1e-4 * np.abs(asked.maps).max())
    found = jax.device_get(cam_fn(name)(images_for(name)))
    np.testing.assert_array_equal(found.class_ids, top.class_ids[:, :2])
    np.testing.assert_allclose(found.maps, top.maps[:, :2], atol=1e-4 * np.abs(top.maps).max())


@pytest.mark.parametrize("name", ["cam", "gradcam", "center", "ablationcam"])
def test_all_classes_in_order(name):
    found = jax.device_get(camjax.make_cam_fn(small_gap(), name, top_k=None)(IMAGES))
    np.testing.assert_array_equal(found.class_ids, [range(10)] * 3)
    asked = results()[name].asked
    np.testing.assert_allclose(found.maps[range(3), LABELS], asked.maps[:, 0], atol=1e-4 * np.abs(asked.maps).max())


def test_without_boxes_of_the_top_classes_all_else_is_the_same():
    names = ["cam", "center", "backprop", "ablationcam"]
    options = {"threshold": THRESHOLD, "top_k": TOP, "options": {name: FEW[name] for name in names if name in FEW}}
    found = jax.device_get(make_localize_fns(small_gap(), names, top_boxes=False, **options)(IMAGES, LABELS))
    for name in names:
        top, asked = results()[name]
        assert found[name].top._fields == ("logits", "class_ids", "maps")
        np.testing.assert_array_equal(found[name].top.class_ids, top.class_ids)
        np.testing.assert_allclose(found[name].top.maps, top.maps, atol=1e-4 * np.abs(top.maps).max())
        for field in ("class_ids", "boxes", "valid"):
            np.testing.assert_array_equal(getattr(found[name].asked, field), getattr(asked, field))


def test_nothing_asked_is_none():
    found = make_localize_fns(small_gap(), ["cam"], top_k=TOP)(IMAGES)["cam"]
    assert found.asked is None
    np.testing.assert_array_equal(found.top.class_ids, results()["cam"].top.class_ids)


@every_method
def test_wrong_arguments(name):
    model = model_for(name)
    for make in (camjax.make_cam_fn, camjax.make_localize_fn):
        with pytest.raises(ValueError, match=r"top_k=11: expected 1\.\.10"):
            make(model, name, top_k=11)
        with pytest.raises(ValueError, match=f"{re.escape(name)} has no option size"):
            make(model, name, size=3)
    with pytest.raises(ValueError, match="threshold=1"):
        camjax.make_localize_fn(model, name, threshold=1)
    images = images_for(name)
    for wrong_images, ids, message in (
        (images, LABELS[:, None, None], r"class_ids of shape \(3, 1, 1\)"),
        (images, np.array([0, 10, 1]), r"\[10\] out of range: the model has classes 0\.\.9"),
        (images, LABELS[:2], "for 3 images"),
        (images[0], LABELS, "expected .* RGB"),
    ):
        with pytest.raises(ValueError, match=message):
            cam_fn(name)(wrong_images, ids)


@pytest.mark.parametrize("make", [camjax.make_cam_fn, camjax.make_localize_fn])
def test_a_method_that_is_not_one(make):
    with pytest.raises(ValueError, match=r"'score-cam': expected one of cam, .*Did you mean 'scorecam'"):
        make(small_gap(), "score-cam")
    for number in (5, 0.2, None):
        with pytest.raises(ValueError, match=f"method={number}: expected the name .*top_k=5, threshold=0.2"):
            make(small_gap(), number)
    with pytest.raises(ValueError, match=r"Linear is not a model of camjax: .*explain_nnx"):
        make(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), "gradcam")


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "expected at least one"),
        (["cam", "cam"], {}, "each once"),
        (["cam", "magic"], {}, "'magic': expected one of cam, cam_ten_crop"),
        (["cam", "cam_ten_crop"], {}, "cam takes 64 x 64, cam_ten_crop takes 72 x 72"),
        (["cam", "gradcam"], {"top_k": 11}, "top_k=11"),
        (["cam"], {"threshold": 1}, "threshold=1"),
        (["scorecam"], {"options": {"scorecam": {"std": 1}}}, "scorecam has no option std"),
    ],
)
def test_several_methods_that_do_not_go_together(names, options, message):
    with pytest.raises(ValueError, match=message):
        make_localize_fns(small_gap(), names, **options)


@pytest.mark.parametrize("name", ["cam", "backprop", "scorecam"])
def test_black_images_change_no_other_row(name):
    """The last batch of an evaluation is filled up with them."""
    images, labels = IMAGES.copy(), LABELS.copy()
    images[1:], labels[1:] = 0, 0
    found = jax.device_get(cam_fn(name)(images, labels))
    assert np.isfinite(found.maps).all()
    np.testing.assert_allclose(found.maps[0], results()[name].asked.maps[0], atol=1e-4)


def test_a_method_compiles_once_and_does_not_follow_the_model(caplog):
    model = nnx.clone(small_gap())
    localize = make_localize_fns(model, ["cam", "gradcam"], top_k=2)
    with jax.log_compiles():
        first = jax.device_get(localize(IMAGES, LABELS))
        assert "Compiling" in caplog.text
        model.head.kernel[...] = model.head.kernel[...] + 1
        caplog.clear()
        second = jax.device_get(localize(IMAGES, LABELS[::-1].copy()))
        assert "Compiling" not in caplog.text
    for name in ("cam", "gradcam"):
        np.testing.assert_array_equal(first[name].top.maps, second[name].top.maps)


def test_inside_a_jit_of_your_own():
    localize_fn = camjax.make_localize_fn(small_gap(), "hirescam", threshold=THRESHOLD)
    found = jax.jit(lambda images: localize_fn(images).boxes)(IMAGES)
    np.testing.assert_allclose(found[:, 0], results()["hirescam"].top.boxes[:, 0], atol=1e-6)


def test_another_threshold_is_no_other_program():
    """The cache of compiled programs, which `camjax explain` keeps, has it."""
    if not jax.config.jax_compilation_cache_dir:
        pytest.skip("pytest runs without its cache, where compiled programs are kept")
    camjax.make_localize_fn(small_gap(), threshold=0.2)(IMAGES)
    counts = collections.Counter()
    listen = lambda event, **_: counts.update([event.rsplit("/", 1)[-1]])  # noqa: E731
    jax.monitoring.register_event_listener(listen)
    try:
        camjax.make_localize_fn(small_gap(), threshold=0.61)(IMAGES)
    finally:
        jax.monitoring.unregister_event_listener(listen)
    assert counts["cache_hits"] > 0 and counts["cache_misses"] == 0


def test_the_forward_pass_is_made_once_for_all_methods():
    calls = []

    class Counting(Colors):
        def backbone(self, x):
            calls.append(x.shape)
            return x

    model = Counting((8, 8), PooledHead(3, 4, rngs=nnx.Rngs(0)))
    make_localize_fns(model, ["cam", "gradcam", "layercam", "center"])(IMAGES[:, :8, :8], LABELS % 4)
    assert calls == [(3, 8, 8, 3)]


def test_progress_of_a_method_that_changes_images():
    seen = []
    options = {"chunk_size": 50, "progress": lambda *at: seen.append(at)}
    camjax.make_cam_fn(small_gap(), "ablationcam", **options)(IMAGES, LABELS)
    total = seen[-1][1]
    assert seen[-1] == (total, total) and [done for done, _ in seen] == [*range(50, total, 50), total]


DEVICES = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_disable_most_optimizations", True)
import numpy as np
from flax import nnx
from camjax.attribution import explainer
from camjax.inference import make_localize_fns
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
localize, found = make_localize_fns(model, ["cam", "backprop", "ablationcam"], top_k=2), []
for device in jax.devices():
    out = localize(*jax.device_put((images, labels), device))
    assert {device} == set().union(*(field.devices() for field in jax.tree.leaves(out)))
    found.append(jax.device_get(out))
jax.tree.map(np.testing.assert_array_equal, *found)

images, explain, found = images.astype(np.float32), explainer(Net().features, Net().head), []
for device in jax.devices():
    for name in ("gradcam", "scorecam"):
        explanation = explain(jax.device_put(images, device), labels, name)
        assert {device} == set().union(*(array.devices() for array in (explanation.outputs, explanation.maps))), name
        found.append(np.asarray(explanation.maps))
np.testing.assert_array_equal(found[:2], found[2:])
print(len(jax.devices()))
"""


def test_results_are_on_the_device_of_the_images():
    done = subprocess.run([sys.executable, "-c", DEVICES], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "2"


# Of single methods


def maps_of(model, names, images, labels):
    """name -> maps of the labels, (B, h, w); and the logits."""
    found = jax.device_get(make_localize_fns(model, names)(images, np.asarray(labels)))
    return {name: out.asked.maps[:, 0] for name, out in found.items()}, found[names[0]].top.logits


def test_cam_is_cam_and_gradcam_its_positive_part():
    cam, grad_cam = results()["cam"].top, results()["gradcam"].top
    direct = camjax.cam_fn(small_gap(), IMAGES, cam.class_ids)
    np.testing.assert_allclose(cam.maps, direct.maps, atol=1e-4)
    np.testing.assert_allclose(grad_cam.maps, np.maximum(cam.maps, 0) / (8 * 10), atol=1e-6)
    np.testing.assert_array_equal(grad_cam.valid, cam.maps.max((-2, -1)) > 0)
    assert cam.valid.any()


def test_after_max_pooling_the_weights_are_those_of_the_dense_layer_as_well():
    model = Colors((8, 8), PooledHead(3, 4, pool="gmp", rngs=nnx.Rngs(0)))
    images = IMAGES[:2, :8, :8]
    found, logits = maps_of(model, ["cam", "gradcam"], images, [1, 2])
    kernel = np.asarray(model.head.kernel[...])
    np.testing.assert_allclose(logits, (images / 255).max((1, 2)) @ kernel, atol=1e-5)
    expected = np.einsum("byxk,bk->byx", images / 255, kernel[:, [1, 2]].T)
    np.testing.assert_allclose(found["cam"], expected, atol=1e-5)
    np.testing.assert_allclose(found["gradcam"], np.maximum(expected, 0) / 64, atol=1e-6)


def test_feature_maps_that_are_class_maps_already():
    model = Colors((8, 8), MapHead(3))
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    found, _ = maps_of(model, ["cam", "gradcam"], images, [1, 2])
    for image, label in ((0, 1), (1, 2)):
        np.testing.assert_allclose(found["cam"][image], images[image, ..., label] / 255, atol=1e-6)
    np.testing.assert_allclose(found["gradcam"], found["cam"] / 64, atol=1e-7)
    explain = camjax.explainer(model.features, model.head)
    np.testing.assert_allclose(explain(images, [1, 2], "cam").maps[:, 0], found["cam"], atol=1e-6)


def test_backprop_is_the_image_gradient_with_its_own_box_rule():
    found = results()["backprop"].asked
    model = nnx.clone(small_gap())
    model.eval()
    gradient = jax.jit(jax.grad(lambda x: model(x)[2, LABELS[2]]))(IMAGES.astype(np.float32))
    expected = np.abs(gradient).max(-1)
    np.testing.assert_allclose(found.maps[2, 0], expected[2], atol=1e-3 * expected.max())
    boxes, valid = saliency_boxes(IMAGES, found.maps)
    np.testing.assert_array_equal(found.boxes, boxes)
    np.testing.assert_array_equal(found.valid, valid)


class Depthwise(Colors):
    def __init__(self):
        super().__init__((8, 8), PooledHead(3, 4, rngs=nnx.Rngs(0)))
        self.conv = camjax.models.ConvBN(3, 3, 3, groups=3, rngs=nnx.Rngs(1))
        self.eval()

    def backbone(self, x):
        return self.conv(x)


def test_backprop_of_a_depthwise_convolution():
    model = Depthwise()
    images = IMAGES[:2, :8, :8]
    found = np.asarray(camjax.make_cam_fn(model, "backprop")(images, np.array([[1, 2], [3, 0]])).maps)
    gradient_of = jax.jit(jax.grad(lambda x, image, label: model(x)[image, label]))
    for image, n, label in ((0, 0, 1), (0, 1, 2), (1, 0, 3), (1, 1, 0)):
        gradient = np.asarray(gradient_of(images.astype(np.float32), image, label))
        np.testing.assert_allclose(found[image, n], np.abs(gradient[image]).max(-1), atol=1e-6)


@pytest.mark.parametrize("name", ["cam", "gradcam"])
def test_vmap_of_grad_over_a_depthwise_convolution(name):
    """A gradient for each image on its own is the gradient of the batch: images do not depend on each other."""
    cam_fn = camjax.make_cam_fn(Depthwise(), name)
    images, ids = IMAGES[:2, None, :8, :8].astype(np.float32), np.array([[[1]], [[2]]])

    def score(image, ids):
        return (cam_fn(image, ids).maps ** 2).sum()

    found = jax.jit(jax.vmap(jax.grad(score)))(images, ids)
    expected = jax.jit(jax.grad(score))(images[:, 0], ids[:, 0])
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_centered_map_is_one_for_all_and_its_box_is_centered():
    found = jax.device_get(camjax.make_localize_fn(small_gap(), "center", top_k=2)(IMAGES))
    assert found.maps.shape == (3, 2, 32, 40) and found.valid.all()
    assert (found.maps == found.maps[0, 0]).all() and (found.boxes == found.boxes[0, 0]).all()
    # exp(-r^2 / 2) = 0.2 at r = 1.794 standard deviations of 0.2: 0.359 to each side of the middle.
    np.testing.assert_allclose(found.boxes[0, 0], [0.5 - 0.359] * 2 + [0.5 + 0.359] * 2, atol=1 / 32)
    y0, x0, y1, x1 = found.boxes[0, 0]
    np.testing.assert_allclose([y0 + y1, x0 + x1], 1, atol=1e-6)


def test_ten_crops_of_maps_that_do_not_depend_on_the_crop_give_the_map_of_the_image():
    # A color's map in a crop is the crop of its map: the sum counts the crops that lie over a pixel, each twice.
    model = Colors((21, 28), MapHead(3))
    assert METHODS["cam_ten_crop"].image_size(model) == (24, 32)
    assert METHODS["cam"].image_size(model) == (21, 28)
    images = np.random.default_rng(1).integers(0, 256, (2, 24, 32, 3), np.uint8)
    found, _ = maps_of(model, ["cam_ten_crop"], images, [1, 2])
    crops = np.zeros((24, 32))
    for y, x in ((0, 0), (0, 4), (3, 0), (3, 4), (1, 2)):
        crops[y : y + 21, x : x + 28] += 2
    for image, label in ((0, 1), (1, 2)):
        expected = images[image, ..., label] * crops
        np.testing.assert_allclose(found["cam_ten_crop"][image], expected / expected.max(), atol=1e-5)


def test_ten_crops_of_an_image_that_is_too_small():
    with pytest.raises(ValueError, match=r"images of 32 x 40 pixels: expected \(72, 72\)"):
        camjax.make_cam_fn(small_gap(), "cam_ten_crop")(IMAGES, LABELS)


def test_fully_connected_layers_leave_what_needs_no_kernel():
    head = FullyConnectedHead((16, 16), 3, 4, hidden=5, rngs=nnx.Rngs(1))
    model = Colors((16, 16), head)
    model.train()  # its dropout must not show
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    found = make_localize_fns(model, ["backprop", "gradcam", "center"], top_k=2)(images, [0, 3])
    model.eval()
    for out in found.values():
        np.testing.assert_allclose(out.top.logits, model(images), rtol=1e-4, atol=1e-4)
        assert np.isfinite(out.top.maps).all() and np.isfinite(out.asked.maps).all()
    for name in [name for name, row in METHODS.items() if row.needs is Needs.KERNEL]:
        with pytest.raises(ValueError, match="has no class activation maps"):
            camjax.make_cam_fn(model, name)
    with pytest.raises(ValueError, match="GAP variant, 'alexnet_gap'"):
        camjax.make_cam_fn(model_shapes("alexnet"))


def test_an_explainer_that_knows_no_kernel_names_what_does():
    model = small_gap()
    explain = camjax.explainer(model.features, lambda features: model.head(features))
    with pytest.raises(ValueError, match=r"cam needs the dense kernel.*explainer\(model.features, model.head\)"):
        explain(IMAGES, LABELS, "cam")
    known = camjax.explainer(model.features, model.head)
    with pytest.raises(ValueError, match=r"make_cam_fn\(model, 'cam_ten_crop'\)"):
        known(IMAGES, LABELS, "cam_ten_crop")
    with pytest.raises(ValueError, match="cam explains classes"):
        known(IMAGES, lambda outputs: outputs[:, :1], "cam")


def test_backprop_and_center_of_targets_that_are_functions():
    model = small_gap()
    explain = camjax.explainer(model.features, model.head)
    found = explain(IMAGES, lambda outputs: outputs[:, :2], "backprop")
    np.testing.assert_allclose(found.maps, explain(IMAGES, [[0, 1]] * 3, "backprop").maps, atol=1e-5)
    assert found.class_ids is None
    assert explain(IMAGES, lambda outputs: outputs[:, :2], "center").maps.shape == (3, 2, 32, 40)


def shapes_of(network, name):
    """What a method gives for two images of a network of the registry, without computing it."""
    from camjax.inference import _maps, _top_and_ids

    model = model_shapes(network)
    images = jax.ShapeDtypeStruct((2, *model.input_size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((2, 1), jnp.int32)
    return jax.eval_shape(
        lambda model, images, labels: _maps(model, images, labels, [METHODS[name]], _top_and_ids(5)),
        model,
        images,
        labels,
    )[name]


@pytest.mark.parametrize("network", ["googlenet_gap", "nin", "efficientnet_lite0"])
def test_networks_of_the_registry_with_maps(network):
    for name in ("cam", "gradcam"):
        found = shapes_of(network, name)
        assert found.class_ids.shape == found.maps.shape[:2] == (2, 6) and found.logits.shape == (2, 1000)
        assert found.maps.dtype == jnp.float32 and min(found.maps.shape[2:]) > 1


@pytest.mark.parametrize(("network", "side", "cells"), [("alexnet", 227, 6), ("vgg16", 224, 7)])
def test_networks_of_the_registry_without_maps(network, side, cells):
    assert shapes_of(network, "backprop").maps.shape == (2, 6, side, side)
    assert shapes_of(network, "gradcam").maps.shape == (2, 6, cells, cells)
