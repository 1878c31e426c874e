"""A model's shapes are those of the model."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import camjax
from camjax.models.shapes import model_shapes


@pytest.mark.parametrize("name", ["alexnet", "efficientnet_lite0", "googlenet", "resnet18", "small_gap"])
def test_they_are_what_building_it_gives(name):
    options = {"num_classes": 7, "dtype": jnp.bfloat16}
    expected = nnx.eval_shape(lambda: camjax.create_model(name, rngs=nnx.Rngs(0), **options))
    found = model_shapes(name, **options)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert jax.tree.leaves(found) == jax.tree.leaves(expected)
    assert found.created_as == expected.created_as


def test_options_reach_the_model():
    assert model_shapes("small_gap", 3, pool="gmp").head.pool == "gmp"
    with pytest.raises(ValueError, match="at least one class"):
        model_shapes("small_gap", 0)
