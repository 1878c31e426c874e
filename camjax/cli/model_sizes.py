"""The sizes that `camjax models` prints, computed once and kept on disk."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

import camjax.models
from camjax.errors import InputError
from camjax.files import write_whole
from camjax.json_files import read_json
from camjax.models.shapes import model_shapes


@dataclass(frozen=True)
class ModelSize:
    """The size of a network.

    Attributes:
      parameters: their number.
      input_size: (H, W) in pixels that the network was made for.
      map_size: (h, w) of its last feature map then.
      cam: "exact" if the mean of a class's map plus the class's bias is its logit, "yes" if there are maps but that
        does not hold, "none" if there are no maps.
    """

    parameters: int
    input_size: tuple[int, int]
    map_size: tuple[int, int]
    cam: str


@dataclass(frozen=True)
class _Kept:
    version: str
    models: dict[str, ModelSize]


def measure(name: str) -> ModelSize:
    """The sizes of a registered network, from its shapes alone; half a second for a deep one."""
    model = model_shapes(name)
    model.eval()
    images = jax.ShapeDtypeStruct((1, *model.input_size, 3), jnp.uint8)
    features = jax.eval_shape(lambda model, images: model.features(images), model, images)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    cam = "none" if not hasattr(model.head, "kernel") else "exact" if model.exact_cam else "yes"
    return ModelSize(parameters, model.input_size, features.shape[1:3], cam)


def model_sizes(names: Iterable[str]) -> dict[str, ModelSize]:
    """The sizes of several networks.

    They are kept in `$XDG_CACHE_HOME/camjax/models.json` (or below `~/.cache`) until a file of camjax's networks
    changes. If that file cannot be written, they are computed each time.
    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "camjax", "models.json")
    version = _version()
    kept = {}
    with contextlib.suppress(OSError, RuntimeError, InputError):
        path = path.expanduser()  # RuntimeError: no home directory is known
        content = read_json(path, _Kept, advice="")
        if content.version == version:
            kept = content.models
    sizes = {name: kept.get(name) or measure(name) for name in names}
    if not sizes.keys() <= kept.keys():
        models = {name: dataclasses.asdict(size) for name, size in (kept | sizes).items()}
        with contextlib.suppress(OSError):
            write_whole(path, json.dumps({"version": version, "models": models}), make_parent=True)
    return sizes


def _version() -> str:
    """Changes whenever a file of camjax.models does."""
    digest = hashlib.sha256()
    for path in sorted(Path(camjax.models.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
