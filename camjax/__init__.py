"""camjax: class activation mapping in JAX.

Networks that end in global average pooling and one dense layer, trained from class labels alone, say what is in an
image and, by their class activation maps (Zhou et al., CVPR 2016), where.
"""

import importlib

from camjax.attribution import explainer
from camjax.boxes import box_iou, largest_component_box
from camjax.cam import class_activation_map, normalize_map, resize_map
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
    "largest_component_box",
    "list_models",
    "load_images",
    "load_model",
    "make_cam_fn",
    "make_localize_fn",
    "normalize_map",
    "register_model",
    "resize_map",
    "with_new_head",
]


def __getattr__(name: str):
    """Imports on first use what brings a heavy library along: OpenCV, Matplotlib, tfds, Orbax."""
    if name == "load_images":
        from camjax.data.images import load_images

        return load_images
    if name in ("annotating", "data", "evaluation", "features", "metrics", "training", "viz", "weights"):
        return importlib.import_module(f"camjax.{name}")
    raise AttributeError(f"module 'camjax' has no attribute {name!r}")
