"""Writing a network with its weights, its input rule and its maps and boxes as one file."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from camjax.attribution.methods import method_named
from camjax.checks import check_threshold
from camjax.errors import InputError, printable
from camjax.exporting import onnx_file
from camjax.exporting.file import SUFFIX, write_exported_file
from camjax.exporting.network import ASKED, THRESHOLD, TOP
from camjax.files import write_whole
from camjax.inference import localization_program
from camjax.models import CamModel
from camjax.outputs import Localization
from camjax.programs import traced
from camjax.weights.fingerprint import weights_sha256

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

ANYWHERE = ("cpu", "cuda", "tpu")
"""The platforms of a file, where none are asked for."""


def export_model(
    model: CamModel,
    path: str | os.PathLike[str],
    method: str = "cam",
    *,
    threshold: float = 0.2,
    top_k: int = 1,
    layer: str | None = None,
    platforms: Sequence[str] | None = None,
    image_size: tuple[int, int] | None = None,
    any_size: bool = False,
    **options: Any,
) -> None:
    """Writes what `camjax.make_localize_fn(model, method, ...)` computes as one file, for batches of any size.

    `camjax.load_exported` runs the file without the network's definition; docs/exporting.md says how JAX runs it
    without camjax, and how ONNX Runtime runs one in ONNX.

    Args:
      model: a model of camjax that has what the method needs.
      path: of the file, or its address in a bucket. It ends in ".camjax", or in ".onnx" for ONNX, which needs jax2onnx.
        An existing file is replaced.
      method: of `camjax.attribution.METHODS`, one that is one compiled program: no loop on the host.
      threshold: of boxes, as in `make_localize_fn`.
      top_k: number of classes, by falling logit, that have maps and boxes.
      layer: as in `make_localize_fn`.
      platforms: on which a ".camjax" file runs, of "cpu", "cuda", "rocm" and "tpu"; None for all but "rocm".
      image_size: (H, W) in pixels of the images; None for what the method takes, mostly the model's `input_size`.
      any_size: whether images of any size will do.
      **options: of the method, as in `make_localize_fn`.

    Raises:
      ValueError: a method or a network that cannot be exported so, before anything is written; and as
        `make_localize_fn`.
      OSError: the file cannot be written.
    """
    in_onnx = Path(path).suffix == onnx_file.SUFFIX
    if not in_onnx and Path(path).suffix != SUFFIX:
        raise InputError(f"{path}: expected a file that ends in {SUFFIX} or {onnx_file.SUFFIX}.")
    if platforms is not None and in_onnx:
        raise InputError(f"platforms {', '.join(platforms)} of a file in ONNX, which runs wherever ONNX Runtime does.")
    if any_size and in_onnx:
        raise InputError(
            "any_size: jax2onnx converts networks for images of one size alone. Give image_size=(H, W), or write a "
            f"file that ends in {SUFFIX}."
        )
    platforms = ANYWHERE if platforms is None else platforms
    if not platforms or not {*platforms} <= {*PLATFORMS} or len({*platforms}) < len(platforms):
        raise InputError(f"platforms {', '.join(platforms)}: expected some of {', '.join(PLATFORMS)}, each once.")
    check_threshold(threshold)
    size = image_size or method_named(method).image_size(model)
    if min(size) < model.min_size:
        raise InputError(f"image_size={size}: expected at least {model.min_size} pixels, one cell of the map.")
    program, weights = localization_program(model, method, top_k=top_k, layer=layer, **options)
    about = {
        **_description(model, size, any_size),
        **{"method": method, "layer": layer, "threshold": threshold, "top_k": top_k},
    }
    with _said_by_name(model, method, any_size):
        images, class_ids = _symbolic_inputs(model, size, any_size)
    if in_onnx:

        def of_images(images):
            return program(list(weights.values()), np.float32(threshold), images)

        with _said_by_name(model, method, any_size):
            content = onnx_file.onnx_bytes(of_images, images, size, about)
        write_whole(path, content)
        return
    arrays, restored = _as_numpy({**weights, THRESHOLD: jnp.float32(threshold)})

    def localize(arrays, images, class_ids=None):
        *weights, threshold = restored(arrays)
        return program(weights, threshold, images, class_ids)

    with _said_by_name(model, method, any_size):
        programs = {
            name: traced(localize, list(arrays.values()), *inputs, platforms=platforms)
            for name, inputs in {TOP: (images,), ASKED: (images, class_ids)}.items()
        }
    about |= {
        "platforms": list(platforms),
        "calling_convention": programs[TOP].calling_convention,
        "programs": {
            name: {"arguments": program.arguments, "results": program.results} for name, program in programs.items()
        },
    }
    write_exported_file(path, about, {name: program.code for name, program in programs.items()}, arrays)


def _symbolic_inputs(
    model: CamModel, size: tuple[int, int], any_size: bool
) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Images and class ids of batches of any size, and of any number of classes."""
    sides = ("h", "w") if any_size else size
    scope = export.SymbolicScope([f"{side} >= {model.min_size}" for side in sides if any_size])
    images = export.symbolic_shape(f"b, {sides[0]}, {sides[1]}, 3", scope=scope)
    class_ids = export.symbolic_shape("b, n", scope=scope)
    return jax.ShapeDtypeStruct(images, np.uint8), jax.ShapeDtypeStruct(class_ids, np.int32)


def _description(model: CamModel, size: tuple[int, int], any_size: bool) -> dict[str, Any]:
    """What a file of any format says of a network: fields of `camjax.exporting.file.About`."""
    return {
        "versions": {name: metadata.version(name) for name in ("camjax", "jax")},
        "model": (model.created_as or {}).get("name", type(model).__name__),
        "weights_sha256": weights_sha256(model),
        "num_classes": model.head.num_classes,
        "class_names": model.class_names,
        "multi_label": model.multi_label,
        "outputs": Localization._fields,
        "input": {
            **{"size": size, "any_size": any_size, "min_size": model.min_size, **model.input_rule},
            **{"crop_share": model.crop_share, "interpolation": model.interpolation},
        },
    }


def _as_numpy(
    arrays: Mapping[str, jax.Array],
) -> tuple[dict[str, np.ndarray], Callable[[Sequence[jax.Array]], list[jax.Array]]]:
    """Arrays in NumPy's own types, in which bfloat16 is written as uint16; and what makes the arrays of these."""
    types = [array.dtype for array in arrays.values()]
    kept = {
        name: np.asarray(array).view(np.uint16) if array.dtype == jnp.bfloat16 else np.asarray(array)
        for name, array in arrays.items()
    }

    def restored(arrays):
        return [
            jax.lax.bitcast_convert_type(array, dtype) if array.dtype != dtype else array
            for array, dtype in zip(arrays, types, strict=True)
        ]

    return kept, restored


@contextlib.contextmanager
def _said_by_name(model: CamModel, method: str, any_size: bool) -> Iterator[None]:
    """Makes what JAX says that it cannot export an error that names the method and the network."""
    try:
        yield
    except InputError:
        raise
    except (jax.errors.InconclusiveDimensionOperation, NotImplementedError, TypeError, ValueError) as error:
        whole = f"{method} of {type(model).__name__} cannot be exported for {'images' if any_size else 'batches'}"
        advice = "Leave out --any-size." if any_size else "Take another method, or other platforms."
        raise InputError(f"{whole} of any size ({type(error).__name__}: {printable(error)}). {advice}") from error
