"""Images on several devices: each way in which JAX splits a batch gives what one device gives, and leaves it split."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import camjax
from camjax import boxes, cam, components
from camjax.attribution.methods import METHODS
from camjax.errors import InputError
from camjax.inference import make_localize_fns
from tests import tiny_vit  # noqa: F401, registers it
from tests.experiments.colors import TINY
from tests.few_copies import FEW

ON_HOST = {name for name, row in METHODS.items() if row.is_loop or row.host_boxes}

# Shares of a map's largest value, for rounding that batches of another size bring: up to 1.1e-6 was seen. The first
# principal component magnifies it where the second one is nearly as large: 6.6e-6 of float32, 6.5e-15 in a copy of
# camjax in which all is float64, and 6.6e-15 / 2.2e-16 is 6.6e-6 / 1.2e-7 within a factor of two. Ablation-CAM's map is
# a difference of scores, with the scores' rounding: 1e-5 where both are nearly the same.
BOUND, LOSSY_BOUND = 3e-6, 2e-5
LOSSY = re.compile("eigen|kpca|ablation")
# On CPUs, decompositions and the gradient of max pooling go through the images one by one: those of all devices.
ONE_BY_ONE = {"eigencam", "eigengradcam", "segeigencam", "kpcacam", "dff", "refinecam", "fullgrad"}
SPLIT = P("images")

# Ways to call a function of arrays (8, ...) on four devices; they are called in processes with as many.


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((4,), ("images",), axis_types=(kind,))


def split(arrays, kind=AxisType.Auto):
    return jax.device_put(arrays, NamedSharding(mesh(kind), SPLIT))


def direct(function, arrays):
    return function(*split(arrays))


def with_explicit_axes(function, arrays):
    with jax.set_mesh(mesh(AxisType.Explicit)):
        return function(*split(arrays, AxisType.Explicit))


def with_explicit_axes_alone(function, arrays):
    """Where nobody called `jax.set_mesh`: axes are explicit by default in `jax.make_mesh` of newer versions."""
    return function(*split(arrays, AxisType.Explicit))


def with_explicit_axes_in_jit(function, arrays):
    return with_explicit_axes(jax.jit(function), arrays)


def jit_with_shardings(function, arrays, gathers=False):
    sharding = NamedSharding(mesh(), SPLIT)
    compiled = jax.jit(function, in_shardings=sharding, out_shardings=sharding).lower(*arrays).compile()
    assert gathers or "all-gather" not in compiled.as_text()
    return compiled(*split(arrays))


def jit_that_gathers(function, arrays):
    return jit_with_shardings(function, arrays, gathers=True)


def shard_map(function, arrays):
    return jax.jit(jax.shard_map(function, mesh=mesh(), in_specs=SPLIT, out_specs=SPLIT))(*arrays)


def in_four(transform):
    """Of a transformation that maps over a leading axis."""

    @functools.wraps(transform)
    def way(function, arrays):
        found = transform(function, [array.reshape(4, 2, *array.shape[1:]) for array in arrays])
        return jax.tree.map(lambda array: array.reshape(8, *array.shape[2:]), found)

    return way


@in_four
def pmap(function, arrays):
    return jax.pmap(function)(*arrays)


@in_four
def vmap(function, arrays):
    return jax.jit(jax.vmap(function))(*arrays)


@in_four
def scan(function, arrays):
    return jax.lax.scan(lambda _, arrays: (None, function(*arrays)), None, arrays)[1]


EAGER = direct, with_explicit_axes
SPLITTING = with_explicit_axes_in_jit, jit_with_shardings, shard_map
MAPPING = pmap, vmap, scan


def check(name, ways, function, *arrays):
    expected = jax.tree.leaves_with_path(function(*arrays))
    for way in ways:
        found = jax.tree.leaves_with_path(way(function, arrays))
        assert [place for place, _ in found] == [place for place, _ in expected]
        for (place, value), (_, other) in zip(expected, found, strict=True):
            key = jax.tree_util.keystr(place)
            where = f"{name}, {way.__name__}: {key}"
            if way not in MAPPING:
                assert other.sharding.shard_shape(other.shape) == (2, *other.shape[1:]), (where, other.sharding)
            if "boxes" in key or not np.issubdtype(value.dtype, np.floating):
                np.testing.assert_array_equal(other, value, where)
            else:
                bound = LOSSY_BOUND if LOSSY.search(key) else BOUND
                scale = np.abs(value)[np.isfinite(value)].max()  # a peak of no component is -inf
                np.testing.assert_allclose(other, value, rtol=0, atol=bound * scale, err_msg=where)
    print(name, *(way.__name__ for way in ways), flush=True)


def check_methods(network, size, names, ways):
    model = camjax.create_model(network, 5, rngs=nnx.Rngs(0))
    options = {name: FEW[name] for name in names if name in FEW}
    function = make_localize_fns(model, names, options=options)
    size = METHODS[names[0]].image_size(model) if METHODS[names[0]].crops else size
    rng = np.random.default_rng(0)
    images, ids = rng.integers(0, 256, (8, *size, 3)).astype(np.uint8), rng.integers(0, 5, (8, 2)).astype(np.int32)
    check(f"{network} {names}", ways, function, images, ids)


def check_gradients(ways):
    """Of a score that has maps in it, with respect to the images."""
    model = camjax.create_model("small_gap", 5, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32)
    check("grad", ways, jax.jit(jax.grad(lambda images: (camjax.cam_fn(model, images).maps ** 2).sum())), images)


def check_arrays(ways):
    rng = np.random.default_rng(0)
    features, kernel = rng.normal(size=(8, 3, 4, 6)).astype(np.float32), rng.normal(size=(6, 9)).astype(np.float32)
    maps, mask = rng.normal(size=(8, 2, 5, 6)).astype(np.float32), rng.random((8, 2, 20, 20)) < 0.5
    ids, threshold = rng.integers(0, 9, (8, 2)).astype(np.int32), rng.random((8, 2)).astype(np.float32)

    def function(features, maps, mask, ids, threshold):
        found = boxes.boxes_from_maps(maps, (20, 24), threshold)
        return {
            "class_activation_map": cam.class_activation_map(features, kernel, ids),
            "class_maps": cam.class_maps(maps, None, ids % 6),
            "all classes": cam.class_activation_map(features, kernel),
            "few classes": cam.class_activation_map(features, kernel[:, :5], ids % 5),
            "resize_map": cam.resize_map(maps, (20, 24)),
            "normalize_map": cam.normalize_map(maps),
            "largest_component": components.largest_component(mask),
            "describe_components": components.describe_components(mask, mask.astype(np.float32)),
            "boxes_from_maps": found,
            "box_iou": boxes.box_iou(found[0], found[0][:, ::-1]),
            "largest_component_box, boxes": boxes.largest_component_box(mask),
            "scored_box_from_maps": boxes.scored_box_from_maps(maps, (20, 24), 0.2),
        }

    def several_boxes(maps, threshold):
        return boxes.component_boxes_from_maps(maps, (20, 24), threshold, max_boxes=3)

    check("arrays", ways, jax.jit(function), features, maps, mask, ids, threshold)
    check("component_boxes_from_maps", (with_explicit_axes_in_jit, shard_map), several_boxes, maps, threshold)


def check_quickly():
    check_methods(TINY, (16, 16), ["cam", "gradcam"], (*SPLITTING, with_explicit_axes_alone))
    check_methods(TINY, (16, 16), ["ablationcam", "center"], EAGER)


def check_attention():
    names = [name for name, row in METHODS.items() if row.of_attention]
    check_methods("tiny_vit", (32, 32), names, (*EAGER, *SPLITTING, *MAPPING))


def check_all():
    check_arrays((*SPLITTING, *MAPPING))
    check_gradients((direct, *SPLITTING))
    check_methods(TINY, (24, 20), [name for name, row in METHODS.items() if not (row.crops or row.of_attention)], EAGER)
    compiled = [name for name, row in METHODS.items() if not (name in ON_HOST or row.crops or row.of_attention)]
    check_methods(TINY, (24, 20), [name for name in compiled if name not in ONE_BY_ONE], (*SPLITTING, *MAPPING))
    ways = with_explicit_axes_in_jit, jit_that_gathers, shard_map, *MAPPING
    check_methods(TINY, (24, 20), [name for name in compiled if name in ONE_BY_ONE], ways)
    check_methods(TINY, (24, 20), ["cam_ten_crop"], (*EAGER, *SPLITTING, *MAPPING))


def check_network(name):
    check_methods(name, (64, 64), ["cam", "gradcam", "backprop", "rise"], (with_explicit_axes,))
    check_methods(name, (64, 64), ["cam", "gradcam"], (jit_with_shardings, shard_map))


NETWORKS = ("resnet18", "efficientnet_lite0", "squeezenet1_1")
LONG = ("check_all()", "check_attention()", *(f"check_network({name!r})" for name in NETWORKS))


@pytest.mark.parametrize("part", ["check_quickly()", *(pytest.param(part, marks=pytest.mark.long) for part in LONG)])
def test_a_batch_on_several_devices(part):
    code = f"import jax; jax.config.update('jax_num_cpu_devices', 4); from tests import test_sharding as t; t.{part}"
    # XLA's pool has a thread for each device, or NPROC. jaxlib's `eigh` blocks one until others have done the work, as
    # collectives do until all devices are there: where they hold all four, the program stands still.
    environment = {**os.environ, "NPROC": "16"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], env=environment)


@pytest.mark.parametrize("name", sorted(ON_HOST))
def test_what_runs_on_the_host_says_so_inside_jit(name):
    localize_fn = camjax.make_localize_fn(camjax.create_model("small_gap", 5, rngs=nnx.Rngs(0)), name)
    with pytest.raises(InputError, match=rf"{re.escape(name)} inside of jax.jit .* Call it outside"):
        jax.eval_shape(localize_fn, jax.ShapeDtypeStruct((2, 16, 16, 3), np.uint8))
