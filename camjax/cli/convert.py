"""`camjax convert`: writes weights from anywhere as one safetensors file in camjax's own names."""

import os
from pathlib import Path
from typing import Annotated

import tyro

from camjax.addresses import local_path
from camjax.errors import InputError


def convert(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.safetensors")],
    /,
    *,
    model: Annotated[str, tyro.conf.arg(metavar="NAME")],
    num_classes: Annotated[int | None, tyro.conf.arg(metavar="C", help_behavior_hint="")] = None,
) -> None:
    """Convert weights of another framework to camjax's safetensors format.

    Every entry is placed in the network first, and all mismatches are reported. The file says which
    network it is for, and load_model(OUT.safetensors) reads it.

    Args:
      source: A file (.pth, .pt, .bin, .safetensors, .npz, .caffemodel), hf://OWNER/NAME, https://..., or a run.
      target: The file to write.
      model: A network of `camjax models`, or MODULE:NAME of your own.
      num_classes: Number of classes in IN, where it is not the network's default.
    """
    # The command line's help keeps the line breaks of the text above, so each argument is one line.
    local_path(target, "OUT")
    if target.suffix != ".safetensors":
        raise InputError(f"{target}: expected a file that ends in .safetensors.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: the directory {target.parent} does not exist; make it first.")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"{target}: no permission to write there; give another OUT.safetensors.")
    if os.path.exists(source) and target.exists() and os.path.samefile(source, target):
        raise InputError(f"{target} is IN itself: expected another file.")

    import camjax
    from camjax.loading import model_with_weights
    from camjax.weights.camjax_file import write_camjax_file

    network = model_with_weights(model, source, num_classes=num_classes)
    classes = network.head.num_classes
    if num_classes not in (None, classes):
        raise InputError(f"--num-classes {num_classes}: {source} has {classes} classes, which convert cannot change.")
    write_camjax_file(network, target, version=camjax.__version__)
    print(f"Saved {target}: {model}, {classes} classes, {target.stat().st_size / 1e6:.1f} MB")
