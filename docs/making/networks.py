"""The table of the registry's networks: sizes, maps, where weights come from, and their licences."""

from camjax.cli.model_sizes import measure
from camjax.models import list_models, model_spec
from camjax.models.spec import WeightsSource

NOT_STATED = "see the publisher"


def table() -> str:
    """Markdown, a row for each network."""
    lines = ["| network | parameters | input | map | CAM | weights: licence |", "|---|---:|---|---|---|---|"]
    for name in list_models():
        size = measure(name)
        shown = [of_side(size.input_size), of_side(size.map_size) if size.cam != "none" else "", size.cam]
        weights = "<br>".join(map(_weights, model_spec(name).weights)) or "none published"
        lines.append(f"| `{name}` | {size.parameters / 1e6:.1f} M | {' | '.join(shown)} | {weights} |")
    return "\n".join(lines)


def of_side(size: tuple[int, int]) -> str:
    """(H, W) as HxW."""
    return "x".join(map(str, size))


def _weights(source: WeightsSource) -> str:
    title = f"{source.publisher}'s {source.title}" if source.publisher else f"your own {source.title}"
    where = f"[{title}]({source.address})" if source.address and source.address.startswith("http") else title
    note = ", installed with camjax" if source.packaged else ", backbone" if source.backbone_only else ""
    return f"{where}{note}: {source.licence or NOT_STATED}"
