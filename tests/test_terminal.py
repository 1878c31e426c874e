"""Names are printed as they are, wherever rich would read markup or an emoji in them."""

import ast
import io
import re
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table

import camjax
from camjax import terminal
from camjax.terminal import Console, TextColumn, progress
from experiments.common.table import result_table

NAME = r"a [bold] [/x] \[b] :cat: b 12"
HOSTILE = NAME.replace(" b", "\x1b[31m b")


def print_table(console):
    table = Table("", HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE, HOSTILE)
    console.print(table)


def print_result_table(console):
    table = result_table(HOSTILE, HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE, HOSTILE)
    console.print(table)


def show_status(console):
    with console.status("before") as status:
        status.update(HOSTILE)
        status.update(spinner="line")
    with console.status(HOSTILE):
        pass


def show_progress(console):
    with Progress(TextColumn("{task.description}"), TextColumn("{task.fields[more]}"), console=console) as bar:
        bar.add_task(HOSTILE, more=HOSTILE)


def show_progress_of_experiments(console):
    with progress(HOSTILE, console) as update:
        update(1, 2)


@pytest.mark.parametrize(
    "show, times",
    [
        (lambda console: console.print(HOSTILE), 1),
        (print_table, 5),
        (print_result_table, 5),
        (show_status, 1),
        (show_progress, 2),
        (show_progress_of_experiments, 1),
    ],
)
def test_a_name_is_printed_as_it_is(show, times):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    show(console)
    assert "\x1b[31m" not in console.file.getvalue()
    printed = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())
    assert printed.count(NAME.replace(" b", " [31m b")) >= times, printed


def test_consoles_come_from_one_place():
    other = (
        r"rich\.console|rich\.status|rich\.print\b|\bmarkup=|from_markup|rich import print|rich\.progress.*TextColumn"
    )
    root = Path(camjax.__file__).parents[1]
    files = [path for part in ("camjax", "experiments") for path in sorted((root / part).rglob("*.py"))]
    users = [
        path.relative_to(root).as_posix()
        for path in files
        if re.search(other, ast.unparse(ast.parse(path.read_text())))
    ]
    assert users == ["camjax/terminal.py"]


def test_progress_is_lines_where_there_is_no_terminal(monkeypatch):
    monkeypatch.setattr(terminal, "SECONDS", 0)
    out = io.StringIO()
    with terminal.progress("counting [bold]", terminal.Console(file=out), "images") as show:
        show(1, 4)
        show(4, 4)
    first, last = out.getvalue().splitlines()
    assert first.startswith("counting [bold] 1/4  ") and re.fullmatch(r"counting \[bold\] 4/4  [\d.]+ images/s", last)
    monkeypatch.setattr(terminal, "SECONDS", 1000)
    with terminal.progress("counting", terminal.Console(file=out)) as show:
        show(1, 4)
        show(4, 4)
    assert out.getvalue().splitlines()[2:] == ["counting 4/4"]
