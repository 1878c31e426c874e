"""The plan of the house: who imports whom, what stays out, and the public face."""

import ast
import inspect
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import camjax

PACKAGE = Path(camjax.__file__).parent

# From the ground up: a part imports from its own level and those below. A new part gets its place here.
LEVELS = (
    {
        *("cam", "checks", "class_names", "components", "errors", "files", "interrupts", "jax_private", "json_files"),
        *("addresses", "locks", "models", "outputs", "processes", "programs", "sharding", "terminal", "weights"),
    },
    {"boxes", "checkpoints", "runs"},
    {"attribution"},
    {"inference"},
    {"exporting", "figure_grid", "figure_saving", "figure_text", "loading", "metrics", "data", "viz", "training"},
    {"annotating", "evaluation", "features"},
    {"camjax"},  # camjax/__init__.py, the public face
    {"app"},
    {"cli"},
)

# The names and arguments that the README and the guides promise.
PUBLIC = {
    "CamOutput": ["logits", "class_ids", "maps"],
    "Localization": ["logits", "class_ids", "maps", "boxes", "valid"],
    "box_iou": ["a", "b"],
    "cam_fn": ["model", "images", "class_ids"],
    "class_activation_map": ["features", "kernel", "class_ids"],
    "create_model": ["name", "num_classes", "pool", "dtype", "rngs", "wsol"],
    "explainer": ["features_fn", "head_fn", "combine"],
    "export_model": [
        *("model", "path", "method", "threshold", "top_k", "layer", "platforms", "image_size", "any_size", "options"),
    ],
    "largest_component_box": ["mask"],
    "list_models": [],
    "load_exported": ["path"],
    "load_images": ["paths", "size", "crop", "crop_share", "interpolation"],
    "load_model": ["name", "weights", "num_classes", "pool", "dtype", "rngs", "mean_image", "backbone_only", "trust"],
    "make_cam_fn": ["model", "method", "top_k", "layer", "options"],
    "make_localize_fn": ["model", "method", "threshold", "top_k", "layer", "options"],
    "normalize_map": ["maps", "mode"],
    "register_model": ["name", "constructor", "num_classes", "new_layers"],
    "resize_map": ["maps", "size", "method"],
    "with_new_head": ["model", "num_classes", "rngs"],
}


class Import(NamedTuple):
    """One imported module; `at_start` if importing the file imports it, as one inside a function is not."""

    module: str
    at_start: bool


def module_name(path: Path) -> str:
    """camjax/models/head.py -> camjax.models.head; camjax/models/__init__.py -> camjax.models."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text(), path) for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST, at_start: bool = True) -> list[Import]:
    """Every import of a file. `from package import name` is that of the module `package.name` where there is one."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, at_start) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports: write the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(Import(whole if whole in TREES else node.module, at_start))
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            found += imports(node, at_start and not inside)
    return found


IMPORTS = {module: imports(tree) for module, tree in TREES.items()}


def top(module: str) -> str:
    return module.split(".")[0]


def part(module: str) -> str:
    """camjax.models.head -> models; camjax -> camjax."""
    return module.split(".")[1] if "." in module else module


def level(module: str) -> int:
    found = [number for number, parts in enumerate(LEVELS) if part(module) in parts]
    assert found, f"{module} has no place in LEVELS yet"
    return found[0]


def mentions(tree: ast.AST, name: str) -> bool:
    """Whether the code uses a name, other than in strings and comments."""
    return any(
        name in (getattr(node, "id", None), getattr(node, "attr", None))
        or (isinstance(node, ast.alias) and name in node.name.split("."))
        for node in ast.walk(tree)
    )


def in_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_tests_see_the_whole_package():
    assert {"camjax", "camjax.models", "camjax.models.head", "camjax.weights.torch_pickle"} <= TREES.keys()
    assert Import("camjax.models.head", True) in IMPORTS["camjax.models.surgery"]
    assert Import("camjax.checkpoints", False) in IMPORTS["camjax.runs"]


def test_importing_camjax_stays_light():
    heavy = {"cv2", "PIL", "tensorflow", "tensorflow_datasets", "grain", "orbax", "matplotlib", "torch", "sklearn"}
    heavy |= {"skimage", "tyro", "tensorboardX", "pydantic"}
    use = "[getattr(camjax, name) for name in camjax.__all__ if name != 'load_images']"
    at_first, loaded = in_fresh_process(
        f"import sys, camjax; print(*sys.modules, end=';'); {use}; print(*sys.modules)"
    ).split(";")
    assert {"jax", "flax", "camjax.models"} & set(at_first.split()) == set()
    loaded = loaded.split()
    assert "camjax.loading" in loaded
    assert heavy & set(loaded) == set()
    assert {"camjax.data", "camjax.training", "camjax.viz", "camjax.cli"} & set(loaded) == set()


@pytest.mark.parametrize(
    "name", ["annotating", "attribution", "data", "evaluation", "features", "training", "viz", "weights"]
)
def test_subpackages_come_on_first_use(name):
    assert getattr(camjax, name).__name__ == f"camjax.{name}"


def test_an_unknown_attribute_is_an_error():
    with pytest.raises(AttributeError, match="module 'camjax' has no attribute 'cam_fun'"):
        _ = camjax.cam_fun


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_go_down(module):
    for imported in IMPORTS[module]:
        if top(imported.module) == "camjax":
            assert level(imported.module) <= level(module), f"{module} imports {imported.module}"


BELOW_TRAINING = ("models", "weights", "checkpoints", "runs", "loading")


@pytest.mark.parametrize("module", sorted(m for m in TREES if part(m) in BELOW_TRAINING))
def test_loading_a_model_needs_no_training(module):
    assert [name for name, _ in IMPORTS[module] if name.startswith("camjax.training")] == []
    strings = [node.value for node in ast.walk(TREES[module]) if isinstance(node, ast.Constant)]
    assert [text for text in strings if isinstance(text, str) and text.startswith("camjax.training")] == []


@pytest.mark.parametrize("module", sorted(module for module in TREES if "." in module))
def test_no_module_is_hidden_by_a_name_of_its_package(module):
    """After `from package import name`, `package.name` is no longer the module of that name."""
    package, _, name = module.rpartition(".")
    names = [
        alias.asname or alias.name
        for node in ast.walk(TREES[package])
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if f"{node.module}.{alias.name}" not in TREES
    ]
    assert name not in names


def test_no_circles():
    graph = {
        module: {name for name, at_start in found if at_start and name in TREES and name != module}
        for module, found in IMPORTS.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_pmap_is_the_business_of_one_file():
    assert [module for module, tree in TREES.items() if mentions(tree, "pmap")] == ["camjax.training.parallel"]


def test_files_imports_only_the_standard_library_before_an_address_is_given():
    at_start = {top(name) for module in ("files", "addresses") for name, start in IMPORTS[f"camjax.{module}"] if start}
    assert at_start <= sys.stdlib_module_names | {"camjax"}


def test_private_names_of_jax_are_the_business_of_one_file():
    users = [module for module, tree in TREES.items() if "jax._src" in ast.unparse(tree)]
    assert users == ["camjax.jax_private"]
    experiments = PACKAGE.parent.joinpath("experiments").rglob("*.py")
    assert [path for path in experiments if "jax._src" in path.read_text()] == []


def test_orbax_is_the_business_of_one_file():
    users = [module for module, found in IMPORTS.items() if any(top(name) == "orbax" for name, _ in found)]
    assert users == ["camjax.checkpoints"]


@pytest.mark.parametrize("module", sorted(TREES))
def test_an_error_of_the_user_is_an_input_error(module):
    """Commands print an `InputError` as one line; another ValueError is a bug, with its traceback."""
    called = [node.func for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)]
    assert not any(isinstance(function, ast.Name) and function.id == "ValueError" for function in called)


def test_json_is_read_in_one_place():
    """`camjax.json_files` names the file and the field of what is damaged; `json` only writes."""
    reads = re.compile(r"\bjson\.(loads?|JSONDecod\w+)\b|from json import")
    users = {module for module, tree in TREES.items() if reads.search(ast.unparse(tree))}
    # What these read is what this process, or another one of the same run, has just written.
    assert users == {"camjax.evaluation.run_files", "camjax.processes"}


@pytest.mark.parametrize("module", sorted(TREES))
def test_no_other_framework(module):
    others = {"tensorflow", "torch", "torchvision", "timm", "keras"}
    assert [name for name, _ in IMPORTS[module] if top(name) in others] == []


def test_the_public_face_is_all_there():
    assert camjax.__all__ == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names(name):
    thing = getattr(camjax, name)
    assert list(inspect.signature(thing).parameters) == PUBLIC[name]
    assert thing.__module__.startswith("camjax.")
    # Not `inspect.getdoc`, which would take the docstring of a base class.
    assert thing.__doc__ and len(thing.__doc__.split()) > 5
    assert not thing.__doc__.startswith(f"{name}("), "the docstring that NamedTuple makes up"


def test_arguments_that_have_to_be_named():
    def keyword_only(function):
        return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]

    assert keyword_only(camjax.create_model) == ["pool", "dtype", "rngs", "wsol"]
    assert keyword_only(camjax.load_model) == [
        *("num_classes", "pool", "dtype", "rngs", "mean_image", "backbone_only", "trust")
    ]
    assert keyword_only(camjax.explainer) == ["combine"]
    assert keyword_only(camjax.make_cam_fn) == ["top_k", "layer"]
    assert keyword_only(camjax.make_localize_fn) == ["threshold", "top_k", "layer"]
    assert keyword_only(camjax.register_model) == ["num_classes", "new_layers"]
    assert keyword_only(camjax.with_new_head) == ["rngs"]


def test_defaults():
    def defaults(function):
        return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}

    assert defaults(camjax.cam_fn) == {"class_ids": None}
    assert defaults(camjax.make_cam_fn) == {"method": "cam", "top_k": 1, "layer": None}
    assert defaults(camjax.make_localize_fn) == {"method": "cam", "threshold": 0.2, "top_k": 1, "layer": None}
    assert defaults(camjax.class_activation_map) == {"class_ids": None}
    assert defaults(camjax.resize_map) == {"method": "bilinear"}
    assert defaults(camjax.normalize_map) == {"mode": "minmax"}


def test_overlay():
    assert list(inspect.signature(camjax.viz.overlay).parameters)[:2] == ["image", "map"]
