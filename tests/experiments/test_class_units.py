"""Class-specific units: their ranking, their top images, their regions, and the experiment on images in memory."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from flax import nnx

import camjax
from camjax.data.images import resize_image
from camjax.features import ReceptiveFields, receptive_fields
from camjax.inference import inference_view
from camjax.models.head import MapHead
from camjax.terminal import Console
from experiments.class_units import __main__ as experiment
from experiments.class_units.unit_images import class_units, darkened, top_images, unit_maps_fn, unit_region
from tests.experiments.colors import SIDE, TINY, Colors, Identity, painted

QUIET = Console(file=io.StringIO())
RED, GREEN, BLUE = 0, 1, 2


@pytest.fixture(scope="module")
def tiny():
    return camjax.create_model(TINY, 3, rngs=nnx.Rngs(0))


def colors(images):
    return Colors(images, [0] * len(images), [[0, 0, 1, 1]] * len(images))


def test_units_are_ranked_by_their_weight_for_the_class():
    kernel = np.array([[0.1, 5], [0.7, 1], [-2, 1], [0.7, 3], [0.2, 1]])
    assert class_units(kernel, 0, 3).tolist() == [1, 3, 4]
    assert class_units(kernel, 1, 9).tolist() == [0, 3, 1, 2, 4]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_top_images_are_those_of_a_sort_of_all_responses(batch_size):
    """Few values, so that many images respond equally: the earlier one comes first."""
    rng = np.random.default_rng(0)
    responses = rng.integers(0, 4, (20, 3)) * 60
    images = [
        painted(*((channel, int(value), 3, 5, 4, 6) for channel, value in enumerate(of_image)))
        for of_image in responses
    ]
    top = top_images(Identity(), colors(images), 7, batch_size=batch_size)
    for channel in range(3):
        order = np.lexsort((np.arange(20), -responses[:, channel]))[:7]
        np.testing.assert_array_equal(top.indices[channel], order)
        np.testing.assert_allclose(top.values[channel], responses[order, channel] / 255, rtol=1e-6)
    assert top.unreadable == {}


def test_top_images_of_a_network(tiny):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(7)]
    features = jax.jit(lambda model, images: inference_view(model).features(images))(tiny, np.stack(images))
    expected = np.asarray(features).max((1, 2))
    top = top_images(tiny, colors(images), 3, batch_size=4)
    np.testing.assert_allclose(top.values, -np.sort(-expected.T, axis=1)[:, :3], rtol=1e-4, atol=1e-5)
    found = np.take_along_axis(expected.T, top.indices, axis=1)
    np.testing.assert_allclose(found, top.values, rtol=1e-4, atol=1e-5)
    inputs, maps = unit_maps_fn(tiny)(images, 5)
    np.testing.assert_array_equal(inputs, images)
    np.testing.assert_allclose(maps, features[..., 5], rtol=1e-3, atol=1e-4)


def test_fewer_images_than_asked_for_leave_places_empty():
    top = top_images(Identity(), colors([painted((RED, 51, 0, 0, 1, 1)), painted()]), 3)
    assert top.indices[RED].tolist() == [0, 1, -1]
    np.testing.assert_allclose(top.values[RED], [0.2, 0, -np.inf])


class Damaged(Colors):
    """The second image can't be read."""

    def __getitem__(self, index):
        if index == 1:
            raise ValueError("1.png is damaged")
        return super().__getitem__(index)


def damaged(images):
    return Damaged(images, [0] * len(images), [[0, 0, 1, 1]] * len(images))


def test_images_that_cannot_be_read_are_named_and_have_no_place():
    bright = painted((RED, 255, 0, 0, SIDE, SIDE))
    top = top_images(Identity(), damaged([painted(), bright, painted((RED, 51, 0, 0, 1, 1))]), 3, batch_size=2)
    assert top.indices[RED].tolist() == [2, 0, -1]
    assert top.unreadable == {1: "1.png is damaged"}


def test_a_region_is_within_the_receptive_field_of_the_maximum():
    """Cells of 4 pixels, two equally bright ones: the first is the maximum, whose field has not the other in it."""
    unit_map = np.zeros((4, 4), np.float32)
    unit_map[1, 0] = unit_map[1, 3] = 1
    bounds = np.array([[0, 7], [1, 11], [5, 15], [9, 16]])
    region = unit_region(unit_map, ReceptiveFields(bounds, bounds, (SIDE, SIDE)), 0.5)
    assert (region.position, region.field) == ((1, 0), (1, 0, 11, 7))
    assert region.mask[1:11, :7].any() and not region.mask[1:11, 7:].any()
    # Between centers 2 and 6 the resized map falls from 1 to 0: half of it is reached in the middle, at 4.
    assert region.mask[6, :4].all() and not region.mask[6, 4:].any()
    assert np.flatnonzero(region.mask[:, 0]).tolist() == [4, 5, 6, 7]


def test_a_field_as_large_as_the_image_leaves_the_threshold():
    unit_map = np.array([[0, 3], [1, 2]], np.float32)
    everything = np.array([[0, 2]] * 2)
    fields = ReceptiveFields(everything, everything, (2, 2))
    assert unit_region(unit_map, fields, 0.5).mask.tolist() == [[False, True], [False, True]]
    assert unit_region(unit_map, fields, 0.2).mask.tolist() == [[False, True], [True, True]]
    assert not unit_region(np.float32([[-1, -2], [0, -3]]), fields, 0.5).mask.any()


def test_a_network_sees_nothing_of_what_is_outside_of_the_field(tiny):
    """The pixels outside of the field are changed: the response at the maximum is the same."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    fields = receptive_fields(tiny)
    unit_maps = unit_maps_fn(tiny)
    (unit_map,) = unit_maps([image], 3)[1]
    region = unit_region(unit_map, fields, 0.5)
    top, left, bottom, right = region.field
    assert (bottom - top) * (right - left) < 32 * 32
    other = rng.integers(0, 256, image.shape, dtype=np.uint8)
    other[top:bottom, left:right] = image[top:bottom, left:right]
    assert unit_maps([other], 3)[1][0][region.position] == pytest.approx(unit_map[region.position], abs=1e-5)
    assert not region.mask[:top].any() and not region.mask[bottom:].any()
    assert not region.mask[:, :left].any() and not region.mask[:, right:].any()


def test_what_is_outside_of_a_region_is_dark():
    image = np.full((1, 2, 3), 100, np.uint8)
    assert darkened(image, np.array([[True, False]]))[0, :, 0].tolist() == [100, 30]


def test_networks_without_a_kernel_have_nothing_to_rank(tmp_path, monkeypatch):
    model = Identity()
    model.head = MapHead(3)
    monkeypatch.setattr(camjax, "load_model", lambda *_, **__: model)
    options = experiment.Options(sample=True, model="nin", out=tmp_path, classes=("0",))
    with pytest.raises(ValueError, match=r"nin has no dense layer .* nothing to rank"):
        experiment.run(options, colors([painted()]), QUIET)


def test_the_experiment(tiny, tmp_path, monkeypatch):
    tiny.class_names = "red, crimson", "green", "blue"
    monkeypatch.setattr(camjax, "load_model", lambda *_, **__: tiny)
    rng = np.random.default_rng(3)
    source = damaged([rng.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in range(6)])
    options = experiment.Options(
        dataset="unused", model="tiny", classes=("crimson", "2"), out=tmp_path, units=2, shown=3, batch_size=4
    )
    console = Console(file=io.StringIO(), width=200)
    found = experiment.run(options, source, console)
    assert list(found) == [0, 2] and "1 images can't be read" in console.file.getvalue()
    kernel = np.asarray(tiny.head.kernel[...])
    images = np.stack([resize_image(image, (32, 32)) for image in source.images])
    features = np.array(jax.jit(lambda model, images: inference_view(model).features(images))(tiny, images))
    features[1] = -1  # the one that can't be read
    for class_id in (0, 2):
        units = found[class_id]["units"]
        assert [unit["unit"] for unit in units] == np.argsort(-kernel[:, class_id])[:2].tolist()
        for unit in units:
            assert unit["weight"] == pytest.approx(kernel[unit["unit"], class_id])
            responses = features[..., unit["unit"]].max((1, 2))
            assert [image["index"] for image in unit["images"]] == np.argsort(-responses, kind="stable")[:3].tolist()
            for image in unit["images"]:
                own_map = features[image["index"], ..., unit["unit"]]
                assert image["response"] == pytest.approx(own_map.max(), rel=1e-4)
                assert own_map[tuple(image["position"])] == own_map.max()
                assert image["filename"] == f"{image['index']}.png" and 0 < image["share_of_image"] < 1
        assert (tmp_path / f"class_{class_id}.png").stat().st_size > 10_000
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["class 2"]["results"] == found[2]

    # Another class starts from the pass that is there.
    monkeypatch.setattr(experiment, "top_images", lambda *_, **__: pytest.fail("a second pass"))
    assert list(experiment.run(dataclasses.replace(options, classes=("green",)), source, QUIET)) == [1]
    with pytest.raises(ValueError, match="images_of_a_unit was 3, is 2"):
        experiment.run(dataclasses.replace(options, shown=2), source, QUIET)


@pytest.mark.long
def test_the_sample(tmp_path):
    experiment.main(experiment.Options(sample=True, out=tmp_path))
    assert (tmp_path / "class_281.png").exists() and (tmp_path / "class_967.png").exists()
