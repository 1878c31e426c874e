import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos
from flax import nnx

import camjax
from camjax.boxes import boxes_from_maps
from camjax.inference import _cam_jit

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
        (ODD, jnp.float32),
        (SMALL, jnp.bfloat16),
        pytest.param(OBLONG, jnp.float32, marks=pytest.mark.long),
        pytest.param(OBLONG, jnp.bfloat16, marks=pytest.mark.long),
        pytest.param(ODD, jnp.bfloat16, marks=pytest.mark.long),
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


def test_float_images_in_unit_range_warn(small):
    with pytest.warns(UserWarning, match=r"0\.\.255"):
        camjax.cam_fn(small, np.ones((1, 64, 64, 3), np.float32))


def test_bad_options(small):
    with pytest.raises(ValueError, match=r"1\.\.10"):
        camjax.make_cam_fn(small, top_k=11)
    with pytest.raises(ValueError, match="threshold"):
        camjax.make_localize_fn(small, threshold=1.0)
    with pytest.raises(ValueError, match="resnet50"):
        camjax.create_model("resnet51")
    with pytest.raises(ValueError, match="weights=FILE"):
        camjax.load_model("resnet50")
