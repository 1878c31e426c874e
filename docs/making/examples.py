"""Examples for the API reference, from the code of the pages, which the tests run."""

import ast
import json
import re
from pathlib import Path

LONGEST = 12  # lines


def find_examples(docs: Path) -> dict[str, dict[str, str]]:
    """For each name that Python of pages uses, and they do not define: page -> the first short statement that does so.

    Guides come before notebooks and pages of the reference, and the first guide before the others.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted([*docs.glob("*.md"), *docs.glob("notebooks/*.ipynb"), *docs.glob("api/*.md")], key=_order):
        trees = [(block, ast.parse(block)) for block in _blocks(path)]
        own = {getattr(node, "name", None) for _, tree in trees for node in ast.walk(tree) if _defines(node)}
        for block, tree in trees:
            for statement in tree.body:
                code = ast.get_source_segment(block, statement) or ""
                if isinstance(statement, ast.Import | ast.ImportFrom) or code.count("\n") >= LONGEST:
                    continue
                for node in ast.walk(statement):
                    name = getattr(node, "attr", None) or getattr(node, "id", None)
                    if name and name not in own:
                        found.setdefault(name, {}).setdefault(path.relative_to(docs).with_suffix("").as_posix(), code)
    return found


def example_of(name: str, page: str, examples: dict[str, dict[str, str]]) -> tuple[str, str] | None:
    """The page and the code of a name's example for a page of the reference: its own before others'; None without one.

    Another page of the reference may have another thing of that name.
    """
    of_pages = {at: code for at, code in examples.get(name, {}).items() if at == page or not at.startswith("api/")}
    return (page, of_pages[page]) if page in of_pages else next(iter(of_pages.items()), None)


def _order(path: Path) -> tuple[bool, bool, str]:
    return path.parent.name == "api", path.suffix == ".ipynb", "" if path.stem == "start" else path.stem


def _defines(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


def _blocks(path: Path) -> list[str]:
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        return [code for code in codes if not code.startswith("%")]
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
