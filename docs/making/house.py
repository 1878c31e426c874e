"""The picture of the house: the parts of camjax in levels, drawn from what its files import."""

import ast
import html
from pathlib import Path

import camjax

PACKAGE = Path(camjax.__file__).parent
WIDTH, ROW, HEIGHT, GAP = 1000, 74, 34, 12
LETTER = 7.6  # pixels, of a monospaced font of 13 pixels


def imports() -> dict[str, set[str]]:
    """Part -> the parts that its files import when they are imported; a part is a module or a package of camjax."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if part != "__init__":
            names = {
                name.split(".")[1] for name in _at_start(ast.parse(path.read_text())) if name.startswith("camjax.")
            }
            found.setdefault(part, set()).update(names - {part})
    return {part: names & found.keys() for part, names in found.items()}


def _at_start(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names += _at_start(node)
    return names


def levels(graph: dict[str, set[str]]) -> list[list[str]]:
    """The parts from the ground up: each one level above the highest that it imports."""
    height: dict[str, int] = {}

    def of(part: str, above: tuple[str, ...] = ()) -> int:
        if part in above:
            raise RuntimeError(f"parts import each other in a circle: {' imports '.join([*above, part])}")
        if part not in height:
            height[part] = max((1 + of(below, (*above, part)) for below in graph[part]), default=0)
        return height[part]

    for part in graph:
        of(part)
    return [sorted(part for part in graph if height[part] == level) for level in range(max(height.values()) + 1)]


def direct(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The imports that do not follow from others: those that are drawn."""

    def below(part: str) -> set[str]:
        return graph[part].union(*(below(other) for other in graph[part]))

    return {part: {n for n in names if not any(n in below(o) for o in names - {n})} for part, names in graph.items()}


def picture() -> str:
    """The house as SVG, in the colors of the page. A part's title is the first sentence of its docstring."""
    graph = imports()
    rows = [line for level in levels(graph) for line in _lines(level)][::-1]
    places, boxes = {}, []
    for row, parts in enumerate(rows):
        widths = [LETTER * len(part) + 22 for part in parts]
        x = (WIDTH - sum(widths) - GAP * (len(parts) - 1)) / 2
        for part, width in zip(parts, widths, strict=True):
            y = row * ROW + 4
            places[part] = (x + width / 2, y)
            label = f'<text x="{x + width / 2:.0f}" y="{y + 22}">{part}</text>'
            shape = f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}" rx="6"/>'
            boxes.append(f"<g><title>{html.escape(_says(part))}</title>{shape}{label}</g>")
            x += width + GAP
    lines = []
    for part, names in direct(graph).items():
        for name in sorted(names):
            (x0, y0), (x1, y1) = places[part], places[name]
            middle = (y0 + HEIGHT + y1) / 2
            lines.append(
                f'<path d="M{x0:.0f} {y0 + HEIGHT}C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1}"/>'
            )
    size = f"0 0 {WIDTH} {len(rows) * ROW - ROW + HEIGHT + 8}"
    return f'<svg class="house" viewBox="{size}" role="img" aria-label="Parts of camjax">{"".join(lines + boxes)}</svg>'


def _lines(parts: list[str]) -> list[list[str]]:
    """A level's parts, in as many rows as they need."""
    lines: list[list[str]] = [[]]
    for part in parts:
        if sum(LETTER * len(p) + 22 + GAP for p in [*lines[-1], part]) > WIDTH:
            lines.append([])
        lines[-1].append(part)
    return lines


def _says(part: str) -> str:
    path = PACKAGE / part / "__init__.py" if (PACKAGE / part).is_dir() else PACKAGE / f"{part}.py"
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())
