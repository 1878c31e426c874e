"""A user's network by name: in this process, in one that imports its module, and from a run's directory."""

import json
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import skimage
from flax import nnx

import camjax
from camjax.cli.main import main
from camjax.models import CamModel, ConvBN, PooledHead, model_spec, registry
from camjax.models.shapes import model_shapes
from camjax.training import Recipe, fit

MODULE = """
import camjax
from camjax.models import CamModel, ConvBN, PooledHead


class Tiny(CamModel):
    def __init__(self, num_classes=3, *, rngs):
        super().__init__(input_size=(16, 16), stride=4, mean=(127.5,) * 3, std=(127.5,) * 3)
        self.layer = ConvBN(3, 4, 3, 4, rngs=rngs)
        self.head = PooledHead(4, num_classes, rngs=rngs)

    def backbone(self, x):
        return self.layer(x)


camjax.register_model("tiny", Tiny)
"""


class Own(CamModel):
    def __init__(self, num_classes=3, *, pool="gap", dtype=jnp.float32, rngs, channels=4):
        super().__init__(input_size=(16, 16), stride=4, mean=(127.5,) * 3, std=(127.5,) * 3, dtype=dtype)
        self.layer = ConvBN(3, 4, 3, 4, dtype=dtype, rngs=rngs)
        self.head = PooledHead(channels, num_classes, pool=pool, rngs=rngs)

    def backbone(self, x):
        return self.layer(x)


@pytest.fixture(autouse=True)
def names_of_one_test(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The directory of a user's module; the module is not imported yet."""
    (tmp_path / "my_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_nets", None)


def test_a_registered_name_works_as_a_built_in_one():
    camjax.register_model("own", Own, new_layers=("layer", "head"))
    assert "own" in camjax.list_models() and model_spec("own").new_layers == ("layer", "head")
    model = camjax.create_model("own", 5, pool="gmp", dtype=jnp.bfloat16, rngs=nnx.Rngs(1))
    assert (model.head.num_classes, model.head.pool, model.dtype) == (5, "gmp", jnp.bfloat16)
    assert camjax.create_model("own").head.num_classes == 3
    assert model_shapes("own").head.kernel.shape == (4, 3)
    camjax.register_model("own", Own)  # a cell that runs again
    camjax.register_model("of_seven", lambda num_classes, rngs: Own(num_classes, rngs=rngs), num_classes=7)
    assert camjax.create_model("of_seven").head.num_classes == 7
    with pytest.raises(ValueError, match="constructor of 'of_seven' takes no pool"):
        camjax.create_model("of_seven", pool="gmp")
    with pytest.raises(ValueError, match=r"There is no model named 'owm'. Did you mean own"):
        camjax.create_model("owm")
    with pytest.raises(ValueError, match=r"load_model\(.*own'\): no trained weights"):
        camjax.load_model("own")


@pytest.mark.parametrize(
    ("name", "constructor", "options", "message"),
    [
        ("small_gap", Own, {}, "'small_gap'.*: the name is taken by camjax. Choose another"),
        ("taken", Own, {}, "the name is taken by the module"),
        ("runs/own", Own, {}, "names with '/', '.' or ':'"),
        ("a.b", Own, {}, "names with '/', '.' or ':'"),
        (None, Own, {}, "name=None: expected letters"),
        ("own", "Own", {}, "expected a function, or a class"),
        ("own", lambda rngs: None, {}, "has no argument num_classes: expected constructor"),
        ("own", lambda: None, {}, "has no argument num_classes and no rngs"),
        ("own", lambda num_classes, rngs: None, {}, "no default of num_classes: give num_classes="),
    ],
)
def test_what_cannot_be_registered(name, constructor, options, message):
    camjax.register_model("taken", lambda num_classes, rngs: Own(num_classes, rngs=rngs), num_classes=2)
    with pytest.raises(ValueError, match=message):
        camjax.register_model(name, constructor, **options)


class Bare(nnx.Module):
    def __init__(self, num_classes, rngs):
        self.layer = nnx.Conv(3, 4, (3, 3), rngs=rngs)

    def features(self, images):
        return self.layer(images)


class NoBackbone(CamModel):
    def __init__(self, num_classes, rngs):
        super().__init__(input_size=(16, 16), stride=4, mean=(0,) * 3, std=(1,) * 3)
        self.head = PooledHead(4, num_classes, rngs=rngs)


class Sized(Own):
    def __init__(self, num_classes, rngs):
        super().__init__(num_classes, rngs=rngs)
        self.head.kernel[...] = jnp.zeros((5, num_classes))


class Tokens(Own):
    def backbone(self, x):
        return super().backbone(x).reshape(len(x), -1, 4)


class Unpooled(Own):
    def __call__(self, images):
        return self.features(images)


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (lambda num_classes, rngs: len, "makes builtin_function_or_method: expected a model derived from"),
        (Bare, r"Bare without input_size, head, dtype, .*: expected a model derived from camjax.models.CamModel"),
        (NoBackbone, "NoBackbone without backbone"),
        (lambda num_classes, rngs: Own(9, rngs=rngs), "with num_classes=3 has a head of 9 classes"),
        (lambda num_classes, rngs: Own(num_classes, rngs=rngs, channels=6), "features of 4 channels .*kernel .*6, 3"),
        (Tokens, r"has features of shape \(1, 16, 4\): expected \(1, h, w, K\)"),
        (Unpooled, r"`head\(features\)` of shape \(1, 3\) and `model\(images\)` of shape \(1, 4, 4, 4\)"),
    ],
)
def test_a_model_that_does_not_keep_the_contract_says_what_is_missing(constructor, message):
    camjax.register_model("own", constructor, num_classes=3)
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            camjax.create_model("own")


def test_a_module_that_is_missing_or_registers_nothing(module, capsys):
    (module / "broken_nets.py").write_text("import no_such_package\n")
    (module / "empty_nets.py").write_text("")
    photo = f"{skimage.data_dir}/chelsea.png"
    for name, message in (
        ("my_net:tiny", "my_net:tiny: module my_net not found. It has to be in Python's path"),
        ("my_nets.inner:tiny", "module my_nets.inner not found"),
        ("my_nets:tiny2", "importing my_nets registers no model named 'tiny2'. Registered: "),
        ("empty_nets:resnet50", "importing empty_nets registers no model named 'resnet50'"),
        ("broken_nets:tiny", "No module named 'no_such_package'"),
        ("my_nets:tiny", "load_model('my_nets:tiny'): no trained weights of this model are published"),
        ("tiny3", "There is no model named 'tiny3'"),
    ):
        path = list(sys.path)
        assert main(["explain", photo, "--model", name]) == 1
        assert message in capsys.readouterr().err
        assert sys.path == path


def test_train_explain_evaluate_by_a_run_and_by_weights(module, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.syspath_prepend(module)
        model = camjax.create_model("my_nets:tiny", 2)
    assert model.created_as == {"name": "my_nets:tiny", "num_classes": 2, "pool": "gap"}
    model.class_names = ("cat", "cup")
    images = [{"image": np.full((16, 16, 3), 99 * (i % 2), np.uint8), "label": i % 2} for i in range(8)]
    model = fit(model, images, Recipe(steps=2, batch_size=4, learning_rate=0.1), run_dir="run", progress=False)
    assert json.loads((module / "run" / "run.json").read_text())["model"]["name"] == "my_nets:tiny"

    def in_a_new_process(*command):
        """As there: nothing is registered, and the module is not imported."""
        del registry._SPECS["tiny"], sys.modules["my_nets"]
        assert main(list(map(str, command))) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    photo = f"{skimage.data_dir}/chelsea.png"
    by_run = in_a_new_process("explain", photo, "--model", "run/", "--trust", "--out", "a.png")
    assert "cat" in by_run and (module / "a.png").is_file()
    in_a_new_process("convert", "run", "tiny.safetensors", "--model", "my_nets:tiny", "--num-classes", 2)
    folder = module / "photos" / "val" / "cat"
    folder.mkdir(parents=True)
    shutil.copy(photo, folder / "0.png")
    (module / "boxes.csv").write_text("filename,xmin,ymin,xmax,ymax\ncat/0.png,60,30,440,280\n")
    data = ("--dataset", "./photos", "--split", "val", "--boxes", "boxes.csv")
    assert "1 images: 1 scored" in in_a_new_process("evaluate", *data, "--model", "run/", "--trust")
    loaded = camjax.load_model("./run")
    np.testing.assert_array_equal(loaded.head.kernel[...], model.head.kernel[...])
    loaded = camjax.load_model("my_nets:tiny", weights="tiny.safetensors", num_classes=2)
    np.testing.assert_array_equal(loaded.layer.conv.kernel[...], model.layer.conv.kernel[...])


def test_a_script_registers_for_itself():
    names = {"__name__": "__main__"}
    exec(MODULE, names)
    assert camjax.create_model("tiny").created_as["name"] == "tiny"
