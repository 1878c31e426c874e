"""Maps of a layer that is named or chosen: the same by every door, and the choice by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos, random_network
from flax import nnx

import camjax
from camjax.attribution import explain_nnx
from camjax.attribution.adapters.nnx import nnx_map_sizes
from camjax.evaluation import choose_layer
from camjax.evaluation.layer_choice import candidate_layers
from camjax.evaluation.probabilities import probabilities_fn
from camjax.inference import make_localize_fns
from camjax.metrics import deletion_curve, insertion_curve
from camjax.models import CamModel, PooledHead


class Blocks(nnx.Module):
    """Means of 2 x 2 pixels, twice."""

    def __init__(self, rngs):
        self.first, self.second = nnx.Conv(3, 4, (1, 1), rngs=rngs), nnx.Conv(4, 4, (1, 1), rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.first(nnx.avg_pool(x, (2, 2), (2, 2))))
        return nnx.relu(self.second(nnx.avg_pool(x, (2, 2), (2, 2))) + 0.5)


class Net(CamModel):
    """Maps of 16 x 16, 8 x 8, 4 x 4, and of one cell."""

    def __init__(self, num_classes=5, *, rngs):
        super().__init__(input_size=(16, 16), stride=16, mean=(127.5,) * 3, std=(60,) * 3)
        self.stem = nnx.Conv(3, 3, (1, 1), rngs=rngs)
        self.blocks, self.unused = nnx.List([Blocks(rngs)]), nnx.Linear(3, 3, rngs=rngs)
        self.pooled = nnx.Conv(4, 4, (4, 4), (4, 4), rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = PooledHead(4, num_classes, rngs=rngs)

    def backbone(self, x):
        return self.dropout(self.pooled(self.blocks[0](self.stem(x))))


@pytest.fixture(scope="module")
def model():
    return Net(rngs=nnx.Rngs(0))


IMAGES = photos((16, 16))[[0, 1]]


def test_sizes_of_maps_and_the_last_of_each_size(model):
    sizes = nnx_map_sizes(model, IMAGES)
    assert [*sizes.items()] == [
        ("stem", (16, 16)),
        ("blocks.0.first", (8, 8)),
        ("blocks.0.second", (4, 4)),
        ("blocks.0", (4, 4)),
        ("pooled", (1, 1)),
        ("dropout", (1, 1)),
    ]
    assert candidate_layers(sizes) == ["stem", "blocks.0.first", "blocks.0"]
    # A layer inside of the next block, which makes its map smaller, is no end of a stage.
    assert candidate_layers({"a": (4, 4), "b": (4, 4), "c.first": (4, 4), "c": (2, 2), "d": (1, 1)}) == ["b", "c"]


@pytest.mark.parametrize("name", ["layercam", "ablationcam"])
def test_a_layer_by_its_name_is_that_of_an_explainer(model, name):
    expected = explain_nnx(model, "blocks.0.first")(IMAGES, [[3, 1], [0, 4]], name)
    cam_fn = camjax.make_cam_fn(model, name, layer="blocks.0.first")
    found = cam_fn(IMAGES, [[3, 1], [0, 4]])
    assert found.maps.shape == (2, 2, 8, 8)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5 * np.abs(expected.maps).max())
    np.testing.assert_allclose(found.logits, expected.outputs, atol=1e-5)
    both = make_localize_fns(model, ["gradcam", name], layer="blocks.0.first")(IMAGES, [3, 0])
    np.testing.assert_allclose(both[name].asked.maps[:, 0], expected.maps[:, 0], atol=1e-5)
    assert both["gradcam"].top.boxes.shape == (2, 1, 4)


def test_batchnorm_is_a_layer_of_its_own():
    model = random_network("small_gap", 4)
    expected = explain_nnx(model, "layers.1.bn")(IMAGES, [1, 2], "gradcam")
    found = camjax.make_cam_fn(model, "gradcam", layer="layers.1.bn")(IMAGES, [1, 2])
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5 * np.abs(expected.maps).max())


def test_wrong_layers(model):
    with pytest.raises(ValueError, match=r"Net has no layer 'blocks\.0\.fist'\. Did you mean 'blocks\.0\.first'"):
        camjax.make_cam_fn(model, "gradcam", layer="blocks.0.fist")
    for name in ("cam", "backprop", "rise", "center"):
        with pytest.raises(ValueError, match=f"layer='stem' of {name}: expected methods that .* gradcam"):
            camjax.make_localize_fn(model, name, layer="stem")
    with pytest.raises(ValueError, match="'unused' is not called"):
        camjax.make_cam_fn(model, "gradcam", layer="unused")(IMAGES)
    with pytest.raises(ValueError, match=r"images of shape \(0, 16, 16, 3\): expected \(B, H, W, 3\), at least one"):
        choose_layer(model, IMAGES[:0])


def test_the_choice_is_the_layer_with_the_highest_insertion_less_deletion(model):
    choice = choose_layer(model, IMAGES, "layercam")
    assert list(choice.scores) == ["stem", "blocks.0.first", "blocks.0"] and choice.num_images == 2
    score = probabilities_fn(model)
    for layer, value in choice.scores.items():
        found = camjax.make_cam_fn(model, "layercam", layer=layer)(IMAGES)
        batch = score, IMAGES, found.maps[:, 0], found.class_ids[:, 0]
        areas = [curve(*batch, step=16).area for curve in (insertion_curve, deletion_curve)]
        assert value == pytest.approx(float(jnp.mean(areas[0] - areas[1])), abs=1e-6)
    assert choice.scores[choice.layer] == max(choice.scores.values()) > min(choice.scores.values())
    assert f"Layer {choice.layer}: of 2 images" in str(choice) and "stem (16 x 16) " in str(choice)
    few = choose_layer(model, IMAGES, "layercam", layers=["stem"])
    assert few.layer == "stem" and few.scores == pytest.approx({"stem": choice.scores["stem"]})
