import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos
from flax import nnx

import camjax
from camjax.attribution import targets
from camjax.boxes import boxes_from_maps
from camjax.data.images import resize_image
from camjax.errors import InputError
from camjax.inference import _cam_jit
from camjax.models.conv import as_read
from camjax.models.inference_mode import inference_view

SMALL, OBLONG, ODD = (224, 224), (256, 192), (97, 130)


def identity_error(model, out):
    """Largest |mean of M_c + b_c - logit_c|, as a share of the largest |logit|; maps of all classes."""
    error = np.asarray(out.maps).mean((-2, -1), dtype=np.float64) + np.asarray(model.head.bias[...]) - out.logits
    return np.abs(error).max() / np.abs(out.logits).max()


@functools.cache
def all_maps_fn(dtype):
    """EfficientNet-Lite0 and its `make_cam_fn(top_k=None)`."""
    model = camjax.load_model("efficientnet_lite0", dtype=dtype)
    return model, camjax.make_cam_fn(model, top_k=None)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (SMALL, jnp.float32),
        (ODD, jnp.bfloat16),
        pytest.param(ODD, jnp.float32, marks=pytest.mark.long),
        pytest.param(SMALL, jnp.bfloat16, marks=pytest.mark.long),
        pytest.param(OBLONG, jnp.float32, marks=pytest.mark.long),
        pytest.param(OBLONG, jnp.bfloat16, marks=pytest.mark.long),
    ],
)
def test_mean_of_the_map_plus_bias_is_the_logit_on_photos(size, dtype):
    model, cam_fn = all_maps_fn(dtype)
    out = cam_fn(photos(size))
    assert out.maps.shape == (2, 1000, -(-size[0] // 32), -(-size[1] // 32))
    assert out.logits.dtype == out.maps.dtype == jnp.float32
    assert identity_error(model, out) <= 1e-5


def test_snapshot_and_direct_call_agree_on_photos(lite0):
    direct = camjax.cam_fn(lite0, photos())
    assert [lite0.class_names[i] for i in np.asarray(direct.class_ids)[:, 0]] == ["Egyptian cat", "espresso"]
    snapshot = jax.device_get(all_maps_fn(jnp.float32)[1](photos()))
    np.testing.assert_allclose(snapshot.logits, direct.logits, atol=1e-4)
    np.testing.assert_allclose(snapshot.maps[[0, 1], direct.class_ids[:, 0]], direct.maps[:, 0], atol=1e-3)


def test_ids_override_top_k(small):
    images = photos((64, 64))
    every, cam_fn = camjax.make_cam_fn(small, top_k=None)(images), camjax.make_cam_fn(small, top_k=3)
    assert cam_fn(images).class_ids.shape == (2, 3) and cam_fn(images).maps.shape == (2, 3, 16, 16)
    np.testing.assert_array_equal(every.class_ids, [range(10)] * 2)
    ids = np.array([[1, 5], [7, 0]])
    for out in (cam_fn(images, ids), camjax.cam_fn(small, images, ids)):
        np.testing.assert_array_equal(out.class_ids, ids)
        np.testing.assert_allclose(out.maps, np.take_along_axis(every.maps, ids[..., None, None], 1), atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam", "scorecam"])
def test_kernels_are_kept_turned_on_gpus_and_mean_the_same(small, monkeypatch, method):
    images = photos((32, 32))
    expected = camjax.make_cam_fn(small, method)(images)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    leaves, turned = jax.tree.leaves(small), as_read(jax.tree.leaves(small))
    assert {(leaf.shape[3], *leaf.shape[:3]) for leaf in leaves if leaf.ndim == 4} <= {leaf.shape for leaf in turned}
    jax.tree.map(np.testing.assert_array_equal, camjax.make_cam_fn(small, method)(images), expected)


@pytest.fixture(scope="module")
def small():
    return camjax.create_model("small_gap", rngs=nnx.Rngs(0))


def test_cam_fn_leaves_the_model_as_it_was_and_compiles_once():
    model = camjax.create_model("small_gap", rngs=nnx.Rngs(0))
    model.train()
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
    images = photos((64, 64))
    first = camjax.cam_fn(model, images)
    size = _cam_jit._cache_size()
    second = camjax.cam_fn(model, images)
    assert _cam_jit._cache_size() == size
    np.testing.assert_array_equal(first.logits, second.logits)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(model)))
    assert model.layers[0].bn.use_running_average is False


def test_inside_a_jit_of_ones_own(small):
    images = photos((64, 64))
    traced = jax.jit(lambda m, x, ids: camjax.cam_fn(m, x, ids).maps)(small, images, jnp.array([3, 11]))
    np.testing.assert_allclose(traced[0], camjax.cam_fn(small, images, [3, 1]).maps[0], atol=1e-5)
    assert np.isnan(traced[1]).all()


def test_localize_boxes_are_those_of_the_masks(small):
    from test_components import scipy_box

    images = photos((64, 52))
    found = jax.device_get(camjax.make_localize_fn(small, threshold=0.4, top_k=2)(images))
    maps = np.asarray(camjax.resize_map(found.maps, (64, 52)))
    for i in range(2):
        for n in range(2):
            mask = maps[i, n] > np.float32(0.4) * maps[i, n].max()
            if maps[i, n].max() > 0:
                np.testing.assert_allclose(found.boxes[i, n], scipy_box(mask), atol=1e-6)
    np.testing.assert_array_equal(found.valid, maps.max((2, 3)) > 0)
    assert found.valid.any()


def test_maps_without_a_region_have_no_box():
    maps = np.stack([np.zeros((4, 4)), -np.ones((4, 4)), np.full((4, 4), 2.0), np.eye(4) * np.nan])
    boxes, valid = jax.jit(boxes_from_maps, static_argnums=1)(maps, (8, 8), 0.2)
    assert valid.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(boxes, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((64, 64, 3), np.uint8), r"images\[None\]"),
        (np.zeros((1, 3, 64, 64), np.uint8), "Channels come last"),
        (np.zeros((1, 64, 64, 1), np.uint8), r"expected \(B, H, W, 3\)"),
        (np.zeros((1, 2, 64, 3), np.uint8), "at least 4 x 4"),
        (np.zeros((0, 64, 64, 3), np.uint8), "at least one image"),
        (np.zeros((1, 64, 64, 3), np.int64), "dtype int64"),
        ([[1]], "of type list"),
    ],
)
def test_bad_images(small, images, message):
    with pytest.raises(ValueError, match=message):
        camjax.cam_fn(small, images)


@pytest.mark.parametrize("ids", [[10, 0], [-1, 0], [0], 0, [0, 1, 2], [0.0, 1.0], [[[0]], [[1]]]])
def test_bad_class_ids(small, ids):
    for call in (lambda *a: camjax.cam_fn(small, *a), camjax.make_cam_fn(small)):
        with pytest.raises(ValueError, match=r"class_ids .*(expected integers|0\.\.9)"):
            call(photos((64, 64)), ids)


SCALED = [
    (0, 1, "never exceed 1: expected RGB in 0..255. Multiply"),
    (-2.1, 2.6, "-2.1..2.6, as normalized ones have"),
    (0, 4, "0..4, as normalized"),
    (-120, 130, "-120..130, as normalized"),
    (0, 4.5, ""),
    (0, 255, ""),
    (-5, 260, ""),  # with a little noise
]


def test_float_images_that_are_scaled_or_normalized_warn(small, recwarn):
    warnings.simplefilter("always")
    view = inference_view(small)
    own = camjax.explainer(lambda images: view.features(images), view.head)  # may take normalized images
    makers = [lambda: functools.partial(camjax.cam_fn, small), lambda: own]
    makers += [lambda: camjax.make_cam_fn(small), lambda: camjax.explainer(small.features, small.head)]
    for make in makers:
        for low, high, message in SCALED if make is makers[0] else SCALED[1:2]:
            images = np.full((1, 64, 64, 3), low, np.float32)
            images[0, 0, 0] = high
            call = make()
            call(np.uint8(images))
            recwarn.clear()
            call(images)
            texts = [str(warning.message) for warning in recwarn]
            assert len(texts) == bool(message and call is not own) and all(message in text for text in texts)
            recwarn.clear()
            jax.eval_shape(make(), images)  # traced values are unknown
            assert not recwarn


class Tensor:
    """As tensors of other libraries are: with a type of their own, and readable by NumPy unless they say why not."""

    def __init__(self, array, error=None):
        self.array, self.error, self.shape, self.dtype = array, error, array.shape, f"torch.{array.dtype}"

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return self.array

    def __len__(self):
        return len(self.array)


class DlpackTensor:
    """A tensor that only the DLPack protocol reads."""

    def __init__(self, array):
        self.shape, self.dtype = array.shape, "other"
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def check_tensors(small, tensor):
    """Images and class ids as tensors give what arrays give, in all that takes images."""
    images, ids = photos((64, 64)), np.array([3, 5])
    explain = camjax.explainer(small.features, small.head)
    calls = [functools.partial(camjax.cam_fn, small), camjax.make_localize_fn(small, "backprop")]
    calls += [explain, lambda images, ids: explain(images, targets.classes(ids))]
    for call in calls:
        expected, found = call(images, ids), call(tensor(images), tensor(ids))
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), expected, found))
    np.testing.assert_array_equal(resize_image(tensor(images[0]), 8), resize_image(images[0], 8))


def test_tensors_of_other_libraries_are_read(small):
    check_tensors(small, Tensor)
    images = photos((64, 64))
    found, expected = camjax.cam_fn(small, DlpackTensor(images.copy())), camjax.cam_fn(small, images)
    np.testing.assert_array_equal(found.maps, expected.maps)
    wrong = Tensor(photos((64, 64)), RuntimeError("Can't call numpy() on Tensor that requires grad."))
    for call in (functools.partial(camjax.cam_fn, small), camjax.explainer(small.features, small.head)):
        with pytest.raises(InputError, match=r"images: a .*Tensor of torch\.uint8 .*requires grad.*detach\(\)"):
            call(wrong)
        with pytest.raises(InputError, match=r"class_ids: a .*Tensor of torch\.uint8 cannot be read"):
            call(photos((64, 64)), wrong)


@pytest.mark.parity
def test_tensors_of_torch_are_read(small):
    torch = pytest.importorskip("torch")
    check_tensors(small, lambda array: torch.from_numpy(array.copy()))
    for wrong in (torch.ones(1, 64, 64, 3, requires_grad=True), torch.ones(1, 64, 64, 3, device="meta")):
        with pytest.raises(InputError, match=r"images: a torch\.Tensor of torch\.float32 cannot be read .*detach\(\)"):
            camjax.cam_fn(small, wrong)


def test_bad_options(small):
    with pytest.raises(ValueError, match=r"1\.\.10"):
        camjax.make_cam_fn(small, top_k=11)
    with pytest.raises(ValueError, match="threshold"):
        camjax.make_localize_fn(small, threshold=1.0)
    with pytest.raises(ValueError, match="resnet50"):
        camjax.create_model("resnet51")
    with pytest.raises(ValueError, match="weights=FILE"):
        camjax.load_model("resnet50")
