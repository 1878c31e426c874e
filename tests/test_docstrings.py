"""What every public function says of itself: its arguments, shapes, ranges and errors, and where it comes from."""

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import operator
import pkgutil
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

import jax
import numpy as np
import pytest
from jax.typing import ArrayLike

import camjax
from camjax.attribution import METHODS
from camjax.metrics import METRICS

MODULES = ("annotating", "attribution", "data", "evaluation", "features", "metrics", "models", "training")
OF_OTHER_LIBRARIES = {"explain_equinox": "equinox"}
"""Public names that cannot be imported without a library that is no requirement of the tests."""

WHOLE = (
    *("attribution.targets", "boxes", "cam", "components", "data.transforms", "features.svm"),
    *("training.fine_tuning", "training.published", "viz"),
)
"""Modules without `__all__` that the guides name: all of their functions are public."""


def public() -> dict[str, Callable]:
    """Functions and classes by the name that a user writes."""
    places = [("camjax", camjax, camjax.__all__)]
    for name in MODULES:
        module = importlib.import_module(f"camjax.{name}")
        places.append((f"camjax.{name}", module, module.__all__))
    for name in WHOLE:
        module = importlib.import_module(f"camjax.{name}")
        own = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__]
        places.append((f"camjax.{name}", module, [n for n in own if n[0] != "_"]))
    missing = {name for name, library in OF_OTHER_LIBRARIES.items() if not importlib.util.find_spec(library)}
    named = {
        f"{place}.{name}": getattr(module, name)
        for place, module, names in places
        for name in names
        if name not in missing
    }
    return {
        name: thing
        for name, thing in named.items()
        if inspect.isroutine(inspect.unwrap(thing)) or inspect.isclass(thing)
    }


PUBLIC = public()
FUNCTIONS = {name: inspect.unwrap(thing) for name, thing in PUBLIC.items() if not inspect.isclass(thing)}
METHODS_OF_CLASSES = {
    f"{name}.{own}": (thing, own)
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing)
    for own, method in vars(thing).items()
    if (own == "__call__" or own[0] != "_") and isinstance(method, FunctionType | classmethod)
}

SHAPE = re.compile(
    r"\((?:\.\.\.|\*|[A-Za-z\d]+'?)(?:, ?[^()]*)?,?\)|\b(?:shape|share|number|color)\b"
)  # (B, H, W, 3), (..., 4), (B,)
ARRAYS = (jax.Array, np.ndarray, ArrayLike, "jax.Array", "np.ndarray", "ArrayLike")
PIXELS, EDGES = r"0\.\.255|uint8|network takes", r"0\.\.1|pixels"
RANGES = {"image": PIXELS, "images": PIXELS, "boxes": EDGES, "box": EDGES}
SOURCE = re.compile(r"\b(?:19|20)\d\d\b|wsolevaluation|pytorch-grad-cam")


def text_of(thing: Callable) -> str:
    """The docstring, and those to which it sends the reader: of what stands in backticks, of "the module"."""
    own = inspect.cleandoc(thing.__doc__ or "")
    module = importlib.import_module(thing.__module__)
    named = [resolved(name, module) for name in re.findall(r"`([\w.]+)`", own)]
    others = [
        one for one in named if inspect.ismodule(one) or (getattr(one, "__module__", 0) or "").startswith("camjax")
    ]
    others += [module] * ("see the module" in own)
    return "\n\n".join([own, *(inspect.cleandoc(one.__doc__ or "") for one in others)])


def resolved(name: str, module: ModuleType) -> object:
    for scope, path in ((module, name), (camjax, name.removeprefix("camjax."))):
        with contextlib.suppress(AttributeError):
            return operator.attrgetter(path)(scope)
    return None


def said_of(argument: str, text: str) -> str:
    """What sections of arguments, lists and sentences say of an argument; "" if nothing does."""
    listed = re.findall(rf"^ *(?:- )?[`*]*{argument}[`*]*:((?:.*\n)(?:   +.*\n)*)", text + "\n", re.MULTILINE)
    word = rf"\b{argument}\b" if "_" in argument else rf"`{argument}\b"
    return "\n".join([*listed, *re.findall(rf"[^.\n]*{word}[^.]*", text)])


def raises(function: Callable) -> bool:
    """Whether its own lines raise an error that is meant for the caller."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)]
    return any("Error" in ast.unparse(error.func) for error in raised)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_takes_and_gives(name):
    function = FUNCTIONS[name]
    text = text_of(function)
    summary = text.partition("\n\n")[0]
    short = "->" in summary and SHAPE.search(summary)  # (..., 4) boxes -> (...) areas
    signature = inspect.signature(function)
    wrong = []
    for argument in signature.parameters.values():
        said = said_of(argument.name, text) or (summary if short else "")
        if not said:
            wrong.append(f"nothing about {argument.name}")
        elif argument.annotation in ARRAYS:
            if not SHAPE.search(said):
                wrong.append(f"no shape of {argument.name}")
            if not re.search(RANGES.get(argument.name, ""), said):
                wrong.append(f"no range of {argument.name}")
    given = signature.return_annotation
    if given not in (None, "None", inspect.Signature.empty) and not (
        short or re.search(r"^(Return|Yield)s:|returns|->|is the result", text, re.M)
    ):
        wrong.append("nothing about what it returns")
    if given in ARRAYS and not SHAPE.search(text):
        wrong.append("no shape of what it returns")
    if raises(function) and "Error" not in text:
        wrong.append("nothing about the errors that it raises")
    assert not wrong, f"{name}: {', '.join(wrong)}"


@pytest.mark.parametrize("name", METHODS_OF_CLASSES)
def test_a_public_method_says_what_it_takes(name):
    """Itself, or where it stands first: in the class that it is derived from, or in the class's own docstring."""
    cls, own = METHODS_OF_CLASSES[name]
    methods = [vars(base)[own] for base in cls.__mro__ if own in vars(base)]
    function = getattr(methods[0], "__func__", methods[0])
    assert function.__doc__, "no docstring"
    text = "\n\n".join([*(text_of(getattr(method, "__func__", method)) for method in methods), text_of(cls)])
    given = [word for word in list(inspect.signature(function).parameters)[1:] if not said_of(word, text)]
    # (b, C) logits -> (b,) losses
    assert not given or "->" in function.__doc__.partition("\n\n")[0], f"nothing about {', '.join(given)}"
    assert not raises(function) or "Error" in text, "nothing about the errors that it raises"


@pytest.mark.parametrize("name", [name for name, thing in PUBLIC.items() if inspect.isclass(thing)])
def test_a_public_class_says_what_it_holds(name):
    cls = PUBLIC[name]
    fields = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    fields += getattr(cls, "_fields", ())
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), "the docstring that Python makes up"
    assert [field for field in fields if field[0] != "_" and not said_of(field, text_of(cls))] == []


def test_methods_and_metrics_name_their_sources():
    """In the docstring, in what it refers to, or in that of the public function, `grad_cam` of `grad_cam_maps`."""
    without = []
    for name, row in METHODS.items():
        function = getattr(row.function, "func", row.function)
        module = importlib.import_module(function.__module__)
        public = getattr(module, function.__name__.removesuffix("_maps"), function)
        targets = [getattr(row.target, "func", row.target)] if row.target else []
        texts = [module.__doc__, *map(text_of, (function, public, *targets))]
        without += [name] * (not SOURCE.search("\n".join(texts)))
    for name, metric in METRICS.items():
        module = importlib.import_module(metric.__module__)
        without += [name] * (not SOURCE.search(text_of(metric) + module.__doc__))
    assert without == []


def test_every_public_name_has_an_example():
    """A statement of the reference's own page, or of a guide, which tests/test_docs.py runs; the site shows it."""
    docs = Path(camjax.__file__).parents[1] / "docs"
    spec = importlib.util.spec_from_file_location("examples", docs / "making" / "examples.py")
    making = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(making)
    examples = making.find_examples(docs)
    pages = {
        module: f"api/{path.stem}"
        for path in (docs / "api").glob("*.md")
        for module in re.findall(r"^\.\. automodule:: (\S+)", path.read_text(), re.MULTILINE)
    }
    places = {name: name.rpartition(".") for name in PUBLIC}
    assert [n for n, (of, _, own) in places.items() if not making.example_of(own, pages[of], examples)] == []


def test_names_in_docstrings_are_there():
    """Of camjax, in any docstring or comment, such as `camjax.data.eval_batches`."""
    package = Path(camjax.__file__).parent
    found = {name for path in package.rglob("*.py") for name in re.findall(r"`(camjax(?:\.\w+)+)`", path.read_text())}

    def is_there(name: str) -> bool:
        with contextlib.suppress(AttributeError, ModuleNotFoundError):
            return pkgutil.resolve_name(name) is not None
        return False

    assert sorted(name for name in found if not is_there(name)) == []
