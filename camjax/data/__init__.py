"""Images, data sets with and without boxes, and the loader that feeds them to the device.

The names here are the public ones; each is imported with its module on first use. `camjax.data.transforms` has the
random changes of training images.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camjax.data.annotated import open_annotated, open_image_folder
    from camjax.data.annotation import AnnotatedSource, Annotation
    from camjax.data.batches import Batches
    from camjax.data.decoding import ImageError
    from camjax.data.fake import FakeImages
    from camjax.data.images import CropTransform, load_image, load_images, resize_image
    from camjax.data.loader import eval_batches, train_batches
    from camjax.data.own_pictures import Inspection, OwnPictures, open_own_pictures
    from camjax.data.prefetching import prefetch
    from camjax.data.preparing import prepare
    from camjax.data.rows import RandomAccessSource
    from camjax.data.source_info import SourceInfo
    from camjax.data.sources import Source, open_source

__all__ = [
    "AnnotatedSource",
    "Annotation",
    "Batches",
    "CropTransform",
    "FakeImages",
    "ImageError",
    "Inspection",
    "OwnPictures",
    "RandomAccessSource",
    "Source",
    "SourceInfo",
    "eval_batches",
    "load_image",
    "load_images",
    "open_annotated",
    "open_image_folder",
    "open_own_pictures",
    "open_source",
    "prefetch",
    "prepare",
    "resize_image",
    "train_batches",
]

_MODULES = {
    "annotated": ("open_annotated", "open_image_folder"),
    "annotation": ("AnnotatedSource", "Annotation"),
    "batches": ("Batches",),
    "decoding": ("ImageError",),
    "fake": ("FakeImages",),
    "images": ("CropTransform", "load_image", "load_images", "resize_image"),
    "loader": ("eval_batches", "train_batches"),
    "own_pictures": ("Inspection", "OwnPictures", "open_own_pictures"),
    "prefetching": ("prefetch",),
    "preparing": ("prepare",),
    "rows": ("RandomAccessSource",),
    "source_info": ("SourceInfo",),
    "sources": ("Source", "open_source"),
}


def __getattr__(name: str):
    """Imports a public name on first use: tfds and Grain take seconds, which loading an image should not."""
    if name == "transforms":
        return importlib.import_module("camjax.data.transforms")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"camjax.data.{module}"), name)
    raise AttributeError(f"module 'camjax.data' has no attribute {name!r}")
