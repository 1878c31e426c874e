"""A network of which a command needs the maps of all classes, kept ready between starts."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from camjax.cli.kept_programs import KeptProgram
    from camjax.models import CamModel


class ReadyNetwork(NamedTuple):
    """What is left of a network whose maps of all classes by one method come from one program.

    Attributes:
      class_names: of its classes, or None.
      num_classes: C.
      image_size: (H, W) in pixels of the images that the method takes.
      multi_label: of the model.
      maps_fn: images (1, H, W, 3) uint8 -> logits (1, C) and maps (1, C, h, w).
      directory: where it is kept, or None.
    """

    class_names: Sequence[str] | None
    num_classes: int
    image_size: tuple[int, int]
    multi_label: bool
    maps_fn: Callable[..., Any]
    directory: Path | None

    def boxes_fn(self, shape: tuple[int, ...]) -> Callable[..., Any]:
        """`camjax.boxes.boxes_from_maps` as a function of maps (N, h, w) of that shape and the threshold."""
        import jax

        from camjax.cli.kept_programs import find_program, keep_program, kept_file

        size = self.image_size
        path = self.directory and kept_file(self.directory, "boxes", *shape, *size)
        program = find_program(path) if path else None
        if program is None:
            from camjax.boxes import boxes_from_maps

            def of_maps(_, maps, threshold):
                return boxes_from_maps(maps, size, threshold)

            examples = jax.ShapeDtypeStruct(shape, "float32"), jax.ShapeDtypeStruct((), "float32")
            program = keep_program(path, {}, of_maps, [], *examples)
        return program.call


def ready_network(
    directory: Path | None, model: str, weights: str | None, method: str, load: "Callable[[], CamModel]"
) -> "ReadyNetwork | CamModel":
    """The network ready to run by a method, from an earlier start where that kept it.

    Args:
      directory: of what is kept, or None.
      model: its name.
      weights: as in `camjax.load_model`.
      method: its name. Of one whose maps of all classes cost more than those of a few, the model itself is returned.
      load: loads the model.

    Raises:
      ValueError: an unknown method, or a model without what it needs.
    """
    from camjax.cli.kept_programs import find_program, kept_file

    path = None
    # Networks of camjax itself, and weights that are installed or a local file without a `config.json` beside it: what
    # else there is may change unseen.
    alone = weights is None or (os.path.isfile(weights) and not Path(weights).with_name("config.json").exists())
    if directory is not None and model.isidentifier() and alone:
        path = kept_file(directory, model, weights and os.path.abspath(weights), method)
        if found := find_program(path):
            return _ready(found, directory)

    from camjax.attribution.methods import method_named
    from camjax.models import model_spec

    said: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as said:
            network = load()
    finally:
        for warning in said:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if not method_named(method).all_classes:
        return network
    files: list[Path] = []
    if path is not None:
        packaged = model_spec(model).packaged
        if weights is not None:
            files = [Path(weights)]
        elif packaged is not None and packaged.packaged is not None:
            files = [packaged.packaged()]
        # The next start should say the warnings again.
        path = path if files and not said and model_spec(model).module is None else None
    return make_ready(network, method, path, files)


def make_ready(network: "CamModel", method: str, path: Path | None = None, files: Sequence[Path] = ()) -> ReadyNetwork:
    """The network ready to run by a method, kept at a path for the next start if there is one."""
    import jax

    from camjax.attribution.methods import method_named
    from camjax.cli.kept_programs import keep_program
    from camjax.inference import all_maps_program

    row = method_named(method)
    about = {
        "num_classes": np.array(row.num_classes(network)),
        "image_size": np.array(row.image_size(network)),
        "multi_label": np.array(network.multi_label),
    }
    if network.class_names is not None:
        about["class_names"] = np.array(network.class_names, np.str_)
    function, arrays = all_maps_program(network, method)
    example = jax.ShapeDtypeStruct((1, *row.image_size(network), 3), "uint8")
    program = keep_program(path, about, function, arrays, example, files=files)
    return _ready(program, path and path.parent)


def _ready(program: "KeptProgram", directory: Path | None) -> ReadyNetwork:
    about = {name: value.tolist() for name, value in program.about.items()}
    height, width = about["image_size"]
    return ReadyNetwork(
        about.get("class_names"),
        about["num_classes"],
        (height, width),
        about["multi_label"],
        program.call,
        directory,
    )
