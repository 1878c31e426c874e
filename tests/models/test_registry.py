import jax.numpy as jnp
import pytest

import camjax
from camjax.models import model_spec


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


def test_two_networks_of_one_form_name_each_other():
    """So that neither takes the other's weights without a word; some of the others are not in camjax."""
    alike = {name: set(model_spec(name).look_alikes.values()) for name in camjax.list_models()}
    assert alike["vit_base_patch32_clip_224"] == {"vit_base_patch32_clip_quickgelu_224"}
    assert all(name in alike[other] for name, others in alike.items() for other in others & alike.keys())
