"""Annotating folders of pictures: where things are, as boxes in the formats of annotation tools.

The names of `__all__` are public. They are imported on first use, because the loop needs Grain.
"""

import importlib

_MODULES = {
    "Box": "records",
    "Manifest": "manifest",
    "Options": "options",
    "Picture": "records",
    "annotate_folder": "loop",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(importlib.import_module(f"camjax.annotating.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'camjax.annotating' has no attribute {name!r}")
