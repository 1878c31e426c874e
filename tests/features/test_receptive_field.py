"""Receptive fields: against the arithmetic of strides and windows, and against pixels that are changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_network
from flax import nnx

from camjax.features import receptive_fields
from camjax.models import CamModel, PooledHead
from camjax.models.shapes import model_shapes


def by_arithmetic(layers, length: int, units: int) -> list[list[int]]:
    """The intervals of a chain of (window, stride, padding), first layer first (Dumoulin & Visin 2016, section 2)."""
    intervals = []
    for unit in range(units):
        first, last = unit, unit
        for window, stride, padding in reversed(layers):
            first, last = first * stride - padding, last * stride - padding + window - 1
        intervals.append([max(first, 0), min(last + 1, length)])
    return intervals


ALEXNET_GAP = [(11, 4, 0), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
NIN = [(11, 4, 0), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1), (3, 2, 0), (3, 1, 1)]


# 11 + 4 * 54 = 227 pixels are all of AlexNet's; NIN's 54 windows end with 11 + 4 * 53 = 223 of 224.
@pytest.mark.parametrize(
    "name, layers, read", [("alexnet_gap", ALEXNET_GAP, 227), pytest.param("nin", NIN, 223, marks=pytest.mark.long)]
)
def test_fields_of_chains_are_those_of_the_arithmetic(name, layers, read):
    fields = receptive_fields(random_network(name, 3))
    for intervals in (fields.rows, fields.columns):
        assert intervals.tolist() == by_arithmetic(layers, read, len(intervals))


class Chain(CamModel):
    """Windows that end before the image does, as NIN's: 7 of the first layer end with 5 + 4 * 6 = 29 of 32 pixels."""

    def __init__(self):
        super().__init__(input_size=(32, 32), stride=8, min_size=13, mean=(0.0,) * 3, std=(1.0,) * 3)
        self.first = nnx.Conv(3, 4, (5, 5), 4, padding="VALID", rngs=nnx.Rngs(0))
        self.last = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(1))
        self.head = PooledHead(4, 3, rngs=nnx.Rngs(2))

    def backbone(self, x):
        return self.last(nnx.max_pool(jax.nn.relu(self.first(x)), (3, 3), (2, 2)))


def test_pixels_that_no_window_reaches_are_in_no_field():
    fields = receptive_fields(Chain())
    for intervals in (fields.rows, fields.columns):
        assert intervals.tolist() == by_arithmetic([(5, 4, 0), (3, 2, 0), (3, 1, 1)], 29, 3)


@pytest.fixture(scope="module")
def small():
    return random_network("small_gap", 3)


def test_a_pixel_outside_does_not_move_a_unit_and_those_at_the_edges_do(small):
    """Of an oblong image, for a unit in the middle and one at the border."""
    size = 48, 80
    fields = receptive_fields(small, size)
    small.eval()
    image = np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)
    compiled = jax.jit(lambda model, images: model.features(images))
    features = lambda images: np.asarray(compiled(small, images.astype(np.float32)))  # noqa: E731
    before = features(image[None])[0]
    assert before.shape[:2] == (len(fields.rows), len(fields.columns))
    for y, x in ((6, 10), (0, 19)):
        (top, bottom), (left, right) = fields.rows[y], fields.columns[x]
        outside = np.ones(size, bool)
        outside[top:bottom, left:right] = False
        noise = np.random.default_rng(1).uniform(0, 255, image.shape)
        unmoved = features(np.where(outside[..., None], noise, image)[None])[0][y, x]
        np.testing.assert_array_equal(unmoved, before[y, x])
        edges = [
            np.s_[top, left:right],
            np.s_[bottom - 1, left:right],
            np.s_[top:bottom, left],
            np.s_[top:bottom, right - 1],
        ]
        for edge in edges:
            changed = image.copy()
            changed[edge] = 255 - changed[edge]
            assert np.any(features(changed[None])[0][y, x] != before[y, x]), edge


def test_boxes_are_shares_of_the_image(small):
    fields = receptive_fields(small, (48, 80))
    boxes = fields.boxes()
    assert boxes.shape == (12, 20, 4)
    for y, x in ((0, 0), (5, 7), (11, 19)):
        (top, bottom), (left, right) = fields.rows[y], fields.columns[x]
        np.testing.assert_allclose(boxes[y, x], [top / 48, left / 80, bottom / 48, right / 80], rtol=1e-6)


def test_the_model_stays_as_it_is(small):
    small.train()
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(small)))
    receptive_fields(small)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.to_pure_dict(nnx.state(small)))


def test_what_it_refuses(small):
    with pytest.raises(ValueError, match="no class activation maps"):
        receptive_fields(model_shapes("alexnet", 3))
    with pytest.raises(ValueError, match="expected at least one image, of at least"):
        receptive_fields(small, (1, 1))
    broken = nnx.clone(small)
    for path, leaf in nnx.to_flat_state(nnx.state(broken, nnx.Param)):
        if "kernel" in path and "head" not in path:
            leaf[...] = jnp.full_like(leaf[...], jnp.nan)
            break
    with pytest.raises(ValueError, match="not finite"):
        receptive_fields(broken)
