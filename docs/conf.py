"""Settings of the site that `make docs` builds, and what the build writes from the code."""

import importlib
import os
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
os.environ["PYTHONPATH"] = os.pathsep.join([str(DOCS), str(DOCS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # pages call `camjax`
# Executed pages run on the CPU, and fetch nothing. What they compile is kept for the next build.
os.environ |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(DOCS.parent / "build" / "site-compiled"))
os.environ.setdefault("TFDS_DATA_DIR", str(DOCS.parent / "build" / "site-data"))

from making import llms  # noqa: E402
from making.examples import example_of, find_examples  # noqa: E402

import camjax  # noqa: E402

project = "camjax"
author = "The camjax authors"
version = release = camjax.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["making", "static"]
highlight_language = "none"
smartquotes = False  # quotes in docstrings are code

html_theme = "furo"
html_title = "camjax"
html_static_path = ["static"]
html_favicon = "static/favicon.svg"
html_css_files = ["camjax.css"]
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 4
myst_enable_extensions = []
# Pages with code cells are executed anew by every build.
nb_execution_mode = "force"
nb_execution_timeout = 900  # seconds of a cell: of a busy machine, too
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = [("Results", "params_style")]

PUBLIC_MODULES = re.findall(
    r"^\.\. automodule:: (\S+)", "\n".join(map(Path.read_text, (DOCS / "api").glob("*.md"))), re.M
)
for name in PUBLIC_MODULES:  # autodoc sees what a module has, not what it would import on first use
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        setattr(module, public, getattr(module, public))
EXAMPLES = find_examples(DOCS)
OF_MODULES = ("function", "class", "exception", "data")


def skip_member(app, what, name, found, skip, options):
    """Leaves out what has its place elsewhere: a name of `camjax` in a package, and fields that `Attributes:` lists."""
    of_package = app.env.current_document.autodoc_module if hasattr(app.env, "current_document") else None
    if of_package not in (None, "camjax") and name in camjax.__all__ and found is getattr(camjax, name):
        return True
    if type(found).__name__ == "_tuplegetter":
        return True
    return None


def as_napoleon_reads(app, what, name, found, options, lines):
    """Code is marked by one backtick, as in Markdown, and `Returns:` may name several results as `Args:` does.

    A name alone is a link where the reference has it, and so is a page of this folder.
    """
    text = re.sub(r"(?<!`)`([^`]+?)`(?!`)", _link_or_code, "\n".join(lines))
    text = re.sub(r"\bdocs/(\w+)\.md\b", r":doc:`/\1`", text)
    returns = re.search(r"^Returns:\n((?:  .*\n|\n)*)", text + "\n", re.M)
    if returns and len(re.findall(r"^  \w+: ", returns[1], re.M)) > 1:
        text = text.replace("Returns:\n", "Results:\n", 1)
    if what in ("attribute", "data", "property"):
        text = text.replace(" ", "\n", 1)  # what stands before a colon in the first line would be taken for a type
    lines[:] = text.split("\n")


def _link_or_code(found):
    return f":py:obj:`{found[1]}`" if re.fullmatch(r"[A-Za-z_][\w.]*", found[1]) else f"``{found[1]}``"


def add_example(app, what, name, found, options, lines):
    """The first statement that uses the name: of the page's own examples, or of a guide, which the tests run."""
    here = app.env.docname
    if what in OF_MODULES and (example := example_of(name.rpartition(".")[2], here, EXAMPLES)):
        page, code = example
        place = "among the `examples <#examples>`__ of this page" if page == here else f"in :doc:`/{page}`"
        lines += ["", f"For example, {place}:", "", ".. code-block:: python", ""]
        lines += [f"   {line}" for line in code.splitlines()] + [""]


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", as_napoleon_reads, priority=400)
    app.connect("autodoc-process-docstring", add_example, priority=900)
    app.connect("build-finished", llms.write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
