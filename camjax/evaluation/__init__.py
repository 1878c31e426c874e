"""Evaluating methods over a data set: the loop, its report, and its figures.

The names of `__all__` are public. They are imported on first use, because the loop needs Grain and figures Matplotlib.
"""

import importlib

_MODULES = {
    "Evaluation": "runner",
    "LayerChoice": "layer_choice",
    "choose_layer": "layer_choice",
    "evaluate_localization": "runner",
    "cases_figure": "figures",
    "counts_sentence": "report",
    "curve_figure": "figures",
    "results_table": "report",
    "save_figures": "figures",
    "summary": "report",
    "write_results": "report",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(importlib.import_module(f"camjax.evaluation.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'camjax.evaluation' has no attribute {name!r}")
