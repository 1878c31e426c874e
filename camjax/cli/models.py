"""`camjax models`: a table of the registered networks."""

LEGEND = (
    "Params: parameters, in millions. Input and Map: height x width, in pixels and cells. CAM: exact, where the mean "
    "of a class's map plus the class's bias is its logit, so that the map shows all of the evidence; yes, where that "
    "does not hold; none, where there are no maps. Weights that are not installed: camjax.load_model(MODEL, "
    "weights=WHERE) and --weights WHERE take a file, hf://OWNER/NAME, https://..., or a short name, listed below. For "
    "every network, they also take a run or a file by `camjax convert`."
)


def models() -> None:
    """List the networks: their sizes, and where pretrained weights come from."""
    # Imported here, because other commands do not need them.
    from rich import box
    from rich.table import Table

    from camjax.cli.model_sizes import model_sizes
    from camjax.models import list_models, model_spec
    from camjax.terminal import Console

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Model", no_wrap=True)
    table.add_column("Params", justify="right")
    table.add_column("Input", justify="right", no_wrap=True)
    table.add_column("Map", justify="right", no_wrap=True)
    table.add_column("CAM")
    table.add_column("Pretrained weights", overflow="fold")
    names = list_models()
    with Console(stderr=True).status("computing the sizes of the networks (first time only)"):
        sizes = model_sizes(names)
    for name in names:
        size = sizes[name]
        table.add_row(
            name,
            f"{size.parameters / 1e6:.1f}",
            "x".join(map(str, size.input_size)),
            "x".join(map(str, size.map_size)),
            size.cam,
            _weights(name),
        )
    console = Console()
    console.print(table, "")
    console.print(f"{LEGEND}\n")
    for name in names:
        for short_name, source in model_spec(name).short_names.items():
            if not source.backbone_only:
                console.print(f"--model {name} --weights {short_name}", soft_wrap=True)
                console.print(f"  {source.address}", soft_wrap=True)


def _weights(name: str) -> str:
    """Where a network's weights come from, short enough for a column of a table."""
    from camjax.models import model_spec

    spec = model_spec(name)
    if spec.packaged:
        return f"{spec.packaged.data}, with camjax" + "[weights]" * (not spec.installed)
    return spec.weights_in_words() or "none"
