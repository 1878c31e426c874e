"""Installs the PyTorch implementations that tests and benchmarks compare with, and imports torchvision.

    python -m benchmarks.peers

installs them into the environment of the Python that runs it. They are not an extra of the package, because PyPI's
build of torch for x86-64 Linux is the one for NVIDIA GPUs: an extra would require gigabytes of CUDA.
"""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

COMMAND = "python -m benchmarks.peers"

WHY = """\
Installing the implementations that camjax is compared with: PyTorch, torchvision, efficientnet-lite-pytorch,
pytorch-grad-cam, torch-cam and captum; Equinox, whose networks camjax explains; and pycocotools, which reads the boxes
that camjax writes. They are not an extra of the package, because PyPI's torch for x86-64 Linux requires gigabytes of
CUDA.
To measure without a GPU, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu to get the CPU build.
All but torch are installed without their dependencies, so that no installed package is replaced.
"""

# The arguments of each pip command. pytorch-grad-cam needs scikit-learn, with SciPy, and Equinox needs jaxtyping and
# wadler-lindig; camjax has their other dependencies.
STEPS = (
    ("torch==2.13.0", "scikit-learn>=1.5", "tqdm"),
    (
        "--no-deps",
        "torchvision==0.28.0",
        "efficientnet-lite-pytorch==0.1.0",
        "ttach==0.0.3",
        "grad-cam==1.5.7",
        "timm==1.0.31",
        "torchcam==0.5.0",
        "captum==0.9.0",
        "equinox==0.13.8",
        "jaxtyping==0.3.11",
        "wadler-lindig==0.1.8",
        "pycocotools==2.0.11",
    ),
)

# The operators that importing torchvision looks up; image classifiers run none of them. The signatures are those of
# torchvision's csrc/ops.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declarations = []  # a declaration lives as long as its library object


def install() -> None:
    """Runs the pip commands of `STEPS`, printing each.

    Raises:
      subprocess.CalledProcessError: pip failed; its message is on stderr.
    """
    print(WHY)
    for step in STEPS:
        print("pip install", *step, flush=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *step], check=True)


def missing(*modules: str) -> str | None:
    """Returns a sentence on which of these modules are missing and how to install them; None if none is missing."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{', '.join(absent)} not installed; to install: {COMMAND}" if absent else None


def import_torchvision() -> ModuleType:
    """Imports torchvision, even with a torch without CUDA.

    PyPI's torchvision has no CPU build for Linux. With a CPU build of torch its compiled operators do not load, and
    importing it fails because their names are missing. Its image classifiers and transforms need none of them, so this
    declares the names without an implementation: calling one raises PyTorch's NotImplementedError.

    Raises:
      ImportError: torch or torchvision is not installed.
    """
    if reason := missing("torch", "torchvision"):
        raise ImportError(reason)
    folder = Path(importlib.util.find_spec("torchvision").origin).parent
    if "torchvision" not in sys.modules and not _operators_load(folder):
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for signature in _OPERATORS:
            library.define(signature)
        _declarations.append(library)
    return importlib.import_module("torchvision")


def _operators_load(package: Path) -> bool:
    """Whether torch can load the compiled operators in torchvision's folder."""
    import torch

    for library in package.glob("_C.*"):
        try:
            torch.ops.load_library(library)
            return True
        except (ImportError, OSError):
            continue
    return False


if __name__ == "__main__":
    install()
