"""Examples for the API reference, from the code of the pages, which the tests run."""

import ast
import json
import re
from pathlib import Path

LONGEST = 12  # lines


def find_examples(docs: Path) -> dict[str, tuple[str, str]]:
    """For each name that a page's Python calls or mentions, the page and the first short statement that does so."""
    found: dict[str, tuple[str, str]] = {}
    for path in sorted([*docs.glob("*.md"), *docs.glob("notebooks/*.ipynb")], key=_order):
        for block in _blocks(path):
            for statement in ast.parse(block).body:
                code = ast.get_source_segment(block, statement) or ""
                if isinstance(statement, ast.Import | ast.ImportFrom) or code.count("\n") >= LONGEST:
                    continue
                for node in ast.walk(statement):
                    name = getattr(node, "attr", None) or getattr(node, "id", None)
                    if name:
                        found.setdefault(name, (path.relative_to(docs).with_suffix("").as_posix(), code))
    return found


def _order(path: Path) -> tuple[bool, str]:
    """Guides before notebooks, and the first page first."""
    return path.suffix == ".ipynb", "" if path.stem == "start" else path.stem


def _blocks(path: Path) -> list[str]:
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        return [code for code in codes if not code.startswith("%")]
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)
