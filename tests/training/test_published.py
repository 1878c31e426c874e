"""The published recipes: lengths and learning rates worked out by hand, and new layers that the networks have."""

import jax
import numpy as np
import pytest
from flax import nnx

from camjax.models.shapes import model_shapes
from camjax.training.groups import parameter_groups
from camjax.training.published import CUB_IMAGES, IMAGENET_IMAGES, googlenet_cam_release, resnet50_from_scratch, wsol


def rates(recipe, steps):
    return [float(recipe.schedule()(step)) for step in steps]


def test_the_release_of_googlenet_cam():
    recipe = googlenet_cam_release()
    assert (recipe.steps, recipe.batch_size, recipe.weight_decay) == (160_000, 64, 5e-4)
    assert (recipe.momentum, recipe.nesterov, recipe.new_layers_factor) == (0.9, False, 1.0)
    np.testing.assert_allclose(
        rates(recipe, [0, 39_999, 40_000, 79_999, 80_000, 120_000, 159_999]),
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6],
        rtol=1e-4,
    )


def test_resnet50_from_scratch():
    # 90 and 5 epochs of 1,281,167 images in batches of 1024: 112,602.6 and 6,255.7 steps.
    recipe = resnet50_from_scratch(1024)
    assert (recipe.steps, recipe.warmup_steps, recipe.batch_size) == (112_603, 6_256, 1024)
    assert (recipe.label_smoothing, recipe.weight_decay, recipe.nesterov) == (0.1, 1e-4, True)
    middle = (6_256 + 112_603) // 2
    np.testing.assert_allclose(
        rates(recipe, [0, 3_128, 6_256, middle, 112_603]), [0, 0.2, 0.4, 0.2, 0], rtol=1e-4, atol=1e-8
    )
    assert resnet50_from_scratch(256).learning_rate == pytest.approx(0.1)
    small = resnet50_from_scratch(10, epochs=6, num_examples=100, accumulate=5)
    assert (small.steps, small.warmup_steps, small.accumulate) == (60, 50, 5)


@pytest.mark.parametrize("batch, epochs", [(256, 5), (0, 90)])
def test_resnet50_of_sizes_that_cannot_be(batch, epochs):
    with pytest.raises(ValueError, match=f"epochs={epochs}, global_batch_size={batch}: expected"):
        resnet50_from_scratch(batch, epochs)


def test_wsol_on_cub():
    # 187.3125 steps an epoch: 9,365.6 in all, the first decay after 14 epochs (2,622.4), the next 15 (2,809.7) later.
    recipe = wsol("resnet50_wsol", "cub")
    assert (recipe.steps, recipe.batch_size, recipe.weight_decay, recipe.new_layers_factor) == (9_366, 32, 1e-4, 10.0)
    np.testing.assert_allclose(
        rates(recipe, [0, 2_621, 2_622, 5_431, 5_432, 8_241, 8_242, 9_365]),
        2.3222617e-4 * np.array([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]),
        rtol=1e-4,
    )


def test_wsol_on_imagenet():
    # 40,036.5 steps an epoch; decays after 2, 5 and 8 of 10.
    recipe = wsol("vgg16_wsol", "imagenet")
    assert (recipe.steps, recipe.weight_decay) == (400_365, 5e-4)
    np.testing.assert_allclose(
        rates(recipe, [0, 80_072, 80_073, 200_181, 200_182, 320_290, 320_291]),
        1.654502e-5 * np.array([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001]),
        rtol=1e-4,
    )
    assert (IMAGENET_IMAGES, CUB_IMAGES) == (1_281_167, 5_994)
    assert wsol("vgg16_wsol", "imagenet", num_examples=3_200).steps == 1_000


@pytest.mark.parametrize(
    "recipe, network, new",
    [
        (googlenet_cam_release(), "googlenet_gap", {"cam_conv", "head"}),
        (wsol("vgg16_wsol", "cub"), "vgg16_wsol", {"conv6", "head"}),
        (wsol("inception_v3_wsol_28x28", "cub"), "inception_v3_wsol_28x28", {"SPG_A3_1b", "SPG_A3_2b", "head"}),
        (wsol("resnet50_wsol", "imagenet"), "resnet50_wsol", {"stages", "head"}),
    ],
)
def test_new_layers_are_in_the_network(recipe, network, new):
    groups = parameter_groups(nnx.state(model_shapes(network, 200), nnx.Param), recipe.new_layers)
    leaves = jax.tree.leaves_with_path(groups)
    assert {jax.tree_util.keystr(path[:1], simple=True) for path, group in leaves if group == "new"} == new
    if network == "resnet50_wsol":  # of the stages, the fourth alone
        stages = {jax.tree_util.keystr(path[:2], simple=True, separator=".") for path, g in leaves if g == "new"}
        assert stages == {"stages.3", "head.kernel", "head.bias"}


@pytest.mark.parametrize("network, dataset", [("resnet50", "cub"), ("vgg16_wsol", "scenes")])
def test_what_the_benchmark_does_not_have(network, dataset):
    with pytest.raises(ValueError, match=f"network='{network}', dataset='{dataset}': the benchmark has vgg16_wsol"):
        wsol(network, dataset)
