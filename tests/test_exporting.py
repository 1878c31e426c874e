"""Networks as one file: what they say, by whom they are read, and what is no such file."""

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import random_network
from jax import export
from PIL import Image
from skimage import data

import camjax
from camjax.annotating import Options, annotate_folder
from camjax.attribution import METHODS
from camjax.cli import compilation_cache
from camjax.cli.main import main
from camjax.cli.photographs import photo_explainer
from camjax.data.annotated import open_annotated
from camjax.data.images import load_image
from camjax.data.pixel_boxes import whole_pixels
from camjax.evaluation import evaluate_localization
from camjax.exporting.file import read_exported_file
from camjax.exporting.plain import plain
from camjax.inference import localization_program
from camjax.programs import STABLEHLO
from camjax.weights.camjax_file import write_camjax_file
from camjax.weights.fingerprint import weights_sha256
from tests.experiments.colors import TINY
from tests.tiny_vit import tiny_vit

ROOT = Path(__file__).parents[1]
COMPILED = [name for name, row in METHODS.items() if not (row.is_loop or row.host_boxes)]
ON_THE_HOST = [name for name in METHODS if name not in COMPILED]


@pytest.fixture(scope="module")
def network():
    model = random_network(TINY)
    model.class_names = [f"class {i}" for i in range(10)]
    return model


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    """Of images of any size."""
    path = tmp_path_factory.mktemp("exported") / "tiny.camjax"
    camjax.export_model(network, path, top_k=2, threshold=0.4, any_size=True)
    return path


def images(batch, size=(32, 32)):
    return np.random.default_rng(batch).integers(0, 256, (batch, *size, 3), np.uint8)


def assert_same(found, expected):
    assert type(found) is camjax.Localization
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.valid, expected.valid)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize(
    "batch, size",
    [
        (3, (32, 32)),
        (2, (40, 51)),
        *(pytest.param(batch, size, marks=pytest.mark.long) for batch in (1, 3, 8) for size in ((32, 32), (41, 64))),
    ],
)
def test_a_file_says_what_the_function_says(file, network, batch, size):
    localize = camjax.load_exported(file)
    batch = images(batch, size)
    expected = camjax.make_localize_fn(network, top_k=2, threshold=0.4)
    assert_same(localize(batch), expected(batch))
    if size == (32, 32):
        ids = np.arange(3 * len(batch)).reshape(len(batch), 3) % 10
        assert_same(localize(jax.device_put(batch), ids), expected(batch, ids))
        lower = camjax.make_localize_fn(network, top_k=2, threshold=0.1)
        assert_same(localize(batch, threshold=0.1), lower(batch))


def test_what_a_file_says_of_itself(file, network):
    localize = camjax.load_exported(file)
    assert localize.class_names == network.class_names and localize.num_classes == 10
    assert (localize.input_size, localize.any_size, localize.method, localize.top_k) == ((32, 32), True, "cam", 2)
    assert localize.about["weights_sha256"] == weights_sha256(network)
    assert localize.about["input"]["mean"] == network.mean and localize.about["model"] == TINY
    # NumPy alone reads the weights; random keys are none of them.
    with np.load(file) as arrays:
        np.testing.assert_array_equal(arrays["arrays/head.kernel"], network.head.kernel[...])
    code = zipfile.ZipFile(file).read("programs/top.mlirbc")
    assert str(ROOT).encode() not in code and f"StableHLO_v{STABLEHLO}".encode() in code


def in_an_environment_of_jax_alone(program: str, folder: Path, *arguments: Path) -> None:
    """Runs a program with what pip installs with JAX, and no other package."""
    packages = folder / "packages"
    packages.mkdir()
    names = re.compile(r"(jax|jaxlib|numpy|scipy|ml_dtypes|opt_einsum)(\.libs|-.*)?")
    for path in Path(np.__file__).parents[1].iterdir():
        if names.fullmatch(path.name):
            (packages / path.name).symlink_to(path)
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    subprocess.run([sys.executable, "-S", "-c", program, *arguments], check=True, cwd=folder, env=environment)


def lines_of_the_page(package: str) -> str:
    """The documented lines that import a package."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/exporting.md").read_text(), re.MULTILINE | re.DOTALL)
    (lines,) = (block for block in blocks if re.search(rf"^import .*\b{package}\b", block))
    return lines


def test_jax_alone_runs_a_file(file, network, tmp_path):
    lines = lines_of_the_page("jax").replace("lite0.camjax", str(file))
    lines = re.sub(r"^images = .*", "images = np.load(sys.argv[1])", lines, flags=re.MULTILINE)
    np.save(tmp_path / "images.npy", images(3))
    program = f"import sys\n{lines}\nnp.savez(sys.argv[2], **found)\nassert 'flatbuffers' not in sys.modules"
    in_an_environment_of_jax_alone(program, tmp_path, tmp_path / "images.npy", tmp_path / "found.npz")
    with np.load(tmp_path / "found.npz") as found:
        found = camjax.Localization(**found)
    assert_same(found, camjax.make_localize_fn(network, top_k=2, threshold=0.4)(images(3)))


def test_explain_takes_a_file(file, network, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compilation_cache, "keep_compiled_programs", lambda: None)
    cat = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()).save(cat)
    words = ["explain", str(cat), "--classes", "class 7", "--json"]
    assert main([*words, "--model", str(file)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["threshold"]) == (str(file), 0.4)
    expected = photo_explainer(network, [7], top_k=1, threshold=0.4)(load_image(cat))
    rows = found["images"][0]["classes"]
    assert [row["id"] for row in rows] == expected.all.class_ids.tolist()
    assert [row["box"] for row in rows] == [whole_pixels(box, (300, 451)).tolist() for box in expected.all.boxes]
    np.testing.assert_allclose([row["probability"] for row in rows], expected.all.probabilities, rtol=1e-4)
    for words in (["--method", "gradcam"], ["--layer", "auto"], ["--weights", "w.pth"]):
        assert main(["explain", str(cat), "--model", str(file), *words]) == 1
        assert "is an exported network, by cam" in capsys.readouterr().err
    with pytest.raises(ValueError, match="the network that it was exported from"):
        camjax.load_model(str(file))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A split of pictures of two classes, which have a box each."""
    folder, lines = tmp_path_factory.mktemp("pictures"), ["filename,xmin,ymin,xmax,ymax"]
    for label in (3, 7):
        (folder / f"test/class {label}").mkdir(parents=True)
        for i, picture in enumerate(images(3 + label, (40, 50))[:3]):
            Image.fromarray(picture).save(folder / f"test/class {label}/{i}.png")
            lines.append(f"class {label}/{i}.png,5,{i},40,30")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_evaluate_takes_a_file(file, network, pictures, tmp_path, capsys):
    words = ["--dataset", str(pictures), "--split", "test", "--boxes", str(pictures / "boxes.csv")]
    words = ["evaluate", *words, "--batch-size", "4", "--model", str(file), "--out", str(tmp_path / "out"), "--metrics"]
    metrics = ("ilsvrc", "maxboxacc", "heuristic")
    assert main([*words, *metrics]) == 0, capsys.readouterr().err
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["weights_sha256"] == weights_sha256(network) and results["options"]["threshold"] == 0.4
    source = open_annotated(pictures, "test", boxes=pictures / "boxes.csv")
    expected = evaluate_localization(network, source, metrics=metrics, threshold=0.4, batch_size=4).metrics["cam"]
    assert results["results"] == {"cam": {name: pytest.approx(expected[name].compute()) for name in metrics}}
    capsys.readouterr()
    for more, message in {
        ("ilsvrc", "--method", "cam", "gradcam"): "is an exported network, by cam: leave out --method",
        ("ilsvrc", "--layer", "auto"): "is an exported network, by cam: leave out --method",
        ("ilsvrc", "road"): "metrics road of an exported network: they change images",
    }.items():
        assert main([*words, *more]) == 1
        assert message in capsys.readouterr().err


def test_annotate_takes_a_file(file, network, pictures, tmp_path, capsys):
    words = ["annotate", str(pictures / "test"), "--model", str(file), "--out", str(tmp_path / "found")]
    assert main([*words, "--boxes", "components", "--top-k", "3"]) == 0, capsys.readouterr().err
    options = Options(boxes="components", top_k=3, thresholds=(0.4,))
    expected = annotate_folder(network, pictures / "test", tmp_path / "expected", options)
    assert expected["boxes"] > 0
    found, expected = (json.loads((tmp_path / name / "coco.json").read_text()) for name in ("found", "expected"))
    assert found["categories"] == expected["categories"]
    assert found["annotations"] == [
        {**annotation, "score": pytest.approx(annotation["score"], rel=1e-3)} for annotation in expected["annotations"]
    ]
    assert main([*words, "--method", "gradcam"]) == 1
    assert "is an exported network, by cam" in capsys.readouterr().err


def test_a_file_in_place_of_a_model(file, network):
    localize, batch = camjax.load_exported(file), images(2)
    found, expected = (camjax.make_cam_fn(of, top_k=None)(batch) for of in (localize, network))
    np.testing.assert_array_equal(found.class_ids, expected.class_ids)
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-4 * np.abs(expected.maps).max())
    # The loop over a map's connected components is left out where nobody asks for boxes.
    loops = [
        jax.jit(make(localize)).lower(batch).compile().as_text().count(" while(")
        for make in (camjax.make_cam_fn, camjax.make_localize_fn)
    ]
    assert loops[0] == 0 < loops[1]
    for options, message in {
        ("gradcam",): "gradcam of an exported network, whose maps are by cam",
        ("cam", "layers.1"): "layer of an exported network, whose maps are made as it was exported",
    }.items():
        with pytest.raises(ValueError, match=message):
            camjax.make_cam_fn(localize, options[0], layer=(*options, None)[1])


@pytest.mark.parametrize("elsewhere", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_command_writes_the_same_bytes_again(tmp_path, network, capsys, elsewhere):
    """As from another place of the code, where JAX knows some functions already, and in another process."""
    weights = tmp_path / "tiny.safetensors"
    write_camjax_file(network, weights, version="0")
    words = ["export", TINY, str(tmp_path / "it.camjax"), "--weights", str(weights)]
    words += ["--top-k", "3", "--platforms", "cpu", "cuda"]
    if elsewhere:
        environment = {**os.environ, "PYTHONHASHSEED": "1"}
        subprocess.run([sys.executable, "-m", "camjax.cli.main", *words], check=True, cwd=ROOT, env=environment)
    else:
        camjax.export_model(
            camjax.load_model(TINY, weights), tmp_path / "it.camjax", top_k=3, platforms=["cpu", "cuda"]
        )
    before = members_of(tmp_path / "it.camjax")
    assert main(words) == 0
    assert members_of(tmp_path / "it.camjax") == before
    assert re.search(r"Saved .*it\.camjax: .*, 10 classes, cam, 0\.\d MB", capsys.readouterr().out)
    localize = camjax.load_exported(tmp_path / "it.camjax")
    assert (localize.top_k, localize.about["threshold"], localize.about["platforms"]) == (3, 0.2, ["cpu", "cuda"])
    assert main(["export", TINY, str(tmp_path / "it.pth")]) == 1
    assert "ends in .camjax or .onnx" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gradcam", *(pytest.param(name, marks=pytest.mark.long) for name in COMPILED)])
def test_a_method(name, network, tmp_path):
    network = tiny_vit() if METHODS[name].of_attention else network
    camjax.export_model(network, tmp_path / "it.camjax", name, platforms=["cpu"])
    localize = camjax.load_exported(tmp_path / "it.camjax")
    batch = images(2, localize.input_size)
    assert_same(localize(batch), camjax.make_localize_fn(network, name)(batch))


@pytest.mark.parametrize("name", ["gradcam", *(pytest.param(n, marks=pytest.mark.long) for n in ("rollout", "legrad"))])
def test_a_transformer_of_images_of_any_size(name, tmp_path):
    network = tiny_vit()
    camjax.export_model(network, tmp_path / "it.camjax", name, any_size=True, platforms=["cpu"])
    localize = camjax.load_exported(tmp_path / "it.camjax")
    batch = images(2, (40, 53))
    assert_same(localize(batch), camjax.make_localize_fn(network, name)(batch))


def test_bfloat16(tmp_path):
    model = random_network(TINY, dtype="bfloat16")
    camjax.export_model(model, tmp_path / "it.camjax", platforms=["cpu"])
    assert_same(camjax.load_exported(tmp_path / "it.camjax")(images(2)), camjax.make_localize_fn(model)(images(2)))


@pytest.mark.parametrize(
    "options, message",
    [
        *(({"method": name}, rf"^{re.escape(name)} .* on the host") for name in ON_THE_HOST),
        ({"method": "grandcam"}, "Did you mean 'gradcam'"),
        ({"method": "kpcacam", "any_size": True}, r"kpcacam of Tiny .* any size"),
        ({"platforms": ["cpu", "abacus"]}, "expected some of cpu, cuda"),
        ({"threshold": 1.0}, "threshold"),
        ({"top_k": 11}, r"1\.\.10"),
        ({"image_size": (2, 2)}, "at least 4 pixels"),
        ({"path": "it.pth"}, r"ends in \.camjax or \.onnx"),
        ({"path": "it.onnx", "any_size": True}, "jax2onnx converts networks for images of one size"),
        ({"path": "it.onnx", "platforms": ["cpu"]}, "wherever ONNX Runtime does"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_written(network, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        camjax.export_model(network, **{**options, "path": tmp_path / options.get("path", "it.camjax")})
    assert list(tmp_path.iterdir()) == []


def test_plain_operations_compute_the_same(network):
    """What jax2onnx gets; `test_fresh_environments` converts it."""
    localize = camjax.make_localize_fn(network, "gradcam")
    program, weights = localization_program(network, "gradcam")

    def of_images(images):
        return program(list(weights.values()), np.float32(0.2), images)

    (batch,) = export.symbolic_shape("b")
    function = plain(of_images, jax.ShapeDtypeStruct((batch, 32, 32, 3), np.uint8))
    traced = str(jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, 32, 32, 3), np.uint8)))
    assert not re.search(r"\b(platform_index|jit|bilinear|custom_jvp_call|pad|reduce_window\w*)\[", traced)
    function = plain(of_images, images(2))
    assert_same(camjax.Localization(*jax.jit(function)(images(2))), localize(images(2)))


def test_gradients_of_a_slice_are_plain_sums():
    (batch,) = export.symbolic_shape("b")
    x = np.arange(30, dtype=np.float32).reshape(2, 5, 3)

    def gradient(x):
        return jax.grad(lambda x: (x[:, 1] ** 2).sum() + (x[:, :2] ** 3).sum() + (x[:, -1:] * 5).sum())(x)

    function = plain(gradient, jax.ShapeDtypeStruct((batch, 5, 3), np.float32))
    assert "scatter" not in str(jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, 5, 3), np.float32)))
    traced = export.export(jax.jit(function))(jax.ShapeDtypeStruct((batch, 5, 3), np.float32))
    np.testing.assert_allclose(traced.call(x)[0], gradient(x))


ONNX = """
import json, sys, numpy as np, onnxruntime
assert "jax" not in sys.modules
session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["camjax"])
found = dict(zip(about["outputs"], session.run(None, {"images": np.load(sys.argv[2])}), strict=True))
np.savez(sys.argv[3], **found)
"""


@pytest.mark.long
def test_fresh_environments(tmp_path):
    """Files run where JAX, or ONNX Runtime, is the only package; all three environments are made as documented."""

    def environment(name, *requirements):
        subprocess.run([sys.executable, "-m", "venv", tmp_path / name], check=True)
        for arguments in requirements:
            subprocess.run([tmp_path / name / "bin/python", "-m", "pip", "install", "-q", *arguments], check=True)
        return tmp_path / name / "bin/python"

    def run(python, program, *arguments):
        subprocess.run([python, "-c", program, *map(str, arguments)], check=True, cwd=tmp_path)
        with np.load(tmp_path / "found.npz") as found:
            return camjax.Localization(**found)

    with_jax = environment("jax", [f"jax=={jax.__version__}"])
    with_onnx = environment("onnx", ["onnxruntime"])
    with_all = environment("all", ["-e", f"{ROOT}[onnx]"], ["--no-deps", "jax2onnx==0.17.1"])
    lines = lines_of_the_page("jax").replace("lite0.camjax", "net.camjax")
    lines = re.sub(r"^images = .*", "images = np.load('images.npy')", lines, flags=re.MULTILINE)
    for name, method, sizes in (
        ("small_gap", "gradcam", [(64, 64), (40, 48)]),
        ("efficientnet_lite0", "cam", [(224, 224), (96, 128)]),
        ("vit_tiny_patch16_224", "gradcam", [(224, 224)]),
        ("swin_tiny_patch4_window7_224", "cam", [(224, 224)]),
        ("convnext_tiny", "cam", [(224, 224)]),
    ):
        model = random_network(name)
        localize = camjax.make_localize_fn(model, method, top_k=2)
        camjax.export_model(model, tmp_path / "net.camjax", method, top_k=2, any_size=True)
        write_camjax_file(model, tmp_path / "net.safetensors", version="0")
        for size in sizes:
            words = ["--weights", "net.safetensors", "--method", method, "--top-k", "2", "--image-size", *size]
            command = ["-m", "camjax.cli.main", "export", name, "net.onnx", *map(str, words)]
            subprocess.run([with_all, *command], check=True, cwd=tmp_path)
            for batch in (1, 3, 8):
                np.save(tmp_path / "images.npy", images(batch, size))
                by_jax = run(with_jax, f"{lines}\nnp.savez('found.npz', **found)")
                by_onnx = run(with_onnx, ONNX, "net.onnx", "images.npy", "found.npz")
                expected = localize(images(batch, size))
                assert_same(by_jax, expected)
                assert_same(by_onnx, expected)


@pytest.mark.parametrize(
    "given, message",
    [
        (images(1).astype(np.float32), "uint8"),
        (images(1)[0], r"\(B, H, W, 3\)"),
        (images(1, (3, 32)), "at least 4"),
        (images(0), r"\(B, H, W, 3\)"),
        ("cat.jpg", "str"),
    ],
)
def test_images_of_another_kind(file, given, message):
    with pytest.raises(ValueError, match=message):
        camjax.load_exported(file)(given)


def members_of(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as members:
        return {name: members.read(name) for name in members.namelist()}


def write(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_a_damaged_file_is_an_error(file, tmp_path):
    content, damaged = file.read_bytes(), tmp_path / "damaged.camjax"
    whole = read_exported_file(file)
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        damaged.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"damaged\.camjax"):
            camjax.load_exported(damaged)
    for place in np.random.default_rng(0).integers(0, len(content), 60):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            found = read_exported_file(damaged)
        except ValueError as error:
            assert "damaged.camjax" in str(error)
        else:  # a date of a member, or another part that says nothing of the content
            np.testing.assert_equal(found, whole)


class Harmful:
    """An object whose pickle makes a file."""

    def __reduce__(self):
        return open, ("harm.txt", "w")


def changed(members, change):
    about = json.loads(members["about.json"])
    kernel = "arrays/head.kernel.npy"
    if change == "newer format":
        about = {"format": 2, "novelty": True}
    elif change == "weights":
        members[kernel] = members[kernel][:-1] + bytes([members[kernel][-1] ^ 1])
    elif change in ("pickle", "shape"):
        file = io.BytesIO()
        if change == "pickle":
            np.save(file, np.array([Harmful()], object), allow_pickle=True)
        else:
            np.save(file, np.zeros((1 << 10,), np.float32))
        members[kernel] = file.getvalue()
        about["sha256"][kernel] = hashlib.sha256(members[kernel]).hexdigest()
    elif change == "raw pickle":
        members["about.json"] = pickle.dumps(Harmful())
        return members
    elif change == "name":
        members["../../harm.txt"] = b"harm"
    elif change == "missing":
        del members[kernel]
    elif change in ("callback", "newer StableHLO", "code"):
        code = members["programs/top.mlirbc"]
        code = {
            "callback": code + b"xla_ffi_python_cpu_callback",
            "newer StableHLO": code.replace(b"multiply_v1", b"multiply_v9"),
            "code": code[:-100],
        }[change]
        members["programs/top.mlirbc"] = code
        about["sha256"]["programs/top.mlirbc"] = hashlib.sha256(code).hexdigest()
    elif change == "types":
        about["programs"]["top"]["arguments"][0][1] = "float64"
    elif change == "field":
        about["input"]["size"] = "large"
    members["about.json"] = json.dumps(about).encode()
    return members


@pytest.mark.parametrize(
    "change, message",
    [
        ("newer format", "of format 2; this camjax reads format 1. Install a newer camjax"),
        ("weights", "hash of arrays/head.kernel.npy"),
        ("pickle", "array head.kernel"),
        ("shape", "array head.kernel"),
        ("raw pickle", "about.json is damaged"),
        ("name", r"\.\./\.\./harm.txt missing or unexpected"),
        ("missing", "arrays/head.kernel.npy missing"),
        ("callback", "calls Python functions"),
        ("newer StableHLO", r"not a network that this JAX can run.* It was written by JAX .* Install a newer JAX"),
        ("code", "not a network that this JAX can run"),
        ("types", "do not fit"),
        ("field", r"input\.size is 'large'"),
    ],
)
def test_a_changed_file_is_an_error_and_runs_nothing(file, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "changed.camjax", changed(members_of(file), change))
    with pytest.raises(ValueError, match=message):
        camjax.load_exported(path)
    assert [item.name for item in tmp_path.iterdir()] == ["changed.camjax"]


def test_another_file_is_an_error(tmp_path):
    (tmp_path / "text.camjax").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.camjax is not a network by camjax export"):
        camjax.load_exported(tmp_path / "text.camjax")
    with pytest.raises(FileNotFoundError, match=r"none\.camjax"):
        camjax.load_exported(tmp_path / "none.camjax")
