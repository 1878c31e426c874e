"""camjax: class activation mapping in JAX.

Networks that end in global average pooling and one dense layer, trained from class labels alone, say what is in an
image and, by their class activation maps (Zhou et al., CVPR 2016), where.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camjax.attribution import explainer
    from camjax.boxes import box_iou, largest_component_box
    from camjax.cam import class_activation_map, normalize_map, resize_map
    from camjax.data.images import load_images
    from camjax.exporting.export import export_model
    from camjax.exporting.network import load_exported
    from camjax.inference import CamOutput, Localization, cam_fn, make_cam_fn, make_localize_fn
    from camjax.loading import load_model
    from camjax.models import create_model, list_models, register_model, with_new_head

__version__ = "0.1.0"

__all__ = [
    "CamOutput",
    "Localization",
    "box_iou",
    "cam_fn",
    "class_activation_map",
    "create_model",
    "explainer",
    "export_model",
    "largest_component_box",
    "list_models",
    "load_exported",
    "load_images",
    "load_model",
    "make_cam_fn",
    "make_localize_fn",
    "normalize_map",
    "register_model",
    "resize_map",
    "with_new_head",
]

_MODULES = {
    "attribution": ("explainer",),
    "boxes": ("box_iou", "largest_component_box"),
    "cam": ("class_activation_map", "normalize_map", "resize_map"),
    "data.images": ("load_images",),
    "exporting.export": ("export_model",),
    "exporting.network": ("load_exported",),
    "inference": ("CamOutput", "Localization", "cam_fn", "make_cam_fn", "make_localize_fn"),
    "loading": ("load_model",),
    "models": ("create_model", "list_models", "register_model", "with_new_head"),
}


def __getattr__(name: str) -> Any:
    """Imports names and modules on first use: Flax, OpenCV, Matplotlib, tfds and Orbax take a while."""
    for module, names in _MODULES.items():
        if name in names:
            globals()[name] = value = getattr(importlib.import_module(f"camjax.{module}"), name)
            return value
    try:
        return importlib.import_module(f"camjax.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"camjax.{name}":
            raise
        raise AttributeError(f"module 'camjax' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
