"""Images on several devices: each way in which JAX splits a batch gives what one device gives, and leaves it split."""

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

ON_HOST = {name for name, row in METHODS.items() if row.is_loop or row.host_boxes}
FEW = {
    "sscam": {"num_samples": 2},
    "iscam": {"num_samples": 2},
    "integrated_gradients": {"num_steps": 2},
    "smoothgrad": {"num_samples": 2},
    "occlusion": {"window": 16, "stride": 16},
    "rise": {"num_masks": 4},
}
SPLIT = P("images")

# Ways to call a function of arrays (8, ...) on four devices; they are called in `main` alone.


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((4,), ("images",), axis_types=(kind,))


def split(arrays, kind=AxisType.Auto):
    return jax.device_put(arrays, NamedSharding(mesh(kind), SPLIT))


def direct(function, arrays):
    return function(*split(arrays))


def with_explicit_axes(function, arrays):
    with jax.set_mesh(mesh(AxisType.Explicit)):
        return function(*split(arrays, AxisType.Explicit))


def with_explicit_axes_in_jit(function, arrays):
    return with_explicit_axes(jax.jit(function), arrays)


def jit_with_shardings(function, arrays):
    sharding = NamedSharding(mesh(), SPLIT)
    compiled = jax.jit(function, in_shardings=sharding, out_shardings=sharding).lower(*arrays).compile()
    assert "all-gather" not in compiled.as_text()
    return compiled(*split(arrays))


def shard_map(function, arrays):
    return jax.jit(jax.shard_map(function, mesh=mesh(), in_specs=SPLIT, out_specs=SPLIT))(*arrays)


def in_four(transform):
    """Of a transformation that maps over a leading axis."""

    def way(function, arrays):
        found = transform(function, [array.reshape(4, 2, *array.shape[1:]) for array in arrays])
        return jax.tree.map(lambda array: array.reshape(8, *array.shape[2:]), found)

    return way


pmap = in_four(lambda function, arrays: jax.pmap(function)(*arrays))
vmap = in_four(lambda function, arrays: jax.jit(jax.vmap(function))(*arrays))
scan = in_four(lambda function, arrays: jax.lax.scan(lambda _, arrays: (None, function(*arrays)), None, arrays)[1])

EAGER = direct, with_explicit_axes
SPLITTING = with_explicit_axes_in_jit, jit_with_shardings, shard_map
MAPPING = pmap, vmap, scan


def check(name, ways, function, *arrays):
    expected = jax.tree.leaves_with_path(function(*arrays))
    for way in ways:
        found = jax.tree.leaves_with_path(way(function, arrays))
        assert [place for place, _ in found] == [place for place, _ in expected]
        for (place, value), (_, other) in zip(expected, found, strict=True):
            where = f"{name}, {way.__name__}: {jax.tree_util.keystr(place)}"
            if way not in MAPPING:
                assert other.sharding.shard_shape(other.shape) == (2, *other.shape[1:]), (where, other.sharding)
            if "boxes" in where or not np.issubdtype(value.dtype, np.floating):
                np.testing.assert_array_equal(other, value, where)
            else:
                # Differences of scores, and directions in which a map varies most, magnify rounding.
                magnified = any(name in jax.tree_util.keystr(place) for name in ("eigen", *ON_HOST))
                scale = float(np.abs(value).max()) * (100 if magnified else 1)
                np.testing.assert_allclose(other, value, rtol=0, atol=3e-6 * scale, err_msg=where)
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


def main(full: bool) -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    check_methods("small_gap", (16, 16), ["cam", "gradcam"], SPLITTING)
    check_methods("small_gap", (16, 16), ["ablationcam"], (with_explicit_axes,))
    if not full:
        return
    compiled = [name for name, row in METHODS.items() if name not in ON_HOST and not row.crops]
    check_arrays((*SPLITTING, *MAPPING))
    check_gradients((direct, *SPLITTING))
    check_methods("small_gap", (24, 20), [name for name, row in METHODS.items() if not row.crops], EAGER)
    check_methods("small_gap", (24, 20), compiled, (*SPLITTING, *MAPPING))
    check_methods("small_gap", (24, 20), ["cam_ten_crop"], (*EAGER, *SPLITTING, *MAPPING))
    for network in ("resnet18", "efficientnet_lite0", "squeezenet1_1"):
        check_methods(network, (64, 64), ["cam", "gradcam", "backprop", "ablationcam"], EAGER)
        check_methods(network, (64, 64), ["cam", "gradcam"], SPLITTING)


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_batch_on_several_devices(full):
    code = f"from tests import test_sharding; test_sharding.main({full})"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("name", sorted(ON_HOST))
def test_what_runs_on_the_host_says_so_inside_jit(name):
    localize_fn = camjax.make_localize_fn(camjax.create_model("small_gap", 5, rngs=nnx.Rngs(0)), name)
    with pytest.raises(InputError, match=f"{name} inside of jax.jit .* Call it outside"):
        jax.eval_shape(localize_fn, jax.ShapeDtypeStruct((2, 16, 16, 3), np.uint8))
