"""The help texts of the commands."""

import contextlib
import io
import os
import re

from camjax.cli.main import main


def helps() -> str:
    """Markdown: a section for each command."""
    sections = []
    for name in re.search(r"{(.*?)}", _help())[1].split(","):
        sections.append(f"### camjax {name}\n\n```text\n{_help(name).strip()}\n```\n")
    return "\n".join(sections)


def _help(*words: str) -> str:
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return said.getvalue()
