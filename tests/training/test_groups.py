"""Which parameters are new, and one step of them by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import camjax
from camjax.training.groups import freeze, parameter_groups, scale_new_layers


def places(groups) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): label
        for path, label in jax.tree.leaves_with_path(groups)
    }


@pytest.mark.parametrize("pure", [False, True])
def test_the_groups_of_a_network(pure):
    """Of a state, as optax gets it when it starts, and of pure arrays, as it gets them at each step."""
    parameters = nnx.state(camjax.create_model("small_gap"), nnx.Param)
    found = places(parameter_groups(nnx.as_pure(parameters) if pure else parameters))
    assert {name for name, group in found.items() if group == "new"} == {"head.kernel", "head.bias"}
    assert found["layers.0.conv.kernel"] == found["layers.4.bn.scale"] == "backbone"
    assert set(found.values()) == {"new", "backbone"}


def test_places_are_whole_words_and_have_all_below_them():
    parameters = {"head": {"kernel": 0.0}, "head2": {"kernel": 0.0}, "layers": {1: {"w": 0.0}, 10: {"w": 0.0}}}
    groups = parameter_groups(parameters, ("head", "layers.1"))
    assert groups == {
        "head": {"kernel": "new"},
        "head2": {"kernel": "backbone"},
        "layers": {1: {"w": "new"}, 10: {"w": "backbone"}},
    }
    assert parameter_groups(parameters, ("layers.10.w",))["layers"] == {1: {"w": "backbone"}, 10: {"w": "new"}}


def test_a_place_that_is_not_there():
    parameters = nnx.state(camjax.create_model("small_gap"), nnx.Param)
    with pytest.raises(ValueError, match=r"new layers 'cam_conv': the model has no .* Its layers are head, layers\.$"):
        parameter_groups(parameters, ("head", "cam_conv"))


def test_frozen_places():
    parameters = {"stem": {"w": 0.0}, "layers": {1: {"w": 0.0}, 10: {"w": 0.0}}, "head": {"kernel": 0.0, "bias": 0.0}}

    def frozen(*names, new=("head",)):
        groups = parameter_groups(parameters, new, names)
        return {name for name, group in places(groups).items() if group == "frozen"}

    assert frozen() == set()
    assert frozen("layers.1", "head.bias") == {"layers.1.w", "head.bias"}
    assert frozen("backbone") == {"stem.w", "layers.1.w", "layers.10.w"}
    assert frozen("backbone", "head.bias") == {"stem.w", "layers.1.w", "layers.10.w", "head.bias"}
    assert frozen("backbone", new=("layers.10", "head")) == {"stem.w", "layers.1.w"}
    with pytest.raises(ValueError, match=r"frozen 'stm', 'layer': the model has no parameters there"):
        frozen("stm", "layer", "head")
    with pytest.raises(ValueError, match="nothing is left to train"):
        frozen("stem", "layers", "head")


def test_a_frozen_step_by_hand():
    parameters = {"head": {"kernel": jnp.array([1.0])}, "stem": {"kernel": jnp.array([[3.0]])}}
    gradients = {"head": {"kernel": jnp.array([0.5])}, "stem": {"kernel": jnp.array([[2.0]])}}
    trained = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9), scale_new_layers(10.0))
    # "stem" by its name: the new layers are of no account, and need not be there.
    for optimizer in (freeze(trained, ("backbone",)), freeze(trained, ("stem",), new=("fc",))):
        state = optimizer.init(parameters)
        assert [leaf.shape for leaf in jax.tree.leaves(state)] == [(1,)]  # the momentum of the head
        updates, _ = optimizer.update(gradients, state, parameters)
        np.testing.assert_allclose(updates["head"]["kernel"], [-0.6], rtol=1e-6)
        np.testing.assert_array_equal(updates["stem"]["kernel"], [[0.0]])


def test_one_step_by_hand():
    parameters = {"head": {"kernel": jnp.array([1.0, 2.0])}, "stem": {"kernel": jnp.array([3.0])}}
    gradients = {"head": {"kernel": jnp.array([0.5, -1.0])}, "stem": {"kernel": jnp.array([2.0])}}
    optimizer = optax.chain(optax.sgd(0.1), scale_new_layers(10.0))
    updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
    np.testing.assert_allclose(updates["head"]["kernel"], [-0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(updates["stem"]["kernel"], [-0.2], rtol=1e-6)


def test_the_groups_add_no_arrays_to_the_optimizer():
    parameters = nnx.state(camjax.create_model("small_gap"), nnx.Param)
    assert jax.tree.leaves(scale_new_layers(10.0).init(parameters)) == []
