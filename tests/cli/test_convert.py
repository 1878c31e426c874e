"""Files of camjax's own: whole, bit by bit, and known by what they say of themselves."""

import json
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photos, random_network
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import camjax
from camjax.cli.main import main
from camjax.models.efficientnet_lite import packaged_file
from camjax.weights.camjax_file import write_camjax_file
from camjax.weights.errors import WeightsError
from camjax.weights.torch_file import read_torch_file


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The file that `camjax convert` makes of EfficientNet-Lite0's."""
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    assert main(["convert", str(packaged_file(0)), str(path), "--model", "efficientnet_lite0"]) == 0
    return path


def metadata(path) -> dict:
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def weights(model) -> dict[str, np.ndarray]:
    """Every number but random state."""
    return {
        ".".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState)))
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_file_has_the_models_names_and_numbers(converted, lite0):
    assert_same(load_file(converted), weights(lite0))
    stem = read_torch_file(packaged_file(0))["_conv_stem.weight"]
    np.testing.assert_array_equal(load_file(converted)["stem.conv.kernel"], stem.transpose(2, 3, 1, 0))


def test_what_the_file_says(converted):
    said = metadata(converted)
    assert json.loads(said.pop("input_rule")) == {"mean": [127] * 3, "std": [128] * 3, "channel_order": "rgb"}
    assert said == {
        "format": "camjax",
        "camjax_version": camjax.__version__,
        "model": "efficientnet_lite0",
        "num_classes": "1000",
        "pool": "gap",
        "input_size": "[224, 224]",
    }


def test_there_and_back_bit_by_bit(converted, lite0):
    model = camjax.load_model("efficientnet_lite0", converted)
    assert_same(weights(model), weights(lite0))
    assert model.created_as == lite0.created_as and model.class_names is None
    assert jax.tree.structure(model) == jax.tree.structure(lite0)


def test_a_file_converted_again_says_the_same(converted, tmp_path):
    again = tmp_path / "again.safetensors"
    assert main(["convert", str(converted), str(again), "--model", "efficientnet_lite0"]) == 0
    assert_same(load_file(again), load_file(converted))
    assert metadata(again) == metadata(converted)


def test_names_pool_input_rule_and_size_travel_along(tmp_path):
    model = random_network("small_gap", 3, pool="gmp")
    model.class_names = ("Katze", "猫", 'a "quoted" one')
    image = np.random.default_rng(0).uniform(0, 255, (70, 80, 3)).astype(np.float32)
    model.set_input_rule(mean=(1, 2, 3), std=(4, 5, 6), channel_order="bgr", mean_image=image)
    model.input_size = (48, 96)
    path = tmp_path / "three.safetensors"
    write_camjax_file(model, path, version="0")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]

    loaded = camjax.load_model("small_gap", path, num_classes=3)
    assert loaded.class_names == model.class_names
    assert (loaded.mean, loaded.std, loaded.channel_order) == ((1, 2, 3), (4, 5, 6), "bgr")
    assert loaded.head.pool == "gmp" and loaded.input_size == (48, 96)
    assert camjax.with_new_head(loaded, 2).input_size == (48, 96)
    assert_same(weights(loaded), weights(model))
    model.eval()
    forward = jax.jit(lambda model, images: model(images))
    np.testing.assert_array_equal(forward(loaded, photos((64, 64))), forward(model, photos((64, 64))))
    assert camjax.load_model("small_gap", path, num_classes=3, pool="gap").head.pool == "gap"
    for alone in (camjax.load_model(path), camjax.load_model(str(path)), camjax.load_model("small_gap", path)):
        assert_same(weights(alone), weights(model))
        assert (alone.class_names, alone.head.pool) == (model.class_names, "gmp")
    with pytest.warns(UserWarning, match="for 3 classes"):
        assert camjax.load_model("small_gap", path, num_classes=5).class_names is None


def test_another_number_of_classes(tmp_path, capsys):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    write_camjax_file(random_network("small_gap", 3), source, version="0")
    command = ["convert", str(source), str(target), "--model", "small_gap"]
    assert main([*command, "--num-classes", "4"]) == 1
    assert "--num-classes 4" in capsys.readouterr().err
    assert not target.exists()
    for options in ([], ["--num-classes", "3"]):  # the file says how many it has
        assert main([*command, *options]) == 0
        assert capsys.readouterr().out.startswith(f"Saved {target}: small_gap, 3 classes, 0.6 MB")
        assert metadata(target)["num_classes"] == "3"


def test_a_file_of_another_head_and_the_command_that_the_error_gives(tmp_path, capsys):
    tensors = dict(read_torch_file(packaged_file(0)))
    tensors |= {"_fc.weight": tensors["_fc.weight"][:6], "_fc.bias": tensors["_fc.bias"][:6]}
    source, target = tmp_path / "six.safetensors", tmp_path / "out.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, source)
    command = ["convert", str(source), str(target), "--model", "efficientnet_lite0"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "`camjax convert FILE OUT.safetensors --model NAME --num-classes 6` writes a file that every" in error
    assert main([*command, "--num-classes", "6"]) == 0
    np.testing.assert_array_equal(
        camjax.load_model("efficientnet_lite0", target).head.kernel[...], tensors["_fc.weight"].T
    )


def test_a_disk_that_is_full(tmp_path, capsys):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    write_camjax_file(random_network("small_gap", 3), source, version="0")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        code = main(["convert", str(source), str(target), "--model", "small_gap"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert code == 1 and error.startswith(f"camjax: {target} cannot be written (") and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_all_that_does_not_fit_is_reported(tmp_path, capsys):
    tensors = dict(read_torch_file(packaged_file(0)))
    del tensors["_bn0.weight"]
    source = tmp_path / "in.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()} | {"extra": np.ones(1)}, source)
    assert main(["convert", str(source), str(tmp_path / "out.safetensors"), "--model", "efficientnet_lite0"]) == 1
    error = capsys.readouterr().err
    assert "stem.bn.scale" in error and "extra" in error
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("out.pth", "expected a file that ends in .safetensors"),
        ("gone/out.safetensors", "the directory gone does not exist"),
        ("in.safetensors", "is IN itself"),
    ],
)
def test_a_target_that_cannot_be(target, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_camjax_file(random_network("small_gap"), "in.safetensors", version="0")
    assert main(["convert", "in.safetensors", target, "--model", "small_gap"]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": "0"},
        {"num_classes": "1e3"},
        {"num_classes": "9" * 30},
        {"class_names": "[1]"},
        {"class_names": '["one"]'},
        {"class_names": "[" * 100_000},
        {"pool": "mean"},
        {"input_rule": "[]"},
        {"input_rule": '{"mean": 3, "std": [1, 1, 1]}'},
        {"input_rule": '{"mean_image": 3}'},
        {"input_rule": '{"std": [1, 1, 0]}'},
        {"input_size": "[224]"},
        {"input_size": "[0, 8]"},
    ],
)
def test_damaged_metadata(change, tmp_path):
    path = tmp_path / "net.safetensors"
    write_camjax_file(random_network("small_gap"), path, version="0")
    save_file(load_file(path), path, metadata(path) | change)
    with pytest.raises(
        WeightsError,
        match=r"(num_classes|class_names|input_rule|pool).* is damaged|does not fit|net.safetensors: input_size=",
    ):
        camjax.load_model("small_gap", path)


def test_the_number_of_classes_in_the_metadata_allocates_nothing(tmp_path):
    path = tmp_path / "net.safetensors"
    write_camjax_file(random_network("small_gap"), path, version="0")
    save_file(load_file(path), path, metadata(path) | {"num_classes": str(2**31 - 1)})
    with pytest.raises(WeightsError, match=r"head\.bias: \(10,\) in the file, \(2147483647,\) in the model"):
        camjax.load_model("small_gap", path, num_classes=10)


def test_another_model_is_named(converted):
    with pytest.raises(WeightsError, match=r"lite0\.safetensors \(camjax's efficientnet_lite0\) does not fit"):
        camjax.load_model("small_gap", converted)


def test_half_precision_in_the_file_is_kept_exactly(tmp_path):
    path = tmp_path / "net.safetensors"
    write_camjax_file(random_network("small_gap"), path, version="0")
    half = {name: array.astype(np.float16) for name, array in load_file(path).items()}
    save_file(half, path, metadata(path))
    kernel = camjax.load_model("small_gap", path).head.kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, half["head.kernel"].astype(np.float32))
