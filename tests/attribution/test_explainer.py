"""An explainer of two functions: on a network whose maps are known, and what callers trip over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import camjax
from camjax.attribution import combine_layers, explainer, targets
from camjax.models.inference_mode import inference_view

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    model = camjax.create_model("small_gap", num_classes=4, rngs=nnx.Rngs(0))
    model.eval()
    return model


@pytest.fixture(scope="module")
def explain(model):
    return explainer(Partial(lambda model, images: inference_view(model).features(images), model), model.head)


def test_hires_cam_of_our_own_network_is_its_class_activation_map(model, explain):
    out = camjax.cam_fn(model, IMAGES)
    found = explain(IMAGES, method="hirescam")
    np.testing.assert_allclose(found.outputs, out.logits, atol=1e-5)
    np.testing.assert_array_equal(found.class_ids, out.class_ids)
    np.testing.assert_allclose(found.maps, out.maps / 16**2, atol=1e-6)
    ids = np.array([[1, 3], [0, 0], [2, 1]])
    found, out = explain(IMAGES, ids, "hirescam"), camjax.cam_fn(model, IMAGES, ids)
    np.testing.assert_array_equal(found.class_ids, ids)
    np.testing.assert_allclose(found.maps, out.maps / 16**2, atol=1e-6)


def test_the_top_classes_in_order(model, explain):
    out = camjax.make_cam_fn(model, top_k=3)(IMAGES)
    np.testing.assert_array_equal(explain(IMAGES, top_k=3).class_ids, out.class_ids)


def test_targets_as_ids_and_as_functions(explain):
    by_ids = explain(IMAGES, [2, 0, 1])
    by_target = explain(IMAGES, targets.classes(np.array([2, 0, 1])))
    np.testing.assert_array_equal(by_target.maps, by_ids.maps)
    assert by_target.class_ids is None and by_ids.maps.shape == (3, 1, 16, 16)
    mixed = targets.per_image(
        [targets.classes([2]), targets.class_sets([[1, 1, 0, 0]]), lambda o: o[:, :1] - o[:, 1:2]]
    )
    np.testing.assert_allclose(explain(IMAGES, mixed).maps[0], by_ids.maps[0], atol=1e-6)


def test_fewer_targets_than_images_and_other_mistakes_are_errors(explain):
    for wrong, message in (
        ([1, 2], "for 3 images"),
        ([1, 2, 4], r"class_ids \[4\] out of range"),
        (targets.class_sets(np.ones((2, 4))), r"expected \(3, 1, 4\)"),
        (lambda outputs: outputs[0], r"for 3 images: expected \(3, N\)"),
    ):
        with pytest.raises(ValueError, match=message):
            explain(IMAGES, wrong)
    with pytest.raises(ValueError, match=r"targets='layercam': .*method='layercam'"):
        explain(IMAGES, "layercam")
    for name in ("gradcan", "GradCAM"):
        with pytest.raises(ValueError, match=f"method '{name}': expected one of .*Did you mean 'gradcam'"):
            explain(IMAGES, method=name)
    with pytest.raises(ValueError, match="gradcam has no option chunk_size: it has none"):
        explain(IMAGES, chunk_size=3)
    with pytest.raises(ValueError, match="top_k=5"):
        explain(IMAGES, top_k=5)


def test_outputs_that_are_no_classes_need_a_target():
    explain = explainer(lambda images: images.astype(jnp.float32), lambda features: features.mean(-1))
    with pytest.raises(ValueError, match=r"outputs of shape \(3, 64, 64\): expected targets"):
        explain(IMAGES)
    with pytest.raises(ValueError, match=r"scores of shape \(3, 64, 64\)"):
        explain(IMAGES, [0, 0, 0])
    # The mean of a pixel's colors has a gradient of a third of itself alone.
    region = np.zeros((3, 64, 64))
    region[:, 10, 20] = 1
    found = explain(IMAGES, lambda outputs: (outputs * region).sum((1, 2))[:, None], "hirescam")
    np.testing.assert_allclose(found.maps[:, 0], IMAGES.mean(-1) * region, rtol=1e-5)


def two_layers(images):
    pixels = images.astype(jnp.float32) / 255
    return pixels, jax.image.resize(pixels, (len(images), 8, 8, 3), "linear")


def of_both(features):
    first, second = features
    return jnp.stack([first[..., 0].mean((1, 2)), second[..., 1].mean((1, 2))], 1)


def test_several_layers_are_one_map_at_the_size_of_the_largest():
    explain = explainer(two_layers, of_both)
    found = explain(IMAGES, [[0, 1]] * 3, "hirescam")
    assert found.maps.shape == (3, 2, 64, 64)
    first, second = two_layers(jnp.asarray(IMAGES))
    red, green = first[..., 0], second[..., 1]
    zeros = jnp.zeros((3, 1, 8, 8))
    # The first score sees the first layer's red alone, and the second the second layer's green.
    np.testing.assert_allclose(found.maps[:, :1], combine_layers([red[:, None], zeros]), atol=1e-5)
    np.testing.assert_allclose(
        found.maps[:, 1:], combine_layers([jnp.zeros((3, 1, 64, 64)), green[:, None]]), atol=1e-5
    )
    largest = explainer(two_layers, of_both, combine="max")(IMAGES, [[0, 1]] * 3, "hirescam")
    np.testing.assert_allclose(largest.maps, 2 * found.maps, atol=1e-5)


def test_combined_layers_by_hand():
    first = jnp.array([[4.0, 0], [-2, 2]])[None, None]
    second = jnp.array([[3.0, 0]])[None, None]
    assert combine_layers([first, second])[0, 0].tolist() == [[1, 0], [0.5, 0.25]]
    assert combine_layers([first, second], "max")[0, 0].tolist() == [[1, 0], [1, 0.5]]
    assert combine_layers([first, -second])[0, 0].tolist() == [[0.5, 0], [0, 0.25]]
    for maps, mode in (([], "mean"), ([first], "sum")):
        with pytest.raises(ValueError, match="expected at least one, and 'mean', 'max' or 'product'"):
            combine_layers(maps, mode)


def test_bfloat16_networks_have_float32_maps():
    model = camjax.create_model("small_gap", num_classes=4, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    explain = explainer(Partial(lambda model, images: inference_view(model).features(images), model), model.head)
    found = explain(IMAGES)
    assert found.maps.dtype == jnp.float32 and isinstance(found.maps, jax.Array)
