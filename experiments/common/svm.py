"""Support vector machines of an experiment: their option, and their file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from camjax.cli.options import arg
from camjax.features import with_linear_classifier
from camjax.features.svm import PENALTIES, LinearSVM
from camjax.models import CamModel
from experiments.common.options import FeatureOptions
from experiments.common.stages import load_arrays


@dataclass(frozen=True, kw_only=True)
class SvmOptions(FeatureOptions):
    """The options of an experiment that trains linear support vector machines on pooled features.

    Attributes:
      penalties: Candidates for the SVMs' penalty, scikit-learn's C.
    """

    penalties: Annotated[tuple[float, ...], arg("C...")] = PENALTIES


def save_svm(path: Path, svm: LinearSVM) -> None:
    """Writes kernel and bias to an .npz file."""
    np.savez(path, kernel=svm.kernel, bias=svm.bias)


def load_svm(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (K, C) and bias (C,) of an .npz file."""
    kernel, bias = load_arrays(path, "kernel", "bias")
    return kernel, bias


def load_localizer(model: CamModel, path: Path) -> CamModel:
    """The network with the SVMs of an .npz file as its head: their maps show where their classes are."""
    return with_linear_classifier(model, *load_svm(path))
