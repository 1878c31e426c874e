import dataclasses
import json
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from conftest import photos, random_network
from flax import nnx
from safetensors.numpy import save_file

import camjax
from benchmarks.peers import import_torchvision
from camjax import loading
from camjax.models import CamModel, ConvBN, model_spec, registry, vgg
from camjax.models.efficientnet_lite import packaged_file
from camjax.models.head import MapHead
from camjax.models.shapes import model_shapes
from camjax.models.tensor_names import DENSE, Rule, batchnorm
from camjax.runs import checkpoints_of
from camjax.training import Checkpoints, Recipe, TrainState
from camjax.training.runs import describe_run, start_run
from camjax.weights import camjax_file
from camjax.weights.download import FetchError
from camjax.weights.errors import WeightsError
from camjax.weights.placing import NameTable
from camjax.weights.torch_file import read_torch_file


@pytest.fixture(scope="module")
def tensors():
    """What EfficientNet-Lite0's file holds, by its names."""
    return read_torch_file(packaged_file(0))


@pytest.fixture(scope="module")
def fine_tuned(tensors, tmp_path_factory):
    """A file of EfficientNet-Lite0 with the first seven classes."""
    path = tmp_path_factory.mktemp("weights") / "seven.safetensors"
    return save(path, {**tensors, "_fc.weight": tensors["_fc.weight"][:7], "_fc.bias": tensors["_fc.bias"][:7]})


def save(path, tensors):
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
    return path


def arrays(module) -> dict[str, np.ndarray]:
    """Every number of a module, random keys included."""
    return {
        ".".join(map(str, path)): np.asarray(
            jax.random.key_data(variable[...]) if isinstance(variable, nnx.RngKey) else variable[...]
        )
        for path, variable in nnx.to_flat_state(nnx.state(module))
    }


def assert_same(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def backbone(model) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays(model).items() if not name.startswith("head.")}


def test_every_entry_of_a_file_lands_where_it_belongs(lite0, tensors):
    found = arrays(lite0)
    np.testing.assert_array_equal(found["stem.conv.kernel"], tensors["_conv_stem.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        found["blocks.3.depthwise.conv.kernel"][:, :, 0, 5], tensors["_blocks.3._depthwise_conv.weight"][5, 0]
    )
    np.testing.assert_array_equal(found["blocks.15.project.bn.mean"], tensors["_blocks.15._bn2.running_mean"])
    np.testing.assert_array_equal(found["top.bn.var"], tensors["_bn1.running_var"])
    np.testing.assert_array_equal(found["head.kernel"], tensors["_fc.weight"].T)
    np.testing.assert_array_equal(found["head.bias"], tensors["_fc.bias"])
    assert len(found) - 2 == sum(not name.endswith("num_batches_tracked") for name in tensors)  # 2: dropout's


def test_a_loaded_model_is_whole(lite0):
    assert lite0.class_names[285] == "Egyptian cat" and len(lite0.class_names) == 1000
    assert lite0.created_as == {"name": "efficientnet_lite0", "num_classes": 1000, "pool": "gap"}
    assert arrays(lite0)["head.dropout.rngs.count"] == 0
    out = nnx.clone(lite0).head(jnp.ones((1, 2, 2, 1280)))  # a clone: dropout counts its calls
    assert out.shape == (1, 1000) and np.isfinite(out).all()


def test_a_loaded_and_a_created_model_share_one_compiled_function(lite0):
    created = model_shapes("efficientnet_lite0")
    created.eval()
    assert jax.tree.structure(lite0) == jax.tree.structure(created)


def test_a_loaded_model_is_in_inference_mode(tmp_path):
    @jax.jit
    def outputs(model, images):
        return model(images), camjax.cam_fn(model, images).logits, model

    model = random_network("small_gap")
    model.train()
    camjax_file.write_camjax_file(model, tmp_path / "small.safetensors", version="0")
    loaded = camjax.load_model("small_gap", tmp_path / "small.safetensors")
    logits, by_cam_fn, after = outputs(loaded, photos((32, 32)))
    np.testing.assert_allclose(logits, by_cam_fn, rtol=1e-4, atol=1e-4)
    assert_same(arrays(after), arrays(loaded))


def test_options_reach_the_model(lite0):
    model = camjax.load_model("efficientnet_lite0", pool="gmp", dtype=jnp.bfloat16, rngs=nnx.Rngs(3))
    assert model.head.pool == "gmp" and model.dtype == jnp.bfloat16 and not model.exact_cam
    assert model.head.kernel[...].dtype == jnp.float32
    found, expected = arrays(model), arrays(lite0)
    keys = [numbers.pop("head.dropout.rngs.key") for numbers in (found, expected)]
    assert_same(found, expected)
    for key, seed in zip(keys, (3, 0), strict=True):
        np.testing.assert_array_equal(key, jax.random.key_data(nnx.Rngs(seed).dropout()))


def test_both_formats_give_the_same_model(lite0, tensors, tmp_path):
    path = save(tmp_path / "lite0.safetensors", tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = camjax.load_model("efficientnet_lite0", path)
    assert_same(arrays(model), arrays(lite0))
    assert model.class_names is None
    by_path = camjax.load_model("efficientnet_lite0", str(packaged_file(0)))
    assert_same(arrays(by_path), arrays(lite0))


def test_half_precision_files_give_float32_parameters(tensors, tmp_path):
    half = {name: tensor.astype(ml_dtypes.bfloat16) if tensor.ndim else tensor for name, tensor in tensors.items()}
    model = camjax.load_model("efficientnet_lite0", save(tmp_path / "half.safetensors", half))
    kernel = model.head.kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, half["_fc.weight"].T.astype(np.float32))


def test_an_equal_number_of_classes_keeps_the_head(lite0):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = camjax.load_model("efficientnet_lite0", num_classes=1000)
    assert_same(arrays(model), arrays(lite0))
    assert model.class_names == lite0.class_names


def test_another_number_of_classes_starts_a_new_head_and_says_so(lite0):
    with pytest.warns(
        UserWarning, match=r"num_classes=7\).* for 1000 classes.*backbone is kept.*head is new"
    ) as caught:
        model = camjax.load_model("efficientnet_lite0", num_classes=7, pool="gmp", rngs=nnx.Rngs(1))
    assert len(caught) == 1 and caught[0].filename == __file__
    assert_same(backbone(model), backbone(lite0))
    assert model.class_names is None and model.head.pool == "gmp"
    assert model.head.kernel.shape == (1280, 7)
    assert not np.asarray(model.head.bias[...]).any()


def test_a_fine_tuned_file_with_its_own_number_of_classes_keeps_its_head(fine_tuned, lite0):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = camjax.load_model("efficientnet_lite0", fine_tuned, num_classes=7)
    np.testing.assert_array_equal(model.head.kernel[...], lite0.head.kernel[...][:, :7])
    np.testing.assert_array_equal(model.head.bias[...], lite0.head.bias[...][:7])
    assert_same(backbone(model), backbone(lite0))
    assert model.created_as["num_classes"] == 7


def test_a_fine_tuned_file_may_start_a_new_head_too(fine_tuned, lite0):
    with pytest.warns(UserWarning, match="for 7 classes"):
        model = camjax.load_model("efficientnet_lite0", fine_tuned, num_classes=1000)
    assert model.head.kernel.shape == (1280, 1000)
    assert not np.array_equal(model.head.kernel[...], lite0.head.kernel[...])
    assert_same(backbone(model), backbone(lite0))


def test_another_number_of_classes_in_the_file_is_an_error_that_tells_the_ways_out(fine_tuned):
    with pytest.raises(WeightsError) as caught:
        camjax.load_model("efficientnet_lite0", fine_tuned)
    message = str(caught.value)
    assert f"{fine_tuned} does not fit the model." in message
    assert "_fc.weight: (1280, 7) in the file, (1280, 1000) in the model at head.kernel" in message
    assert "_fc.bias: (7,) in the file, (1000,) in the model at head.bias" in message
    assert "The file has 7 classes and the model 1000: num_classes=7 loads its head" in message


@pytest.fixture
def with_config(fine_tuned, tmp_path):
    """Puts a config.json beside a file of EfficientNet-Lite0 with seven classes, whose path it returns."""
    path = tmp_path / "model.safetensors"
    path.symlink_to(fine_tuned)

    def write(config):
        path.with_name("config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return path

    return write


RULE = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 1], "input_size": [3, 240, 256]}
RULE |= {"crop_pct": 0.875, "interpolation": "bicubic"}


@pytest.mark.parametrize(
    "config",
    [
        {"num_classes": 7, "label_names": list("abcdefg"), "pretrained_cfg": {**RULE, "num_classes": 1000}},
        {"num_classes": 7, "labels": list("abcdefg"), **RULE},  # as older versions of timm wrote it
    ],
)
def test_a_config_of_timm_says_how_images_are_taken(with_config, tmp_path, config):
    path = with_config({"architecture": "tf_efficientnet_lite0", **config})
    said = (
        "config.json: images have mean (127.5, 127.5, 127.5), std (127.5, 63.75, 255), size (240, 256) for these "
        "weights, in place of efficientnet_lite0's mean (127, 127, 127), std (128, 128, 128), size (224, 224)."
    )
    with pytest.warns(UserWarning, match=re.escape(said)) as caught:
        model = camjax.load_model("efficientnet_lite0", path.parent)
    assert len(caught) == 1 and caught[0].filename == __file__
    normalized = {"mean": (127.5,) * 3, "std": (127.5, 63.75, 255), "channel_order": "rgb"}
    assert model.input_rule == {**normalized, "crop_share": 0.875, "interpolation": "bicubic"}
    assert model.input_size == (240, 256) and model.class_names == tuple("abcdefg")
    camjax_file.write_camjax_file(model, tmp_path / "converted.safetensors", version="0")
    converted = camjax.load_model(tmp_path / "converted.safetensors")
    assert (converted.input_rule, converted.input_size) == (model.input_rule, model.input_size)


@pytest.mark.parametrize("config", [{"architectures": ["ViT"], "mean": 3}, {"architecture": "tf_efficientnet_lite0"}])
def test_a_config_that_says_nothing_changes_nothing(with_config, lite0, config):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = camjax.load_model("efficientnet_lite0", with_config(config), num_classes=7)
    assert (model.input_rule, model.input_size, model.class_names) == (lite0.input_rule, lite0.input_size, None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"architecture": "efficientnet_lite0"},
            "says that these are weights of 'efficientnet_lite0', and efficientnet_lite0 takes those of "
            "'EfficientNet-Lite0' or 'tf_efficientnet_lite0'. camjax has no network for them.",
        ),
        ({"architecture": "mobilenetv2_100"}, "They are for mobilenet_v2."),
        ({"architecture": "tf_efficientnet_lite0", "mean": [0.5]}, "mean.1 is missing"),
        ({"architecture": "tf_efficientnet_lite0", **RULE, "std": [0, 1, 1]}, "std > 0"),
        ({"architecture": "tf_efficientnet_lite0", **RULE, "crop_pct": 1.5}, "expected a share in 0..1"),
        ("{", "EOF while parsing an object"),
        ([1], "should be an object"),
    ],
)
def test_a_config_of_another_network_or_a_damaged_one_is_an_error(with_config, config, message):
    path = with_config(config)
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        camjax.load_model("efficientnet_lite0", path, num_classes=7)
    assert str(path.parent) in str(caught.value) and "\n" not in str(caught.value)


def test_what_no_file_tells_apart_is_said(fine_tuned, monkeypatch):
    spec = dataclasses.replace(model_spec("efficientnet_lite0"), look_alikes={"_conv_stem.weight": "other_lite0"})
    monkeypatch.setattr(loading, "model_spec", lambda name: spec)
    with pytest.warns(UserWarning, match=r"timm's tf_efficientnet_lite0 and other_lite0 have.*taken for tf_"):
        camjax.load_model("efficientnet_lite0", fine_tuned, num_classes=7)


def test_a_file_of_another_model_is_no_question_of_classes(fine_tuned):
    with pytest.raises(WeightsError, match=r"Is the file for another model"):
        camjax.load_model("efficientnet_lite1", fine_tuned, num_classes=3)
    with pytest.raises(WeightsError, match=r"Is the file for another model"):
        camjax.load_model("resnet18", fine_tuned)


def test_all_that_does_not_fit_is_in_one_error(tensors, tmp_path):
    wrong = dict(tensors)
    del wrong["_blocks.0._bn1.running_mean"], wrong["_conv_head.weight"]
    wrong |= {
        "extra.weight": np.zeros(3, np.float32),
        "_blocks.99._bn1.weight": np.zeros(3, np.float32),
        "_bn0.weight": np.zeros(31, np.float32),
        "_bn0.bias": np.zeros(32, np.int8),
        "_conv_stem.weight": np.zeros((32, 27), np.float32),
    }
    path = save(tmp_path / "wrong.safetensors", wrong)
    with pytest.raises(WeightsError) as caught:
        camjax.load_model("efficientnet_lite0", path)
    assert str(caught.value).split("\n") == [
        f"{path} does not fit the model.",
        "Places of the model that no entry fills (2):",
        "  blocks.0.depthwise.bn.mean",
        "  top.conv.kernel",
        "Entries that the model has no place for (2):",
        "  _blocks.99._bn1.weight",
        "  extra.weight",
        "Shapes or types that differ (axes in the model's order) (3):",
        "  _bn0.bias: int8 in the file, floating-point numbers in the model at stem.bn.bias",
        "  _bn0.weight: (31,) in the file, (32,) in the model at stem.bn.scale",
        "  _conv_stem.weight: (32, 27) in the file, (3, 3, 3, 32) in the model at stem.conv.kernel",
        "Is the file for another model or variant?",
    ]


def test_names_in_a_file_reach_the_terminal_without_control_codes(tensors, tmp_path):
    path = save(tmp_path / "wrong.safetensors", {**tensors, "a\x1b]0;owned\x07": np.zeros(1)})
    with pytest.raises(WeightsError, match=r"\n  a ]0;owned \n"):
        camjax.load_model("efficientnet_lite0", path)


def test_an_error_shows_the_first_few_of_many_names(tensors, tmp_path):
    path = save(tmp_path / "wrong.safetensors", {f"x{name}": tensor for name, tensor in tensors.items()})
    with pytest.raises(WeightsError) as caught:
        camjax.load_model("efficientnet_lite0", path)
    lines = str(caught.value).split("\n")
    assert len(lines) == 16 and lines[1] == "Places of the model that no entry fills (247):"
    assert lines[7] == "  and 242 more" and lines[8] == "Entries that the model has no place for (296):"


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_numbers_that_are_not_finite_are_an_error(tensors, tmp_path, suffix):
    spoiled = {
        "_bn1.weight": (np.nan, np.float32, "1 of 1,280 numbers are NaN or infinite"),
        "_bn1.bias": (-np.inf, np.float16, "1 of 1,280 numbers are NaN or infinite"),
        "_fc.bias": (1e39, np.float64, "1 of 1,000 numbers are too large for float32"),
    }
    if suffix == ".safetensors":  # NumPy does not save it
        spoiled["_bn0.bias"] = (np.nan, ml_dtypes.bfloat16, "1 of 32 numbers are NaN or infinite")
    changed = dict(tensors)
    for name, (value, dtype, _) in spoiled.items():
        changed[name] = tensors[name].astype(dtype)
        changed[name][7] = value
    path = tmp_path / f"spoiled{suffix}"
    save(path, changed) if suffix == ".safetensors" else np.savez(path, **changed)
    with pytest.raises(WeightsError) as caught:
        camjax.load_model("efficientnet_lite0", path)
    lines = str(caught.value).split("\n")
    assert lines[1].startswith("Entries that are no weights: training diverged, or the file is damaged (")
    assert sorted(lines[2:]) == sorted(f"  {name}: {words}" for name, (_, _, words) in spoiled.items())


def test_a_variance_below_zero_is_an_error(tensors, tmp_path):
    path = save(tmp_path / "spoiled.safetensors", {**tensors, "_bn1.running_var": -tensors["_bn1.running_var"]})
    with pytest.raises(WeightsError, match=r"_bn1\.running_var: variances below 0"):
        camjax.load_model("efficientnet_lite0", path)


def test_nan_in_a_checkpoint_of_a_run_or_in_its_mean_image(run, tmp_path, monkeypatch):
    directory, trained = run
    spoiled = nnx.clone(trained)
    spoiled.head.kernel[0, 0] = np.nan
    monkeypatch.setattr("camjax.loading.load_run", lambda *arguments, **options: spoiled)
    with pytest.raises(WeightsError, match=r"three: the newest checkpoint.* in head\.kernel, 1 of 384 numbers are NaN"):
        camjax.load_model(directory)
    with pytest.raises(WeightsError, match=r"three does not fit(?s:.*)head\.kernel: 1 of 384 numbers are NaN"):
        camjax.load_model("small_gap", directory)
    spoiled = nnx.clone(trained)
    spoiled.set_input_rule(mean=(1, 2, 3), mean_image=np.full((4, 4, 3), np.nan))
    with pytest.raises(WeightsError, match="three: the mean image is damaged: 48 of 48 numbers are NaN"):
        camjax.load_model("small_gap", directory)
    with pytest.raises(ValueError, match="expected three numbers"):
        spoiled.set_input_rule(mean=(np.nan, 0, 0))


@pytest.fixture(scope="module")
def small():
    """A network, its numbers by their places, and a table of these names."""
    model = camjax.create_model("small_gap", 2)
    return model, _parameters(model), NameTable(camjax_file.TABLE)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "module.module.",
        "model.",
        "state_dict.model.",
        "ema.module.",
        "model_ema.",
        "backbone.",
        "student.backbone.",
    ],
)
def test_what_wrappers_put_before_names_is_taken_off(small, prefix):
    model, numbers, table = small
    wrapped = {f"{prefix}{name}": array for name, array in numbers.items()}
    others = {"n_averaged": np.array(3), "criterion.weight": np.ones(3), f"{prefix}loss.weight": np.ones(1)}
    found, said = table.unwrap(model, wrapped)
    assert_same(dict(found), numbers)
    assert said == f"the names of {len(numbers)} tensors were read without {prefix!r}"
    found, said = table.unwrap(model, wrapped | others)
    assert_same(dict(found), {**numbers, "loss.weight": np.ones(1)})  # which is then an entry without a place
    assert said.endswith("; 2 entries were left out: n_averaged, criterion.weight")
    assert table.unwrap(model, numbers | others) == (numbers | others, None)


@pytest.mark.parametrize(
    ("trained", "averaged"),
    [
        ("state_dict.", "state_dict_ema."),
        ("model.", "model_ema."),
        ("model.", "ema_model.module."),
        ("student.backbone.", "teacher.backbone."),
        ("", "ema."),
        ("module.", "module.ema."),
    ],
)
def test_trained_weights_are_taken_before_their_average(small, trained, averaged):
    model, numbers, table = small
    for first, second in ((trained, averaged), (averaged, trained)):
        both = {
            f"{prefix}{name}": array + (prefix == averaged)
            for prefix in (first, second)
            for name, array in numbers.items()
        }
        found, said = table.unwrap(model, both)
        assert_same(dict(found), numbers)
        assert f"the weights under {averaged!r} fit as well and were not taken; {len(numbers)} entries" in said


def test_two_sets_of_weights_that_nothing_tells_apart(small, tmp_path):
    model, numbers, table = small
    both = {f"{prefix}{name}": array for prefix in ("a.", "b.") for name, array in numbers.items()}
    with pytest.raises(WeightsError, match=r"2 sets of weights that fit, under 'a\.', 'b\.'\. Save one of them alone"):
        table.unwrap(model, both)


def test_a_wrapped_file_is_loaded_and_says_so(tensors, lite0, tmp_path):
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    six = {"_fc.weight": tensors["_fc.weight"][:6], "_fc.bias": tensors["_fc.bias"][:6]}
    np.savez(tmp_path / "net.npz", **wrapped)
    for path in (tmp_path / "net.npz", save(tmp_path / "net.safetensors", wrapped)):
        with pytest.warns(UserWarning, match=r"296 tensors were read without 'module\._orig_mod\.'\.$") as caught:
            model = camjax.load_model("efficientnet_lite0", path)
        assert len(caught) == 1 and caught[0].filename == __file__
        assert_same(arrays(model), arrays(lite0))
    path = save(tmp_path / "six.safetensors", wrapped | {f"module._orig_mod.{name}": six[name] for name in six})
    with pytest.warns(UserWarning, match="read without"):
        assert camjax.load_model("efficientnet_lite0", path, num_classes=6).head.num_classes == 6


@pytest.mark.parity
def test_what_torch_and_training_scripts_save(tmp_path):
    torch = pytest.importorskip("torch")
    network = import_torchvision().models.resnet18(num_classes=6)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    averaged.update_parameters(network)
    states = {
        "plain": network.state_dict(),
        "compiled": torch.compile(network).state_dict(),
        "parallel and compiled": torch.nn.DataParallel(torch.compile(network)).state_dict(),
        "averaged": averaged.state_dict(),
        "checkpoint": {
            "epoch": 3,
            "state_dict": network.state_dict(),
            "state_dict_ema": {name: value + 1 for name, value in network.state_dict().items()},
            "optimizer": torch.optim.SGD(network.parameters(), 0.1, momentum=0.9).state_dict(),
        },
        "lightning": {
            "state_dict": {f"model.{name}": value for name, value in network.state_dict().items()},
            "loops": {"fit_loop": {"state_dict": {}}},
            "hyper_parameters": {"lr": 0.1},
            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
        },
    }
    found = {}
    for name, state in states.items():
        torch.save(state, tmp_path / f"{name}.pth")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found[name] = arrays(camjax.load_model("resnet18", tmp_path / f"{name}.pth", num_classes=6))
        assert len(said) == (name != "plain")
        assert_same(found[name], found["plain"])
    np.testing.assert_array_equal(found["plain"]["head.bias"], network.fc.bias.detach().numpy())


def test_two_entries_for_one_place_are_an_error():
    model = camjax.create_model("small_gap", 2)
    table = NameTable([Rule("a|b", "head.bias")])
    entries = {"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)}
    with pytest.raises(WeightsError, match=r"another one fills \(1\):\n  b: for head\.bias"):
        table.place(model, entries, source="here")
    np.testing.assert_array_equal(model.head.bias[...], [0, 0])


def test_the_first_rule_that_matches_the_whole_name_counts():
    rules = (Rule("skip.*", None), *batchnorm(r"bn(\d)", r"layers.\1.bn"), Rule("fc", "head.kernel", DENSE))
    table, with_bias = NameTable(rules), NameTable([*rules, Rule("b", "head.bias")])
    assert table.count_classes({"fc": np.zeros((4, 9))}) == 4
    assert table.count_classes({"fc.weight": np.zeros((4, 9)), "skip.fc": np.zeros(3)}) is None
    assert with_bias.count_classes({"fc": np.zeros((4, 9)), "b": np.zeros(5)}) == 5
    # A 1x1 convolution is the dense layer that it is; of any other rank nothing is guessed.
    assert table.count_classes({"fc": np.zeros((4, 9, 1, 1))}) == 4
    assert with_bias.count_classes({"fc": np.zeros((4, 9, 3, 3)), "b": np.zeros(5)}) == 5
    # Another layer than the head may have one unit a class.
    kernel = {"x": np.zeros((1, 1, 8, 6))}
    assert NameTable([Rule("x", "last.kernel")], class_layer="last").count_classes(kernel) == 6
    assert NameTable([Rule("x", "last.kernel")]).count_classes(kernel) is None


def test_a_dense_layer_written_as_a_convolution():
    model = camjax.create_model("small_gap", 2)
    weight = np.random.default_rng(0).normal(size=(2, 128, 1, 1)).astype(np.float32)
    entries = {"w": weight, "b": np.zeros(2, np.float32)}
    rest = {f"keep.{name}": value for name, value in _parameters(model).items() if not name.startswith("head.")}
    table = NameTable([Rule("w", "head.kernel", DENSE), Rule("b", "head.bias"), Rule(r"keep\.(.*)", r"\1")])
    table.place(model, {**entries, **rest}, source="here")
    np.testing.assert_array_equal(model.head.kernel[...], weight[:, :, 0, 0].T)


class MapsOfClasses(CamModel):
    """Its last convolution has one channel a class, as those of NIN and SqueezeNet."""

    def __init__(self, num_classes=4, *, rngs):
        super().__init__(input_size=(8, 8), stride=2, mean=(0,) * 3, std=(1,) * 3)
        self.layer = ConvBN(3, 6, 3, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Conv(6, num_classes, (1, 1), rngs=rngs)
        self.head = MapHead(num_classes)

    def backbone(self, x):
        return self.last(self.dropout(self.layer(x)))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("maps_of_classes", "last"),
        pytest.param("nin", "cccp8", marks=pytest.mark.long),
        pytest.param("squeezenet1_1", "classifier", marks=pytest.mark.long),
    ],
)
def test_a_new_last_convolution(monkeypatch, name, layer):
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    camjax.register_model("maps_of_classes", MapsOfClasses)
    model = random_network(name, 4)
    model.set_input_rule(mean=(1, 2, 3), channel_order="bgr", mean_image=np.ones((8, 8, 3), np.float32))
    for classes in (4, 6):
        new = camjax.with_new_head(model, classes, rngs=nnx.Rngs(2))
        before, after = _parameters(model), _parameters(new)
        changed = {key for key in before if before[key].shape != after[key].shape or (before[key] != after[key]).any()}
        assert f"{layer}.kernel" in changed and all(key.startswith(layer) for key in changed)
        assert (new.created_as["num_classes"], new.head.num_classes, new.channel_order) == (classes, classes, "bgr")
        np.testing.assert_array_equal(new.mean_image[...], np.ones((8, 8, 3)))
        assert not [m for _, m in nnx.iter_modules(new) if getattr(m, "deterministic", True) is False]


def _parameters(model) -> dict[str, np.ndarray]:
    return {
        ".".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.iter_graph(model)
        if isinstance(variable, nnx.Param | nnx.BatchStat)
    }


def test_a_file_without_a_head_is_an_error(tensors, tmp_path):
    path = save(tmp_path / "headless.safetensors", {k: v for k, v in tensors.items() if not k.startswith("_fc")})
    with pytest.raises(WeightsError, match=r"no entry fills \(2\):\n  head.bias\n  head.kernel"):
        camjax.load_model("efficientnet_lite0", path, num_classes=7)


def test_without_weights_the_error_lists_where_they_come_from():
    with pytest.raises(ValueError, match="weights=FILE") as caught:
        camjax.load_model("resnet50")
    for source in ("torchvision's", "hf://", "camjax convert", "efficientnet_lite0,", "path/to/run", "create_model("):
        assert source in str(caught.value)
    with pytest.raises(ValueError, match=r"no trained weights.*create_model\('small_gap'\)"):
        camjax.load_model("small_gap")


def test_a_short_name_is_an_address(tmp_path, monkeypatch):
    asked = []

    def fetch(address):
        asked.append(address)
        raise FetchError(f"{address}: gone")

    monkeypatch.setattr("camjax.weights.fetch.fetch", fetch)
    with pytest.raises(FetchError):
        camjax.load_model("resnet50", weights="torchvision")
    with pytest.raises(FetchError):
        camjax.load_model("googlenet_gap", weights="cam-release-places205")
    start = "http://cnnlocalization.csail.mit.edu/demoCAM/models/places_google"
    assert asked == [
        "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        f"{start}netCAM_train_iter_120000.caffemodel",
        f"{start}letCAM_train_iter_120000.caffemodel",
    ]
    with pytest.raises(ValueError, match=r"vgg16 is the network that this one was made from.*backbone_only"):
        camjax.load_model("vgg16_gap", weights="torchvision")
    with pytest.raises(FileNotFoundError, match=r"cam-relase not found.*: cam-release, torchvision\."):
        camjax.load_model("vgg16_gap", weights="cam-relase")
    assert len(asked) == 3


def test_a_missing_weights_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pth not found"):
        camjax.load_model("resnet50", tmp_path / "gone.pth")


@pytest.mark.parametrize("address", ["hf://timm/resnet50.a1_in1k", "https://host/resnet50.pth"])
def test_an_address_in_the_place_of_a_name_or_as_a_path(address):
    with pytest.raises(ValueError, match=r"this is an address.*load_model\(NAME, weights='"):
        camjax.load_model(address)
    with pytest.raises(ValueError, match="a Path drops a slash of an address"):
        camjax.load_model("resnet50", Path(address))


def test_names_that_nobody_publishes(fine_tuned):
    with pytest.raises(ValueError, match="no names of weights other than Caffe's and camjax's own are known"):
        camjax.load_model("small_gap", fine_tuned)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a run of three classes, and its model."""
    directory = tmp_path_factory.mktemp("runs") / "three"
    model = camjax.create_model("small_gap", 3, pool="gmp", rngs=nnx.Rngs(7))
    model.class_names = ("a", "b", "c")
    recipe = Recipe(steps=1, batch_size=8, learning_rate=0.1)
    directory.mkdir(parents=True, exist_ok=True)
    start_run(directory, describe_run(model, recipe))
    state = TrainState(model, nnx.Optimizer(model, recipe.optimizer(), wrt=nnx.Param))
    with Checkpoints(checkpoints_of(directory)) as checkpoints:
        checkpoints.save(state)
    return directory, model


def test_a_run_as_weights(run):
    directory, trained = run
    model = camjax.load_model("small_gap", directory, num_classes=3)
    assert_same(arrays(model), arrays(trained))
    assert (model.class_names, model.head.pool) == (("a", "b", "c"), "gmp")
    with pytest.warns(UserWarning, match="for 3 classes.*backbone is kept"):
        model = camjax.load_model("small_gap", str(directory), num_classes=5, pool="gap")
    assert_same(backbone(model), backbone(trained))
    assert (model.class_names, model.head.pool, model.head.num_classes) == (None, "gap", 5)


def test_a_run_of_another_network_or_number_of_classes(run):
    directory, trained = run
    assert_same(arrays(camjax.load_model("small_gap", directory)), arrays(trained))
    with pytest.raises(WeightsError, match=r"three does not fit the model"):
        camjax.load_model("resnet18", directory, num_classes=3)


@pytest.mark.parametrize("name", ["runs/gone", "./gone", "gone.v2", "resnet50.pth"])
def test_a_missing_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"(?s)not found\..*weights=FILE"):
        camjax.load_model(name)
    with pytest.raises(FileNotFoundError, match="Run directory resnet50 not found"):
        camjax.load_model(tmp_path.relative_to(tmp_path) / "resnet50")


def test_a_file_in_the_place_of_a_name(fine_tuned):
    with pytest.raises(ValueError, match=r"this is a file.*load_model\(NAME, weights="):
        camjax.load_model(fine_tuned)


def test_a_directory_whose_name_has_no_separator(tmp_path, monkeypatch):
    (tmp_path / "cub").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no model named 'cub'.*load_model\('\./cub'\)"):
        camjax.load_model("cub")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "resnet50.pth"}, r"\(.*weights=\.\.\.\): a run has its own weights\. Leave it out"),
        ({"pool": "gap"}, r"pool=\.\.\.\): a run has its own pool"),
        ({"weights": "a.pth", "pool": "gmp"}, "its own weights and pool. Leave them out"),
    ],
)
def test_what_a_run_has_of_its_own(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        camjax.load_model(tmp_path, **options)


def test_a_backbone_alone_has_a_new_head_and_says_so(tmp_path):
    trained, path = random_network("small_gap", 7), tmp_path / "small.safetensors"
    camjax_file.write_camjax_file(trained, path, version="0")
    with pytest.warns(UserWarning, match=r"head of the model are new.*Left out of .*: head\.bias, head\.kernel\."):
        model = camjax.load_model("small_gap", path, num_classes=7, backbone_only=True, rngs=nnx.Rngs(3))
    assert_same(backbone(model), backbone(trained))
    other = camjax.create_model("small_gap", 7, rngs=nnx.Rngs(3))
    np.testing.assert_array_equal(model.head.kernel[...], other.head.kernel[...])


def test_the_backbone_of_the_original_network_takes_its_normalization_along(tmp_path, monkeypatch):
    """torchvision's VGG-16 has no CAM convolution, and fully connected layers that VGGnet-GAP has not."""
    monkeypatch.setattr(vgg, "STAGES", ((3, 2), (3, 2), (3, 3), (3, 3), (512, 3)))  # narrow, but for its end
    shapes = model_shapes("vgg16_gap", 5)
    numbers = dict.fromkeys(("0", "2", "5", "7", "10", "12", "14", "17", "19", "21"), (3, 3))
    numbers |= {"24": (512, 3), "26": (512, 512), "28": (512, 512)}
    tensors = {f"features.{n}.weight": np.full((*k, 3, 3), int(n), np.float32) for n, k in numbers.items()}
    tensors |= {f"features.{n}.bias": np.full(k[:1], int(n), np.float32) for n, k in numbers.items()}
    path = save(tmp_path / "vgg16.safetensors", {**tensors, "classifier.6.weight": np.ones((1000, 8), np.float32)})
    assert shapes.channel_order == "bgr"
    with pytest.warns(UserWarning, match=r"cam_conv, head of the model are new.*: classifier\.6\.weight\."):
        model = camjax.load_model("vgg16_gap", path, num_classes=5, backbone_only=True)
    assert (model.conv1_1.bias[...] == 0).all() and (model.conv5_3.kernel[...] == 28).all()
    assert (model.channel_order, model.head.num_classes) == ("rgb", 5)
    assert model.mean == pytest.approx((123.675, 116.28, 103.53))
    del tensors["features.28.bias"]
    with pytest.raises(WeightsError, match=r"(?s)no entry fills \(1\):\s+conv5_3\.bias\n"):
        camjax.load_model("vgg16_gap", save(path, tensors), num_classes=5, backbone_only=True)


def test_new_head(lite0):
    before, names = arrays(lite0), lite0.class_names
    model = camjax.with_new_head(lite0, num_classes=1000, rngs=nnx.Rngs(5))
    assert type(model) is type(lite0)
    assert_same(backbone(model), backbone(lite0))
    assert not np.array_equal(model.head.kernel[...], lite0.head.kernel[...])
    assert np.var(model.head.kernel[...]) == pytest.approx(1 / (3 * 1280), rel=0.01)  # torch.nn.Linear's
    assert model.class_names is None
    assert (model.head.pool, model.head.dropout.rate) == ("gap", 0.2)
    other = camjax.with_new_head(lite0, 3, rngs=nnx.Rngs(6))
    assert other.created_as == {"name": "efficientnet_lite0", "num_classes": 3, "pool": "gap"}
    assert lite0.created_as["num_classes"] == 1000

    # The copy goes its own way: its buffers may be given away, and its numbers changed.
    jax.tree.map(lambda array: array.delete(), nnx.state(model))
    other.stem.conv.kernel[...] += 1
    assert_same(arrays(lite0), before)
    assert lite0.class_names == names


@pytest.mark.parametrize("training", [True, False])
def test_a_new_head_is_in_the_mode_of_the_model(training):
    model = random_network("efficientnet_lite0", 3, pool="gmp")
    model.train() if training else model.eval()
    new = camjax.with_new_head(model, 5)
    assert new.head.dropout.deterministic is not training
    assert new.stem.bn.use_running_average is not training
    assert new.head.pool == "gmp"


def test_a_model_without_dropout_gets_none():
    assert camjax.with_new_head(camjax.create_model("small_gap"), 5).head.dropout is None


def test_no_new_head_where_it_cannot_be():
    class Plain(nnx.Module):
        pass

    with pytest.raises(ValueError, match="Plain has a head of type NoneType: expected a PooledHead"):
        camjax.with_new_head(Plain(), 5)
    with pytest.raises(ValueError, match="at least one class"):
        camjax.with_new_head(camjax.create_model("small_gap"), 0)
