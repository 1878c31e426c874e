"""`camjax export`: a network with its weights, maps and boxes as one file that runs without its definition."""

import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from camjax.addresses import as_path, is_address
from camjax.cli.options import Flag, Share, TopK, Weights, arg
from camjax.errors import InputError

SUFFIXES = (".camjax", ".onnx")


def export(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.camjax|OUT.onnx")],
    /,
    *,
    weights: Weights = None,
    trust: Flag = False,
    method: Annotated[str, arg("NAME")] = "cam",
    threshold: Share = 0.2,
    top_k: TopK = 1,
    layer: Annotated[str | None, arg("LAYER", default=False)] = None,
    image_size: Annotated[tuple[int, int] | None, arg("H W", default=False)] = None,
    any_size: Flag = False,
    platforms: Annotated[tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...], arg("PLATFORM...", default=False)] = (),
) -> None:
    """Write a network as one file that needs no code of its own to run: images in; logits, classes, maps and boxes out.

    OUT.camjax runs by camjax.load_exported(OUT), by JAX alone, and in camjax explain --model OUT; OUT.onnx runs by ONNX
    Runtime. Both take batches of any number of images (B, H, W, 3) uint8 RGB, resized to the network's input size;
    normalization is part of the file. docs/exporting.md has the lines that run them.

    Args:
      model: A network of `camjax models`, a run, or MODULE:NAME.
      target: The file to write; its suffix is its format.
      weights: A file (.pth, .safetensors, ...), an address (hf://, https://), or a short name in `camjax models`.
      trust: Import the module of a run whose network is MODULE:NAME; importing runs its code.
      method: How maps are made: cam, gradcam, layercam, ...; docs/attribution.md has all of them.
      threshold: The box encloses the largest connected region where the map exceeds this share of its maximum.
      top_k: Maps and boxes of the K most probable classes.
      layer: The layer that gradcam, ... explain; by default the last.
      image_size: Height and width of the images in pixels; by default those of the network.
      any_size: Let OUT.camjax take images of any size; all images of a call have one size.
      platforms: Where OUT.camjax runs: cpu, cuda, rocm, tpu; by default all but rocm.
    """
    # The command line's help keeps line breaks of the text above: hence one line for each argument.
    if target.suffix not in SUFFIXES:
        raise InputError(f"{target}: expected a file that ends in {' or '.join(SUFFIXES)}.")
    if not is_address(target):
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{target}: the directory {target.parent} does not exist; make it first.")
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(f"{target}: no permission to write there; give another OUT.")

    # Imported here, because other commands do not need them.
    from camjax.exporting.export import export_model
    from camjax.loading import load_model
    from camjax.terminal import Console

    path = as_path(target)
    with Console(stderr=True).status(f"loading {model}") as status:
        network = load_model(model, weights, trust=trust)
        status.update(f"exporting {model}")
        export_model(
            network,
            path,
            method,
            threshold=threshold,
            top_k=top_k,
            layer=layer,
            platforms=platforms or None,
            image_size=image_size,
            any_size=any_size,
        )
    Console().print(
        f"Saved {target}: {model}, {network.head.num_classes} classes, {method}, {path.stat().st_size / 1e6:.1f} MB",
        soft_wrap=True,
    )
