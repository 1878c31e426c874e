"""`camjax models`: the registered networks in a table."""

import jax
from flax import nnx
from rich import box
from rich.console import Console
from rich.table import Table

from camjax.models import create_model, list_models, model_spec


def models() -> None:
    """List the networks: their sizes, and where pretrained weights come from."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("Model", no_wrap=True)
    table.add_column("Params\n(M)", justify="right")
    table.add_column("Input", justify="right", no_wrap=True)
    table.add_column("Map", justify="right", no_wrap=True)
    table.add_column("Exact\nCAM")
    table.add_column("Pretrained weights", overflow="fold")
    for name in list_models():
        # Shapes only: no weights are drawn.
        model = nnx.eval_shape(lambda name=name: create_model(name, rngs=nnx.Rngs(0)))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
        table.add_row(
            name,
            f"{parameters / 1e6:.1f}",
            "x".join(map(str, model.input_size)),
            "x".join(str(-(-side // model.stride)) for side in model.input_size),
            "yes" if model.exact_cam else "no",
            model_spec(name).weights or "none",
        )
    console = Console(highlight=False)
    console.print(table, "")
    console.print(
        "Params: parameters, in millions. Input and Map: height x width, in pixels and cells. Exact CAM: the mean of "
        "a class's map plus the class's bias is its logit, so the map shows all of the evidence."
    )
