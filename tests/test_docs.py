"""What the README and the pages show runs as written: their Python with a small network, and with their own in
`make test-long`, which runs their commands, too.

A block marked `no-run` in its first line cannot run here; `NO_RUN` says why. Every other block runs: here, or in the
test that `ELSEWHERE` names.
"""

import ast
import contextlib
import functools
import importlib.util
import inspect
import json
import re
import shlex
import shutil
import signal
import socket
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import requests
import tyro
from conftest import random_network, shallow_gap
from PIL import Image
from requests.adapters import HTTPAdapter
from skimage import data
from urllib3.util import Retry

import camjax
from camjax.cli import main as command_line
from camjax.cli import network_choice
from camjax.cli.main import main
from camjax.data import look_alikes
from camjax.training import evaluate
from tests.experiments.colors import TINY
from tests.tiny_vit import tiny_vit

ROOT = Path(__file__).parents[1]


IN_A_CLONE = "installs into the environment: tests/check_wheel.py does it, and .ci/run calls make's targets"
OF_OTHERS = (
    "weights that others publish, from the network: tests/models and tests/weights have small files of each kind"
)
A_CLOUD = "a cloud, or a cluster: tests/test_examples.py has stand-ins for their programs"
NO_RUN = {
    "README.md": {"make demo": IN_A_CLONE},
    "docs/start.md": {"make demo": IN_A_CLONE},
    "docs/installing.md": {"pip install": IN_A_CLONE},
    "docs/app.md": {"pip install": "a server, which has no end: the page on a folder of pictures starts it"},
    "docs/commands.md": {"camjax explain": "one of each: the pages that it names run them"},
    "docs/data.md": {"pip install": "downloads data sets: tests/cli/test_prepare.py prepares small ones"},
    "docs/annotating.md": {"#SBATCH": A_CLOUD + "; tests/annotating has shards"},
    "docs/models.md": {"import camjax": OF_OTHERS},
    "docs/reproducing_cub.md": {"python -m": "needs CUB: tests/experiments has small data sets of its form"},
    "docs/tpu_pods.md": {
        "python -m experiments.imagenet --recipe": "needs ImageNet: tests/test_examples.py, as a dry run",
        "gcloud container": A_CLOUD,
        "gcloud compute": A_CLOUD,
        "python -m experiments.imagenet ": A_CLOUD,
        "camjax prepare": "needs ImageNet's archives: tests/cli/test_prepare.py prepares small ones",
    },
}
"""Page -> how a block marked `no-run` begins, and why it cannot run here."""

ELSEWHERE = {
    "docs/exporting.md": ["tests/test_exporting.py"],
    "docs/models.md": ["tests/models/test_vit.py"],
    "docs/training.md": [
        "tests/training/test_losses.py",
        "tests/training/test_losses_parity.py",
        "tests/training/test_tensorflow_parity.py",
    ],
    "docs/your_own_network.md": ["tests/test_your_own_network.py"],
}
"""Page -> the tests that run it, or some of its blocks."""


def blocks_of(name: str) -> list[tuple[str, bool, str]]:
    """The language, whether it is marked `no-run`, and the code of each block of a document."""
    found = re.findall(r"^```(python|sh)( no-run)?\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    return [(language, bool(mark), code) for language, mark, code in found]


def python_of(name: str) -> list[str]:
    """The Python blocks of a document that run."""
    return [code for language, no_run, code in blocks_of(name) if language == "python" and not no_run]


def commands_in(code: str) -> list[list[str]]:
    """The commands of a block, as words."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line.partition(" > ")[0], comments=True))]


@pytest.fixture
def small_network(monkeypatch):
    """What `camjax.load_model` returns in the guides: the README has the real network."""
    model = shallow_gap(1000)
    model.eval()
    monkeypatch.setattr(camjax, "load_model", lambda name: model)
    return model


def test_ten_lines_of_the_readme(tmp_path, monkeypatch):
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    (block,) = python_of("README.md")
    names = {}
    exec(block, names)
    assert names["model"].class_names[int(names["out"].class_ids[0, 0])] == "Egyptian cat"
    assert names["found"].boxes.shape == (1, 5, 4) and names["found"].valid.all()
    assert names["heat"].shape == names["images"].shape[1:]


def test_a_classifier_of_features(small_network, tmp_path, monkeypatch):
    for name, photograph in (("cat", data.chelsea()), ("coffee", data.coffee())):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(photograph[10 * i :]).save(tmp_path / "photographs" / name / f"{i}.png")
    Image.fromarray(data.chelsea()[:, ::-1]).save(tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    (block,) = python_of("docs/features.md")
    names = {}
    exec(block, names)
    values = names["svm"].decision_values(names["store"][:])
    assert (values.argmax(1) == names["labels"]).all()
    assert names["out"].class_ids.tolist() == [[0]] and names["store"].readable.all()
    mean = np.asarray(names["out"].maps).mean((2, 3)) + names["svm"].bias[0]
    np.testing.assert_allclose(mean, names["out"].logits[:, :1], atol=1e-4)


def test_other_methods_and_how_faithful_they_are(small_network, tmp_path, monkeypatch):
    Image.fromarray(data.chelsea()).save(tmp_path / "cat.jpg")
    Image.fromarray(data.coffee()).save(tmp_path / "coffee.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    block, transformer, layers = python_of("docs/attribution.md")
    exec(block, names)
    cam = camjax.cam_fn(names["model"], names["images"], [285, 967]).maps
    np.testing.assert_allclose(names["found"].maps, cam / (16 * 16), atol=1e-6)
    assert names["maps"].shape == (2, 1, 16, 16)
    with monkeypatch.context() as patch:
        patch.setattr(camjax, "load_model", lambda *_: tiny_vit())
        exec(transformer, names)
    assert names["attended"].maps.shape == (2, 1, 8, 8)
    exec(layers, names)
    assert names["choice"].layer in names["choice"].scores and names["choice"].num_images == 2
    first, check = python_of("docs/faithfulness.md")
    exec(first, names)
    assert names["results"].keys() == {"average_drop", "increase_in_confidence", "average_gain", "sparsity"}
    assert 0 < names["results"]["sparsity"] < 1
    exec(check, names)
    assert len(names["correlations"]) > 3


PAGES = ("start", "coming_from", "troubleshooting", "metrics", "conventions")


def run_blocks(page: str, folder: Path, monkeypatch, change=lambda block: block, *, commands: bool = False) -> dict:
    """Runs the Python of a page, and its commands if asked for, from top to bottom; returns the names of its Python.

    It works beside two photographs, and the folder `photos` of two classes with boxes, as the pages name them.
    """
    Image.fromarray(data.chelsea()).save(folder / "cat.jpg")
    Image.fromarray(data.coffee()).save(folder / "coffee.jpg")
    for split in ("train", "val"):
        cat_and_coffee(folder / "photos" / split, 2, names=("Egyptian cat", "espresso"))
    boxes = "Egyptian cat/1.jpg,10,10,90,90\nespresso/1.jpg,20,10,80,90\n"
    (folder / "boxes.csv").write_text(f"filename,xmin,ymin,xmax,ymax\n{boxes}")
    monkeypatch.chdir(folder)
    names = {}
    for language, no_run, code in blocks_of(f"docs/{page}.md"):
        if language == "python" and not no_run:
            exec(change(code), names)
        for words in commands_in(code) if commands and language == "sh" and not no_run else []:
            assert words[0] == "camjax" and main(words[1:]) == 0, words
    return names


@pytest.mark.parametrize("page", PAGES)
def test_pages_run(page, tmp_path, monkeypatch):
    """With a network of two convolutions, whose layers have other names."""
    model = random_network(TINY, 1000)
    monkeypatch.setattr(camjax, "load_model", lambda name: model)
    names = run_blocks(
        page, tmp_path, monkeypatch, lambda code: code.replace("blocks.10", "layers.0").replace('"top"', '"layers.1"')
    )
    assert names["model"] is model
    if page == "coming_from":
        assert names["maps"].shape == (2, 1, 8, 8) and names["both"].shape == (2, 1, 16, 16)
    if page == "metrics":
        assert names["error"].num_images == names["max_box_acc"].num_images == 1
        assert {"top1_localization_error", "MaxBoxAccV2"} <= names["results"].keys()
    if page == "conventions":
        assert names["found"].boxes.sharding.spec[0] == "images"


@pytest.mark.long
def test_training_as_written(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in python_of("docs/training.md")[:2]:
        exec(block, names)
        assert names["model"].head.num_classes == 10
    assert evaluate(camjax.load_model("runs/scenes"), names["validation"], batch_size=64)["accuracy"] > 0.9


def test_the_page_on_data(tmp_path, scenes_dir, monkeypatch, capsys):
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared/scenes").symlink_to(scenes_dir / "scenes")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(look_alikes, "NUM_IMAGES", {"train": 9, "validation": 9, "test": 9})
    names = run_blocks("data", tmp_path, monkeypatch)
    assert names["source"].info.class_names[7] == "seven" and names["source"][0]["image"].shape == (64, 64, 3)
    assert names["batch"]["image"].shape == (32, 64, 64, 3) and names["batch"].keys() >= {"label", "mask"}
    assert "Egyptian cat" in capsys.readouterr().out and Path("pictures.csv").is_file()
    assert len(names["own"].train) == len(names["own"].validation) == 4
    assert names["part"].shape == (4,) and names["look_alikes"].tolist() == [6, 7, 8]
    assert {path.name for path in (tmp_path / "prepared").iterdir()} == {"scenes", "look_alikes"}


@pytest.mark.long
@pytest.mark.parametrize("page", PAGES)
def test_pages_run_as_written(page, tmp_path, monkeypatch, capsys):
    """With their own network, and with their commands; what comments say of shapes and scores is so."""
    names = run_blocks(page, tmp_path, monkeypatch, commands=True)
    if page == "start":
        assert names["out"].maps.shape == (1, 1, 7, 7) and names["maps"].shape == (1, 2, 7, 7)
        assert names["asked"].boxes.shape == (1, 2, 4) and Path("heat.png").is_file()
        assert Path("cat_cam.png").is_file() and Path("classes.png").is_file()
    if page == "coming_from":
        assert names["as_there"].shape == (2, 224, 224) and names["smooth"].shape == (2, 1, 224, 224)
    if page == "troubleshooting":
        cat, airliner = names["out"].maps.max((-2, -1))[0]
        assert cat > 3 * airliner and "never exceed 1" in str(names["caught"][0].message)


@pytest.mark.long
@pytest.mark.parametrize("page", ["attribution", "faithfulness"])
def test_their_commands_run(page, tmp_path, monkeypatch):
    run_blocks(page, tmp_path, monkeypatch, lambda code: "", commands=True)
    assert Path("cat_methods.png" if page == "attribution" else "evaluation/results.json").is_file()


def cat_and_coffee(folder: Path, each: int, names: tuple[str, str] = ("cat", "coffee")) -> None:
    """Pictures of two classes: pieces of photographs."""
    rng = np.random.default_rng(0)
    for name, photograph in zip(names, (data.chelsea(), data.coffee()), strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(1, each + 1):
            side = int(rng.integers(100, 250))
            top, left = (int(rng.integers(0, n - side)) for n in photograph.shape[:2])
            Image.fromarray(photograph[top : top + side, left : left + side]).save(folder / name / f"{i}.jpg")


def test_from_a_folder_to_boxes(tmp_path, monkeypatch, capsys):
    """Every command of the page, with a network of two convolutions."""
    cat_and_coffee(tmp_path / "pictures", 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network_choice, "DEFAULT_MODEL", TINY)
    run_the_page(["--weights", "random", "--batch-size", "4", "--epochs", "2"], capsys)
    run_annotating()


@pytest.mark.long
def test_from_a_folder_to_boxes_as_written(tmp_path, monkeypatch, capsys):
    cat_and_coffee(tmp_path / "pictures", 20)
    monkeypatch.chdir(tmp_path)
    run_the_page([], capsys)
    assert json.loads(Path("runs/mine/results.json").read_text())["accuracy"] >= 0.9
    run_annotating(commands=True)


def run_annotating(commands: bool = False) -> None:
    """The page on annotating, with the network that the page on a folder of pictures has trained."""
    Path("runs/mine").rename("runs/birds")
    for language, no_run, code in blocks_of("docs/annotating.md"):
        for words in commands_in(code) if commands and language == "sh" and not no_run else []:
            shutil.rmtree("boxes")  # of other settings
            assert main(words[1:]) == 0, words
        if language == "python":
            shutil.rmtree("boxes")
            names = {}
            exec(code, names)
            assert names["manifest"]["settings"]["thresholds"] == [0.3]


def run_the_page(more_of_training: list[str], capsys) -> None:
    blocks = [code for language, _, code in blocks_of("docs/own_pictures.md") if language == "sh"]
    commands = [words for code in blocks for program, *words in commands_in(code) if program == "camjax"]
    assert [command[0] for command in commands] == ["train", "explain", "annotate", "evaluate", "evaluate", "app"]
    for command in commands[:-1]:
        more = more_of_training if command[0] == "train" else []
        assert main([*command, *more]) == 0, (command, capsys.readouterr().err)
    assert Path("cats.png").stat().st_size > 10_000
    boxes = json.loads(Path("boxes/coco.json").read_text())
    assert {image["file_name"] for image in boxes["images"]} >= {"cat/1.jpg", "coffee/1.jpg"}
    # Measured against themselves, boxes are right wherever the network predicts the picture's own class.
    results = json.loads(Path("evaluation/results.json").read_text())
    numbers = results["results"]["cam"]["ilsvrc"]
    assert numbers["top1_localization_error"] == pytest.approx(numbers["top1_classification_error"], abs=1e-3)
    open_the_page(commands[-1], len(boxes["images"]))


def open_the_page(command: list[str], pictures: int) -> None:
    """Starts `camjax app` at a free port, opens both pages, and ends it by Ctrl-C."""
    pytest.importorskip("uvicorn", reason='camjax app needs pip install "camjax[app]"')
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"

    def visit() -> list[requests.Response]:
        retry = Retry(connect=8, backoff_factor=0.05)
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=retry))
            found = [session.get(address)]
            try:
                for path in (
                    "results",
                    "api/start",
                    "api/network?network=0",
                    *map("api/results?results={}".format, "01"),
                ):
                    found.append(session.get(f"{address}/{path}"))
            finally:
                signal.raise_signal(signal.SIGINT)
        return found

    with ThreadPoolExecutor(1) as pool:
        visiting = pool.submit(visit)
        assert main([*command, "--port", address.rpartition(":")[2]]) == 130
        found = visiting.result()
    assert {answer.status_code for answer in found} == {200}
    assert all("<title>camjax" in page.text for page in found[:2])
    start, network, annotation, evaluation = (answer.json() for answer in found[2:])
    assert start["networks"][0] == "runs/mine" and network["class_names"] == ["cat", "coffee"]
    assert (annotation["title"], evaluation["title"]) == ("boxes", "evaluation")
    assert annotation["total"] == evaluation["total"] == pictures
    assert evaluation["rows"][0]["true"] and not evaluation["rows"][0]["note"]


DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for pattern in ("*.md", "*.ipynb") for path in (ROOT / "docs").rglob(pattern)
)


def words_of(document: str) -> str:
    """A page without the code of its cells, if it is a notebook."""
    text = (ROOT / document).read_text()
    if not document.endswith(".ipynb"):
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


WITH_BLOCKS = [name for name in ["README.md", *DOCUMENTS] if name.endswith(".md") and blocks_of(name)]


@pytest.mark.parametrize("document", WITH_BLOCKS)
def test_each_block_runs_or_says_why_not(document):
    marked = [code for _, no_run, code in blocks_of(document) if no_run]
    for code, start in zip(marked, NO_RUN.get(document, {}), strict=True):
        assert code.startswith(start)
    runs = ELSEWHERE.get(document, [])
    assert all(Path(document).name in (ROOT / test).read_text() for test in runs)
    stem = Path(document).stem
    here = Path(__file__).read_text()
    known = runs or stem in REFERENCE or f'"{stem}"' in here or f'{document}")' in here
    assert known or len(marked) == len(blocks_of(document))


@pytest.mark.parametrize("document", WITH_BLOCKS)
def test_commands_are_as_written(document):
    """Of all blocks: commands, options, targets and extras are there, whether the block runs or not."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    commands = [words for language, _, code in blocks_of(document) if language == "sh" for words in commands_in(code)]
    for program, *words in commands:
        if program == "camjax":
            parsed(getattr(command_line, words[0]), [w.replace("$SLURM_ARRAY_TASK_ID", "0") for w in words[1:]])
        elif program == "python":
            tyro.cli(importlib.import_module(f"{words[1]}.__main__").Options, args=words[2:])
        elif program == "make":
            assert words[0] in targets
        elif program == "pip":
            assert all(
                name in extras for found in re.findall(r"\[(.+?)\]", " ".join(words)) for name in found.split(",")
            )
        else:
            assert program == "gcloud"


def parsed(command: Callable, words: list[str]) -> None:
    """Reads a command's options, and does not run it."""
    tyro.cli(functools.wraps(command)(lambda *_, **options: None), args=words)


@pytest.mark.parametrize("document", ["README.md", *DOCUMENTS])
def test_names_exist(document):
    """Of camjax, and of what a sentence says to run."""
    words = words_of(document)
    for name in re.findall(r"`(camjax(?:\.[A-Za-z_]\w*)+)", words):
        assert resolved(name), name
    for module in re.findall(r"python -m ((?:benchmarks|experiments)\.[a-z_]+)", words):
        assert importlib.util.find_spec(module), module
    for file in re.findall(r"python (docs/\w+\.py)", words):
        assert (ROOT / file).is_file(), file


def resolved(name: str) -> bool:
    """Whether a dotted name is a module's, or one of its attributes."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            found = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                if not hasattr(found, part):
                    return False
                found = getattr(found, part)
            return True
    return False


@pytest.mark.parametrize("document", ["README.md", *DOCUMENTS])
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", words_of(document)):
        if "://" not in target:
            assert ((ROOT / document).parent / target).exists(), target


def test_every_page_has_its_place_in_the_site():
    """Each is in one table of contents, below docs/index.md."""
    listed = []
    for document in DOCUMENTS:
        for block in re.findall(r"^```{toctree}\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed += [(Path(document).parent / line).as_posix() for line in lines]
    pages = {document.rpartition(".")[0] for document in DOCUMENTS}
    assert sorted([*listed, "docs/index"]) == sorted(pages)


NOTEBOOKS = [document for document in DOCUMENTS if document.endswith(".ipynb")]


@pytest.mark.parametrize("document", NOTEBOOKS)
def test_notebooks_have_no_results_yet_and_install_first(document):
    """`make docs` executes them; in Colab, where camjax is not installed, their first cell does that.

    The page of all notebooks has the files.
    """
    cells = json.loads((ROOT / document).read_text())["cells"]
    first, *others = [cell for cell in cells if cell["cell_type"] == "code"]
    assert "".join(first["source"]).startswith("%pip install") and first["metadata"]["tags"] == ["skip-execution"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in (first, *others))
    assert f"{{download}}`{Path(document).name}`" in (ROOT / "docs/notebooks/index.md").read_text()


REFERENCE = sorted(path.stem for path in (ROOT / "docs" / "api").glob("*.md"))


@pytest.mark.long
@pytest.mark.parametrize("page", REFERENCE)
def test_examples_of_the_reference_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in python_of(f"docs/api/{page}.md"):
        exec(code, names)


@pytest.mark.parametrize("page", REFERENCE)
def test_examples_of_the_reference_call_what_is_there(page):
    """The calls of camjax's functions fit their arguments; `test_examples_of_the_reference_run` runs them."""
    names, calls = {}, 0
    for code in python_of(f"docs/api/{page}.md"):
        for statement in ast.parse(code).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                exec(ast.unparse(statement), names)
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and (function := of_camjax(node.func, names)):
                    whole = not any(isinstance(word, ast.Starred) for word in node.args)
                    given = {word.arg: None for word in node.keywords if word.arg}
                    signature = inspect.signature(function)
                    bind = signature.bind if whole and len(given) == len(node.keywords) else signature.bind_partial
                    bind(*[None] * (len(node.args) if whole else 0), **given)
                    calls += 1
    assert calls


def of_camjax(function: ast.expr, names: dict) -> Callable | None:
    """What `camjax.viz.overlay` names, if it is camjax's, whose modules have to have the name."""
    first, *others = ast.unparse(function).split(".")
    found = names.get(first) if all(map(str.isidentifier, others)) else None
    for name in others:
        found = getattr(found, name) if inspect.ismodule(found) else getattr(found, name, None)
    return found if (getattr(found, "__module__", None) or "").startswith("camjax") else None


PACKAGES = ["", ".annotating", ".attribution", ".data", ".evaluation", ".features", ".metrics", ".models", ".training"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package):
    """A page of docs/api documents each package with public names, and so all of them."""
    pages = "".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    assert re.search(rf"^\.\. automodule:: camjax{re.escape(package)}\n   :members:$", pages, re.MULTILINE)
