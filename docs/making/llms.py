"""`llms.txt`: what the site has, as plain text, for programs that read it."""

from pathlib import Path

from docutils import nodes


def write(app, exception) -> None:
    """Writes title, first paragraph and address of each page, in the order of the table of contents."""
    if exception or app.builder.format != "html":
        return
    lines = ["# camjax", "", f"> {_first_paragraph(app.env.get_doctree(app.env.config.root_doc))}", "", "## Pages", ""]
    for name in _in_order(app.env, app.env.config.root_doc):
        title = app.env.titles[name].astext()
        lines.append(f"- [{title}]({app.builder.get_target_uri(name)}): {_first_paragraph(app.env.get_doctree(name))}")
    Path(app.outdir, "llms.txt").write_text("\n".join(lines) + "\n")


def _in_order(env, name: str) -> list[str]:
    below = env.toctree_includes.get(name, [])
    return [page for child in below for page in [child, *_in_order(env, child)]]


def _first_paragraph(doctree: nodes.document) -> str:
    sections = list(doctree.findall(nodes.section))[:1] or [doctree]
    paragraphs = (node for node in sections[0].children if isinstance(node, nodes.paragraph))
    return " ".join(next((node.astext() for node in paragraphs if not list(node.findall(nodes.image))), "").split())
