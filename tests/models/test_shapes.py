"""A model's shapes are those of the model."""

import importlib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from networks import cut

import camjax
from camjax.models.registry import FAMILIES
from camjax.models.shapes import model_shapes


@pytest.mark.parametrize("name", ["alexnet", "efficientnet_lite0", "googlenet", "resnet18", "small_gap"])
def test_they_are_what_building_it_gives(monkeypatch, name):
    cut(monkeypatch, 2)
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


@pytest.mark.parametrize("family", FAMILIES)
def test_no_network_mixes_types_or_ranks(monkeypatch, family):
    """With JAX's strict settings each would be an error, as the network is traced.

    Two stages of two blocks show all that more do.
    """
    cut(monkeypatch, 2, blocks=2)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        model = model_shapes(importlib.import_module(f"camjax.models.{family}").SPECS[-1].name)
        images = jax.ShapeDtypeStruct((2, *model.input_size, 3), jnp.uint8)
        logits = jax.eval_shape(lambda model, images: model(images), model, images)
    assert (logits.shape, logits.dtype) == ((2, model.head.num_classes), jnp.float32)
