"""camjax's own files of weights: safetensors that say which model they are of.

Each tensor is named by its place in the model (`head.kernel`), so reading needs no table of names. The metadata, which
safetensors keeps as text by name, are

- `format`: "camjax", which tells these files from others, and `camjax_version`;
- `model`, `num_classes`, `pool`: the arguments of `create_model`; `wsol`, as JSON, if it was given;
- `class_names`: the names as a JSON list; left out if they are not known;
- `multi_label`: "true" for a network whose images may have several classes; otherwise left out;
- `input_rule`: the arguments of `CamModel.set_input_rule` as JSON, without the mean image, which is a tensor;
- `input_size`: height and width in pixels of the images that the model takes, as a JSON list; files of older versions
  lack it.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from camjax.errors import InputError, printable, reading
from camjax.files import whole_file
from camjax.json_files import parse_json
from camjax.models import CamModel
from camjax.models.base import ChannelOrder, Interpolation, image_size
from camjax.models.head import Pool
from camjax.models.tensor_names import Rule
from camjax.models.wsol.table import wsol_config
from camjax.weights.errors import WeightsError

T = TypeVar("T")

FORMAT = "camjax"

_ADVICE = "Download or convert the file again."

# The names in the file are the places in the model.
TABLE = (Rule(r"(?s)(.*)", r"\1"),)

# The place of the mean image, which not every model has.
MEAN_IMAGE = "mean_image"


@dataclass(frozen=True)
class Description:
    """What a file says of its model.

    Attributes:
      model: its name in the registry; None for a model that `create_model` did not make.
      num_classes: C, or None if it is not known.
      pool: "gap" or "gmp", or None if it is not known.
      class_names: C strings, or None.
      input_rule: arguments of `CamModel.set_input_rule`, or none for the model's default.
      input_size: (H, W) in pixels of the images that the model takes, or None for the network's default.
      multi_label: as `CamModel.multi_label`.
      wsol: the training method, as in `create_model`; None for none.
    """

    model: str | None = None
    num_classes: int | None = None
    pool: Pool | None = None
    class_names: tuple[str, ...] | None = None
    input_rule: Mapping[str, Any] = field(default_factory=dict)
    input_size: tuple[int, int] | None = None
    multi_label: bool = False
    wsol: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _InputRule:
    """`camjax.models.base.WholeInputRule`, as a form that JSON is checked against."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: ChannelOrder
    crop_share: float = 1.0
    interpolation: Interpolation = "bilinear"


def describe(model: CamModel) -> Description:
    """The description of a model."""
    created_as = model.created_as or {}
    return Description(
        model=created_as.get("name"),
        num_classes=model.head.num_classes,
        pool=created_as.get("pool"),
        class_names=model.class_names,
        input_rule=dict(model.input_rule),
        input_size=model.input_size,
        multi_label=getattr(model, "multi_label", False),
        wsol=created_as.get("wsol"),
    )


def tensors_of(model: CamModel) -> dict[str, np.ndarray]:
    """The model's parameters, BatchNorm statistics and mean image, by their places in it."""
    return {
        ".".join(map(str, path)): np.asarray(variable[...])
        for path, variable in nnx.iter_graph(model)
        if isinstance(variable, nnx.Variable) and not isinstance(variable, nnx.RngState)
    }


def write_camjax_file(model: CamModel, path: str | PathLike[str], *, version: str) -> None:
    """Writes a model's weights and description to a safetensors file, under a temporary name until it is complete.

    Args:
      model: with weights.
      path: of the file; an existing one is replaced.
      version: of camjax, for the metadata.

    Raises:
      OSError: the file cannot be written.
    """
    description = describe(model)
    metadata: dict[str, str | None] = {
        "format": FORMAT,
        "camjax_version": version,
        "model": description.model,
        "num_classes": str(description.num_classes),
        "pool": description.pool,
        "class_names": None if description.class_names is None else json.dumps(description.class_names),
        "multi_label": "true" if description.multi_label else None,
        "wsol": None if description.wsol is None else json.dumps(description.wsol),
        "input_rule": json.dumps(model.input_rule),
        "input_size": json.dumps(model.input_size),
    }
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors_of(model).items()}
    with whole_file(path) as draft:
        try:
            save_file(tensors, draft, {key: value for key, value in metadata.items() if value is not None})
        except SafetensorError as error:  # the library's own, of the operating system's
            raise OSError(f"{path} cannot be written ({printable(error)}). Make room, or give another place.") from None


def read_description(path: str | PathLike[str]) -> Description | None:
    """What the metadata of a file say; None if the file is not one of camjax's own.

    Args:
      path: any file of weights.

    Raises:
      WeightsError: the metadata are damaged.
    """
    if Path(path).suffix.lower() != ".safetensors":
        return None
    with (
        reading(path, "a whole safetensors file", _ADVICE, error=WeightsError),
        safe_open(path, framework="numpy", backend="pread") as file,
    ):
        metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        return None

    def field(key: str, form: type[T]) -> T:
        return parse_json(metadata.get(key, "null"), form, name=f"{path}: the file's {key}", advice=_ADVICE)

    try:
        classes, pool = field("num_classes", int), metadata.get("pool")
        if not 1 <= classes < 1 << 31 or pool not in ("gap", "gmp", None):
            raise InputError(f"{path}: the file's num_classes, {classes}, or pool, {pool!r}, is damaged. {_ADVICE}")
        names = field("class_names", tuple[str, ...]) if "class_names" in metadata else None
        rule = dataclasses.asdict(field("input_rule", _InputRule))
        size = image_size(field("input_size", list[int])) if "input_size" in metadata else None
        multi_label = "multi_label" in metadata and field("multi_label", bool)
        wsol = wsol_config(field("wsol", dict[str, Any])) if "wsol" in metadata else None
    except InputError as error:
        named = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise WeightsError(named) from None
    model = printable(metadata["model"]) if "model" in metadata else None
    return Description(model, classes, pool, names, rule, size, multi_label, wsol)
